//! The keystore over CNG's key storage providers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::blob;
use super::cng::{Attempt, OpenKey, Provider};
use super::failure::Failure;
use super::key::WindowsKey;
use super::place::{Place, time};
use super::store::Store;
use crate::certificate::Certificate;
use crate::prove::capabilities;
use crate::{
    Access, Algorithm, Capabilities, Error, Key, KeyInfo, KeySpec, KeyUri, Keystore, Origin, ProofStore,
    Result, StoreCertificate,
};

/// Where and how keys are kept.
#[derive(Clone, Debug)]
pub struct WindowsConfig {
    /// The folder of what keys were proved to do, in the user's profile.
    pub folder: PathBuf,
    /// The window (`HWND`) that prompts appear in front of.
    pub window: Option<isize>,
}

impl WindowsConfig {
    /// Proofs in `folder`, prompts wherever the system puts them.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), window: None }
    }
}

/// The keys of this user in the TPM, in software and on smart cards.
pub struct WindowsKeystore(Arc<Shared>);

pub(super) struct Shared {
    pub(super) proofs: ProofStore,
    pub(super) window: Option<isize>,
    /// Whether a prompt is on the screen, for each key that was opened.
    asking: Mutex<HashMap<KeyUri, Arc<AtomicBool>>>,
}

impl WindowsKeystore {
    /// Opens the folder of proofs, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn open(config: WindowsConfig) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            proofs: ProofStore::open(&config.folder)?,
            window: config.window,
            asking: Mutex::default(),
        })))
    }

    /// The identities in the user's certificate store: the URIs of their keys, and their DER certificates.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`].
    pub fn identities(&self) -> Result<Vec<(KeyUri, Vec<u8>)>> {
        let store = Store::open().map_err(failed("windows:", "list the certificates of"))?;
        let named = |found: super::store::Found| {
            let (place, name) = found.key?;
            Some((place.uri(&name).ok()?, found.der))
        };
        Ok(store.certificates().into_iter().filter_map(named).collect())
    }

    fn key(&self, uri: &KeyUri, place: Place, key: &OpenKey) -> Result<WindowsKey> {
        let mut asking = self.0.asking.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(WindowsKey {
            info: self.0.info(uri.clone(), place, key)?,
            shared: self.0.clone(),
            place,
            asking: asking.entry(uri.clone()).or_default().clone(),
        })
    }

    /// Proves what a key can do and records it, unless that was done or would ask a person.
    fn proved(&self, mut key: WindowsKey) -> Result<Box<dyn Key>> {
        if !key.info.policy.prompts() && key.info.capabilities.proved.is_empty() {
            key.info.capabilities = capabilities(&key)?;
        }
        Ok(Box::new(key))
    }
}

impl Keystore for WindowsKeystore {
    /// Makes a key that cannot be exported: P-256, P-384 or RSA with 2048 bits, where the provider can. A
    /// machine without a TPM is an error unless `provider=software` is said.
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        let place = Place::of(&spec.uri, "create")?;
        let refused = |reason: &str| {
            Err(Error::Unsupported {
                key: spec.uri.to_string(),
                operation: "create".into(),
                reason: reason.into(),
            })
        };
        if spec.algorithm == Algorithm::Ed25519 {
            return refused("Windows makes P-256, P-384 and RSA keys");
        }
        if spec.access != Access::default() {
            return refused("keys are their user's alone");
        }
        let flags = place.flags(spec)?;
        let fail = failed(&spec.uri, "create");
        let provider = Provider::open(place).map_err(&fail)?;
        let made = provider.create_key(spec.uri.name(), spec.algorithm, flags).map_err(&fail)?;
        let key = (|| {
            // The public key comes first: without it, the record could not be bound to anything.
            let spki = spki(&spec.uri, &made)?;
            self.0.proofs.record_generated(&spki)?;
            let mut key = self.key(&spec.uri, place, &made)?;
            key.info.created = SystemTime::now();
            self.proved(key)
        })();
        key.inspect_err(|_| {
            // A key that proved to be of no use must not stay in the way of its name.
            let _ = self.delete(&spec.uri);
        })
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        let place = Place::of(uri, "open")?;
        let key = open_key(uri, place).map_err(failed(uri, "open"))?;
        self.proved(self.key(uri, place, &key)?)
    }

    /// The keys of all three providers. One that this machine does not have has none, and a key of a type
    /// that we do not sign with is left out.
    fn list(&self) -> Result<Vec<KeyInfo>> {
        let mut keys = Vec::new();
        for place in Place::ALL {
            let names = match Provider::open(place).and_then(|provider| provider.names()) {
                Ok(names) => names,
                Err(failure) => {
                    let error = failure.into_error("windows:", "list the keys of");
                    tracing::debug!(provider = place.name(), %error, "not listed");
                    continue;
                }
            };
            for name in names {
                let Ok(uri) = place.uri(&name) else { continue };
                let Ok(key) = open_key(&uri, place) else { continue };
                match self.0.info(uri, place, &key) {
                    Ok(info) => keys.push(info),
                    Err(Error::PublicKey { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        keys.sort_by(|one, other| one.uri.cmp(&other.uri));
        Ok(keys)
    }

    /// Destroys the key, and the certificates of it in the user's store.
    fn delete(&self, uri: &KeyUri) -> Result<()> {
        let place = Place::of(uri, "delete")?;
        let fail = failed(uri, "delete");
        let key = open_key(uri, place).map_err(&fail)?;
        let spki = spki(uri, &key)?;
        key.delete().map_err(&fail)?;
        let store = Store::open().map_err(&fail)?;
        for certificate in certificates(&store, &spki) {
            store.delete(&certificate.der).map_err(&fail)?;
        }
        self.0.proofs.forget(&spki)
    }
}

impl StoreCertificate for WindowsKeystore {
    /// Adds the certificate to the user's store as that of the key, which makes them an identity for every
    /// program of the user, and then removes those of the same key that were there.
    fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()> {
        const OPERATION: &str = "store a certificate beside";
        let certificate = Certificate::parse(certificate)?;
        let place = Place::of(uri, OPERATION)?;
        let fail = failed(uri, OPERATION);
        let spki = spki(uri, &open_key(uri, place).map_err(&fail)?)?;
        if certificate.spki != spki {
            return Err(Error::Denied {
                key: uri.to_string(),
                operation: OPERATION.into(),
                reason: "the certificate is for another key".into(),
            });
        }
        let store = Store::open().map_err(&fail)?;
        store.add(&certificate.der, place, uri.name()).map_err(&fail)?;
        for old in certificates(&store, &spki) {
            if old.der != certificate.der {
                store.delete(&old.der).map_err(&fail)?;
            }
        }
        Ok(())
    }

    fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>> {
        const OPERATION: &str = "read the certificate of";
        let place = Place::of(uri, OPERATION)?;
        let fail = failed(uri, OPERATION);
        let spki = spki(uri, &open_key(uri, place).map_err(&fail)?)?;
        let store = Store::open().map_err(&fail)?;
        let newest = certificates(&store, &spki).into_iter().max_by_key(|certificate| certificate.not_before);
        Ok(newest.map(|certificate| certificate.der))
    }
}

impl Shared {
    fn info(&self, uri: KeyUri, place: Place, key: &OpenKey) -> Result<KeyInfo> {
        let spki = spki(&uri, key)?;
        // Every provider takes in keys that were made elsewhere.
        let generated = !key.is_exportable() && self.proofs.was_generated(&spki)?;
        Ok(KeyInfo {
            uri,
            algorithm: Algorithm::of_spki(&spki)?,
            policy: place.policy(key.ui_flags()),
            capabilities: Capabilities { proved: self.proofs.proved(&spki)? },
            access: Access::default(),
            origin: if generated { Origin::Generated } else { Origin::Imported },
            created: key.modified().and_then(time).unwrap_or(SystemTime::UNIX_EPOCH),
            spki,
        })
    }
}

fn open_key(uri: &KeyUri, place: Place) -> Attempt<OpenKey> {
    Provider::open(place)?.open_key(uri.name())
}

/// The certificates of the user's store that carry this public key.
fn certificates(store: &Store, spki: &[u8]) -> Vec<Certificate> {
    let parsed = store.certificates().into_iter().filter_map(|found| Certificate::parse(&found.der).ok());
    parsed.filter(|certificate| certificate.spki == spki).collect()
}

fn spki(uri: &KeyUri, key: &OpenKey) -> Result<Vec<u8>> {
    blob::spki(&key.public_blob().map_err(failed(uri, "read the public key of"))?)
}

fn failed(key: impl ToString, operation: &'static str) -> impl Fn(Failure) -> Error {
    let key = key.to_string();
    move |failure| failure.into_error(&key, operation)
}
