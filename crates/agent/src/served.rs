//! The keystore that this agent serves, and the keys of it that are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enclasp_keystore::{Device, Error, Key, KeyInfo, KeySpec, KeyUri, Result};
use zeroize::Zeroizing;

use crate::backend::Opened;

/// More open keys than this are let go of.
const MAX_OPEN: usize = 256;

/// Opening a key in hardware costs more than a signature, so that a key that was opened stays so,
/// under the URI that it was asked for by.
pub(crate) struct Served {
    opened: Opened,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    keys: HashMap<String, Arc<dyn Key>>,
    /// How many deletions there were: a key that was opened before the last one may be gone.
    deletions: u64,
}

impl Served {
    pub(crate) fn new(opened: Opened) -> Self {
        Self { opened, open: Mutex::default() }
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.opened.is_fast()
    }

    /// The key `uri` as it was when it was opened.
    pub(crate) fn key(&self, uri: &str) -> Result<Arc<dyn Key>> {
        if let Some(key) = self.open_keys().keys.get(uri) {
            return Ok(key.clone());
        }
        self.open(&uri.parse()?)
    }

    /// Opens a key anew, with what is known of it now.
    pub(crate) fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Key>> {
        let deletions = self.open_keys().deletions;
        let key = self.opened.keystore().open(uri);
        self.remember(uri, key, deletions)
    }

    pub(crate) fn create(&self, spec: &KeySpec) -> Result<Arc<dyn Key>> {
        let deletions = self.open_keys().deletions;
        let key = self.opened.keystore().create(spec);
        self.remember(&spec.uri, key, deletions)
    }

    pub(crate) fn import(&self, uri: &KeyUri, pkcs8: Zeroizing<Vec<u8>>) -> Result<Arc<dyn Key>> {
        let deletions = self.open_keys().deletions;
        let key = self.opened.import(uri)?.import(uri, pkcs8);
        self.remember(uri, key, deletions)
    }

    pub(crate) fn list(&self) -> Result<Vec<KeyInfo>> {
        self.opened.keystore().list()
    }

    pub(crate) fn delete(&self, uri: &KeyUri) -> Result<()> {
        let deleted = self.opened.keystore().delete(uri);
        let mut open = self.open_keys();
        open.deletions += 1;
        // It may be open under other names as well.
        open.keys.clear();
        deleted
    }

    pub(crate) fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>> {
        self.opened.certificates(uri)?.certificate(uri)
    }

    pub(crate) fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()> {
        self.opened.certificates(uri)?.store_certificate(uri, certificate)
    }

    pub(crate) fn device(&self, uri: &KeyUri) -> Result<Device> {
        self.opened.device(uri)
    }

    /// Lets go of a key that proved to be gone.
    pub(crate) fn forget(&self, uri: &str) {
        self.open_keys().keys.remove(uri);
    }

    fn remember(&self, uri: &KeyUri, key: Result<Box<dyn Key>>, deletions: u64) -> Result<Arc<dyn Key>> {
        let mut open = self.open_keys();
        let key = match key {
            Ok(key) => Arc::<dyn Key>::from(key),
            Err(error) => {
                if matches!(error, Error::Absent { .. }) {
                    open.keys.remove(&uri.to_string());
                }
                return Err(error);
            }
        };
        if open.keys.len() >= MAX_OPEN {
            open.keys.clear();
        }
        // A software key that asks learns what it can do by its first signature; its keystore keeps
        // open keys itself, and the newest.
        if open.deletions == deletions && !key.info().policy.prompts() {
            open.keys.insert(uri.to_string(), Arc::clone(&key));
        }
        Ok(key)
    }

    fn open_keys(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
