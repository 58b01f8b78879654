//! Enrolments and rekeys that are under way, on disk, so that they go on after a crash.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_keystore::{KeyUri, durable};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Token};

/// What was decided before the request was sent for the first time. It is written before that, and
/// removed when the identity is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) identity: String,
    pub(crate) key: KeyUri,
    /// DER PKCS#10.
    pub(crate) csr: Vec<u8>,
    /// Whether the key was made for this.
    pub(crate) made: bool,
    /// Of a rekey: the SHA-256 of the certificate that it replaces, in hexadecimal. An identity of
    /// the same name may be another one by now.
    pub(crate) replaces: Option<String>,
}

/// The JSON on disk. A token's id names its file; its secret is nowhere.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    identity: String,
    key: KeyUri,
    csr: String,
    #[serde(default)]
    made: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

const MAX_FILE: u64 = 1024 * 1024;

impl Pending {
    /// What is under way as `name` ([`of_token`], [`of_rekey`]), if it is.
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = path(folder, name);
        let Some(bytes) = durable::read(&path, MAX_FILE)? else {
            return Ok(None);
        };
        let error = |reason: String| Error::Pending { path: path.display().to_string(), reason };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| error(e.to_string()))?;
        let csr = STANDARD.decode(&stored.csr).map_err(|e| error(e.to_string()))?;
        let Stored { identity, key, made, replaces, .. } = stored;
        Ok(Some(Self { identity, key, csr, made, replaces }))
    }

    /// Writes it durably.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        let path = path(folder, name);
        let stored = Stored {
            identity: self.identity.clone(),
            key: self.key.clone(),
            csr: STANDARD.encode(&self.csr),
            made: self.made,
            replaces: self.replaces.clone(),
        };
        let bytes = serde_json::to_vec_pretty(&stored)
            .map_err(|e| Error::Pending { path: path.display().to_string(), reason: e.to_string() })?;
        durable::private_folder(folder)?;
        Ok(durable::replace(&path, &bytes)?)
    }

    /// Forgets it.
    pub(crate) fn remove(folder: &Path, name: &str) -> Result<()> {
        durable::remove(&path(folder, name))?;
        Ok(())
    }
}

/// The name of an enrolment with this token.
pub(crate) fn of_token(token: &Token) -> String {
    token.id()
}

/// The name of a rekey of this identity. No token's id has a dot.
pub(crate) fn of_rekey(identity: &str) -> String {
    format!("rekey.{identity}")
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}
