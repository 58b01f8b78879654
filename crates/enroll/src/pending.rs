//! Enrolments that are under way, on disk, so that they go on after a crash.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_keystore::{KeyUri, durable};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Token};

/// What was decided before the token was sent for the first time. It is written before that, and
/// removed when the identity is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) identity: String,
    pub(crate) key: KeyUri,
    /// DER PKCS#10.
    pub(crate) csr: Vec<u8>,
}

/// The JSON on disk; the token's id is the name of the file, and its secret is nowhere.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    identity: String,
    key: KeyUri,
    csr: String,
}

const MAX_FILE: u64 = 1024 * 1024;

impl Pending {
    /// The enrolment with this token that is under way, if there is one.
    pub(crate) fn read(folder: &Path, token: &Token) -> Result<Option<Self>> {
        let path = path(folder, token);
        let Some(bytes) = durable::read(&path, MAX_FILE)? else {
            return Ok(None);
        };
        let error = |reason: String| Error::Pending { path: path.display().to_string(), reason };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| error(e.to_string()))?;
        let csr = STANDARD.decode(&stored.csr).map_err(|e| error(e.to_string()))?;
        Ok(Some(Self { identity: stored.identity, key: stored.key, csr }))
    }

    /// Writes it durably.
    pub(crate) fn write(&self, folder: &Path, token: &Token) -> Result<()> {
        let path = path(folder, token);
        let stored = Stored {
            identity: self.identity.clone(),
            key: self.key.clone(),
            csr: STANDARD.encode(&self.csr),
        };
        let bytes = serde_json::to_vec_pretty(&stored)
            .map_err(|e| Error::Pending { path: path.display().to_string(), reason: e.to_string() })?;
        durable::private_folder(folder)?;
        Ok(durable::replace(&path, &bytes)?)
    }

    /// Forgets it.
    pub(crate) fn remove(folder: &Path, token: &Token) -> Result<()> {
        durable::remove(&path(folder, token))?;
        Ok(())
    }
}

fn path(folder: &Path, token: &Token) -> PathBuf {
    folder.join(format!("{}.json", token.id()))
}
