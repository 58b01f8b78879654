//! What keys were proved to do, recorded durably beside hardware that cannot record it itself
//! (invariant 2).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::key::hexadecimal;
use crate::{Error, Result, Scheme, durable};

/// A record larger than this is none of ours.
const MAX_RECORD: u64 = 64 * 1024;

/// A folder of records, one for each public key: `SHA-256-OF-THE-SPKI.json`.
#[derive(Debug)]
pub struct ProofStore {
    folder: PathBuf,
    /// Held while a record is read and replaced.
    writing: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The key that the record is bound to, whatever its file is called.
    #[serde(with = "hexadecimal")]
    spki: Vec<u8>,
    proved: BTreeSet<Scheme>,
    /// When the first of them was recorded.
    since: SystemTime,
    /// Whether the key was made here. Not all hardware can say it.
    #[serde(default)]
    generated: bool,
}

impl ProofStore {
    /// Opens the folder, which is made for this user alone if it is missing.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn open(folder: &Path) -> Result<Self> {
        durable::private_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), writing: Mutex::new(()) })
    }

    /// The schemes that were recorded for the key with the DER SubjectPublicKeyInfo `spki`; none
    /// if it has no record.
    ///
    /// # Errors
    /// [`Error::Storage`], also if the record is damaged or speaks of another key.
    pub fn proved(&self, spki: &[u8]) -> Result<BTreeSet<Scheme>> {
        Ok(self.read(spki)?.map(|record| record.proved).unwrap_or_default())
    }

    /// When the first proof of the key was recorded: as near as we get to when a key was made, where
    /// the hardware does not say.
    ///
    /// # Errors
    /// As [`proved`](Self::proved).
    pub fn since(&self, spki: &[u8]) -> Result<Option<SystemTime>> {
        Ok(self.read(spki)?.map(|record| record.since))
    }

    /// Adds `schemes` to what is recorded for the key. It is durable when this returns.
    ///
    /// # Errors
    /// As [`proved`](Self::proved).
    pub fn record(&self, spki: &[u8], schemes: &[Scheme]) -> Result<()> {
        self.change(spki, |record| {
            let before = record.proved.len();
            record.proved.extend(schemes);
            record.proved.len() != before
        })
    }

    /// Records that the key was made here, for [`was_generated`](Self::was_generated).
    ///
    /// # Errors
    /// As [`proved`](Self::proved).
    pub fn record_generated(&self, spki: &[u8]) -> Result<()> {
        self.change(spki, |record| !std::mem::replace(&mut record.generated, true))
    }

    /// Whether the key is known to have been made here.
    ///
    /// # Errors
    /// As [`proved`](Self::proved).
    pub fn was_generated(&self, spki: &[u8]) -> Result<bool> {
        Ok(self.read(spki)?.is_some_and(|record| record.generated))
    }

    /// Replaces the record if `change` says that it changed something.
    fn change(&self, spki: &[u8], change: impl FnOnce(&mut Record) -> bool) -> Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.read(spki)?.unwrap_or_else(|| Record {
            spki: spki.to_vec(),
            proved: BTreeSet::new(),
            since: SystemTime::now(),
            generated: false,
        });
        if !change(&mut record) {
            return Ok(());
        }
        let path = self.path(spki);
        let bytes = serde_json::to_vec_pretty(&record).map_err(|e| Error::Storage {
            operation: "encode".into(),
            path: path.display().to_string(),
            reason: e.to_string(),
        })?;
        durable::replace(&path, &bytes)
    }

    /// Forgets a key that was destroyed.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn forget(&self, spki: &[u8]) -> Result<()> {
        durable::remove(&self.path(spki)).map(|_| ())
    }

    fn read(&self, spki: &[u8]) -> Result<Option<Record>> {
        let path = self.path(spki);
        let Some(bytes) = durable::read(&path, MAX_RECORD)? else {
            return Ok(None);
        };
        let damaged = |reason: String| Error::Storage {
            operation: "use the proofs in".into(),
            path: path.display().to_string(),
            reason: format!("{reason}; without the file the key is proved anew"),
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if record.spki != spki {
            return Err(damaged("it speaks of another key".into()));
        }
        Ok(Some(record))
    }

    fn path(&self, spki: &[u8]) -> PathBuf {
        let name: String = Sha256::digest(spki).iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name).with_extension("json")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_damaged_or_foreign_record_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = ProofStore::open(folder.path()).unwrap();
        store.record(b"one", &[Scheme::Ed25519]).unwrap();
        fs::copy(store.path(b"one"), store.path(b"two")).unwrap();
        let error = store.proved(b"two").unwrap_err().to_string();
        assert!(error.contains("another key"), "{error}");
        assert!(store.record(b"two", &[Scheme::Ed25519]).is_err());
        fs::write(store.path(b"two"), b"{").unwrap();
        assert!(matches!(store.proved(b"two"), Err(Error::Storage { .. })));
    }

    #[test]
    fn records_add_up_and_outlive_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = ProofStore::open(folder.path()).unwrap();
        assert_eq!(store.proved(b"key").unwrap(), BTreeSet::new());
        store.record(b"key", &[Scheme::RsaPssSha256]).unwrap();
        store.record(b"key", &[Scheme::RsaPkcs1Sha256, Scheme::RsaPssSha256]).unwrap();
        let again = ProofStore::open(folder.path()).unwrap();
        let both = BTreeSet::from([Scheme::RsaPssSha256, Scheme::RsaPkcs1Sha256]);
        assert_eq!(again.proved(b"key").unwrap(), both);
        assert!(again.since(b"key").unwrap().unwrap() <= SystemTime::now());
        assert!(!again.was_generated(b"key").unwrap());
        again.record_generated(b"key").unwrap();
        assert!(store.was_generated(b"key").unwrap());
        assert_eq!(store.proved(b"key").unwrap(), both);
        again.forget(b"key").unwrap();
        again.forget(b"key").unwrap();
        assert_eq!(store.proved(b"key").unwrap(), BTreeSet::new());
    }
}
