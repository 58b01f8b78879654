//! All keystores as one, for who has keys in several.

use enclasp_identity::State;
use enclasp_keystore::agent::AgentKeystore;
use enclasp_keystore::{Error, Key, KeyInfo, KeySpec, KeyUri, Keystore, Result};

/// The agent of each key is chosen by the key's URI.
pub(crate) struct Keystores(pub(crate) State);

impl Keystores {
    fn of(&self, uri: &KeyUri) -> Result<AgentKeystore> {
        self.0.keystore(uri).map_err(|error| match error {
            enclasp_identity::Error::Keystore(error) => error,
            other => Error::Unavailable { at: uri.to_string(), reason: other.to_string() },
        })
    }
}

impl Keystore for Keystores {
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        self.of(&spec.uri)?.create(spec)
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        self.of(uri)?.open(uri)
    }

    /// The software keys: nobody knows of all the hardware there is.
    fn list(&self) -> Result<Vec<KeyInfo>> {
        self.0.agent().list()
    }

    fn delete(&self, uri: &KeyUri) -> Result<()> {
        self.of(uri)?.delete(uri)
    }
}
