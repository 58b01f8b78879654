//! The folder of a TPM's keys: key files, what else is known of each key, and what was proved.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::key_file::KeyFile;
use crate::{Error, KeyInfo, ProofStore, Result, durable};

/// Key files and records are a few kilobytes.
const MAX_FILE: u64 = 64 * 1024;

const VERSION: u32 = 1;
const KEY_FILE: &str = ".tss2.pem";
const RECORD: &str = ".json";

pub(super) struct Folder {
    path: PathBuf,
    pub(super) proofs: ProofStore,
}

/// What is known of a key that its key file, or the TPM, does not say.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    key: KeyInfo,
}

impl Folder {
    /// Opens the folder, which is made for this user alone if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self> {
        durable::private_folder(path)?;
        Ok(Self { path: path.to_owned(), proofs: ProofStore::open(&path.join("proofs"))? })
    }

    /// Where the public area of the storage root key is remembered.
    pub(super) fn storage_root(&self) -> PathBuf {
        self.path.join("storage-root.pub")
    }

    /// Where the key file of a name is kept.
    pub(super) fn key_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{KEY_FILE}"))
    }

    /// The names of all records and key files.
    pub(super) fn names(&self) -> Result<BTreeSet<String>> {
        let failed = |e: std::io::Error| storage("list", self.path.display(), e.to_string());
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            let file = file.to_string_lossy();
            names.extend(file.strip_suffix(KEY_FILE).or(file.strip_suffix(RECORD)).map(str::to_owned));
        }
        Ok(names)
    }

    /// The record of a name.
    pub(super) fn record(&self, name: &str) -> Result<Option<KeyInfo>> {
        let path = self.record_path(name);
        let Some(bytes) = durable::read(&path, MAX_FILE)? else { return Ok(None) };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|e| storage("use", path.display(), e.to_string()))?;
        if record.version != VERSION {
            let reason = format!("it is of version {}, this program reads {VERSION}", record.version);
            return Err(storage("use", path.display(), reason));
        }
        Ok(Some(record.key))
    }

    /// Writes the record of a name.
    pub(super) fn add_record(&self, name: &str, key: &KeyInfo) -> Result<()> {
        let path = self.record_path(name);
        let record = Record { version: VERSION, key: key.clone() };
        let bytes = serde_json::to_vec_pretty(&record)
            .map_err(|e| storage("encode", path.display(), e.to_string()))?;
        durable::replace(&path, &bytes)
    }

    /// Removes the record of a name; whether there was one.
    pub(super) fn remove_record(&self, name: &str) -> Result<bool> {
        durable::remove(&self.record_path(name))
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{RECORD}"))
    }
}

/// Reads a key file, wherever it is, and when it was last written.
pub(super) fn read_key_file(path: &Path) -> Result<Option<(KeyFile, SystemTime)>> {
    let Some(bytes) = durable::read(path, MAX_FILE)? else { return Ok(None) };
    let file = KeyFile::from_pem(&bytes).map_err(|reason| storage("use", path.display(), reason))?;
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    Ok(Some((file, written.map_err(|e| storage("read", path.display(), e.to_string()))?)))
}

/// Writes a key file; `Ok(false)` if there is one.
pub(super) fn write_key_file(path: &Path, file: &KeyFile) -> Result<bool> {
    let text = file.to_pem().map_err(|reason| storage("encode", path.display(), reason))?;
    durable::create(path, text.as_bytes())
}

pub(super) fn storage(operation: &str, path: impl Display, reason: String) -> Error {
    Error::Storage { operation: operation.into(), path: path.to_string(), reason }
}
