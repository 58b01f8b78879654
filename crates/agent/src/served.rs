//! The keystore that this agent serves, and the keys of it that are open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enclasp_keystore::{Error, Key, KeyInfo, KeySpec, KeyUri, Result};
use zeroize::Zeroizing;

use crate::backend::Opened;

/// More open keys than this are let go of.
const MAX_OPEN: usize = 256;

/// Opening a key in hardware costs more than a signature, so that a key that was opened stays so,
/// under the URI that it was asked for by.
pub(crate) struct Served {
    opened: Opened,
    keys: Mutex<HashMap<String, Arc<dyn Key>>>,
}

impl Served {
    pub(crate) fn new(opened: Opened) -> Self {
        Self { opened, keys: Mutex::default() }
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.opened.is_fast()
    }

    /// The key `uri` as it was when it was opened.
    pub(crate) fn key(&self, uri: &str) -> Result<Arc<dyn Key>> {
        if let Some(key) = self.keys().get(uri) {
            return Ok(key.clone());
        }
        self.open(&uri.parse()?)
    }

    /// Opens a key anew, with what is known of it now.
    pub(crate) fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Key>> {
        let key = self.opened.keystore().open(uri);
        self.remember(uri, key)
    }

    pub(crate) fn create(&self, spec: &KeySpec) -> Result<Arc<dyn Key>> {
        let key = self.opened.keystore().create(spec);
        self.remember(&spec.uri, key)
    }

    pub(crate) fn import(&self, uri: &KeyUri, pkcs8: Zeroizing<Vec<u8>>) -> Result<Arc<dyn Key>> {
        let key = self.opened.import(uri)?.import(uri, pkcs8);
        self.remember(uri, key)
    }

    pub(crate) fn list(&self) -> Result<Vec<KeyInfo>> {
        self.opened.keystore().list()
    }

    pub(crate) fn delete(&self, uri: &KeyUri) -> Result<()> {
        let deleted = self.opened.keystore().delete(uri);
        // It may be open under other names as well.
        self.keys().clear();
        deleted
    }

    pub(crate) fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>> {
        self.opened.certificates(uri)?.certificate(uri)
    }

    pub(crate) fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()> {
        self.opened.certificates(uri)?.store_certificate(uri, certificate)
    }

    /// Lets go of a key that proved to be gone.
    pub(crate) fn forget(&self, uri: &str) {
        self.keys().remove(uri);
    }

    fn remember(&self, uri: &KeyUri, key: Result<Box<dyn Key>>) -> Result<Arc<dyn Key>> {
        let mut keys = self.keys();
        let key = match key {
            Ok(key) => Arc::from(key),
            Err(error) => {
                if matches!(error, Error::Absent { .. }) {
                    keys.remove(&uri.to_string());
                }
                return Err(error);
            }
        };
        if keys.len() >= MAX_OPEN {
            keys.clear();
        }
        keys.insert(uri.to_string(), Arc::clone(&key));
        Ok(key)
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<String, Arc<dyn Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
