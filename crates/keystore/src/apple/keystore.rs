//! The keystore over the keychain.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::authentication::Answers;
use super::demand::Demand;
use super::failure::Failure;
use super::key::AppleKey;
use super::keychain::{self, Attempt, Item, Wanted};
use crate::certificate::Certificate;
use crate::prove::capabilities;
use crate::{
    Access, Algorithm, Capabilities, Error, Key, KeyInfo, KeySpec, KeyUri, Keystore, KeystoreKind, Origin,
    Policy, Presence, ProofStore, Result, StoreCertificate,
};

/// Where and how keys are kept.
#[derive(Clone, Debug)]
pub struct AppleConfig {
    /// The folder of what keys were proved to do: in an app, one in its container.
    pub folder: PathBuf,
    /// The access group (`TEAM.group`) that keys and certificates are shared in; the program's own if
    /// `None`. The program's entitlements have to name it.
    pub access_group: Option<String>,
    /// For how long an answer of the person holds for further signatures with the same key, and for how
    /// long ago an unlock of the device by Touch ID or Face ID counts as one. At most five minutes;
    /// zero asks for each signature.
    pub reuse: Duration,
}

impl AppleConfig {
    /// Proofs in `folder`, the program's own access group, a question for each signature.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), access_group: None, reuse: Duration::ZERO }
    }
}

/// The keys in the Secure Enclave, the keychain and the smart cards of this device.
pub struct AppleKeystore(Arc<Shared>);

pub(super) struct Shared {
    pub(super) proofs: ProofStore,
    pub(super) answers: Answers,
    access_group: Option<String>,
    /// Held while keys are made: the keychain takes any number of one label.
    changing: Mutex<()>,
}

impl AppleKeystore {
    /// Opens the folder of proofs, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::OpenFolder`].
    pub fn open(config: AppleConfig) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            proofs: ProofStore::open(&config.folder)?,
            answers: Answers::new(config.reuse),
            access_group: config.access_group,
            changing: Mutex::new(()),
        })))
    }

    /// The identities of this device: the URIs of their keys, and their DER certificates.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`].
    pub fn identities(&self) -> Result<Vec<(KeyUri, Vec<u8>)>> {
        let found = self.0.find(Wanted::Identities, None).map_err(failed("apple:", "list"))?;
        let named = |item: Item| Some((KeyUri::apple(&item.label).ok()?, item.certificate?));
        Ok(found.into_iter().filter_map(named).collect())
    }

    /// The one private key that a URI names. One that Enclasp made goes before an identity of the same
    /// label.
    fn find(&self, uri: &KeyUri, operation: &'static str) -> Result<Item> {
        let label = label(uri, operation)?;
        let fail = failed(uri, operation);
        let mut keys = self.0.find(Wanted::Keys, Some(label)).map_err(&fail)?;
        keys.retain(|item| item.demand.is_some());
        if keys.is_empty() {
            keys = self.0.find(Wanted::Identities, Some(label)).map_err(&fail)?;
        }
        let item = match keys.len() {
            0 => return Err(Error::Absent { key: uri.to_string() }),
            1 => keys.remove(0),
            _ => {
                let hash =
                    |item: &Item| item.public_key_hash.iter().map(|byte| format!("{byte:02x}")).collect();
                let matches = keys.iter().map(hash).collect();
                return Err(Error::Ambiguous { key: uri.to_string(), matches });
            }
        };
        match (uri.attribute("presence"), item.demand) {
            (Some(said), demand) if demand.map(Demand::name) != Some(said) => {
                let has = demand.map_or("unknown", Demand::name);
                Err(unsupported(uri, operation, format!("the key's presence is {has}, not {said}")))
            }
            _ => Ok(item),
        }
    }

    /// A key of ours, which is ours to change.
    fn find_ours(&self, uri: &KeyUri, operation: &'static str) -> Result<Item> {
        let item = self.find(uri, operation)?;
        match item.demand {
            Some(_) => Ok(item),
            None => Err(unsupported(uri, operation, "Enclasp did not make it".into())),
        }
    }

    fn key(&self, uri: &KeyUri, item: Item) -> Result<AppleKey> {
        Ok(AppleKey {
            info: self.0.info(uri.clone(), &item)?,
            shared: self.0.clone(),
            public_key_hash: item.demand.is_some().then_some(item.public_key_hash),
            key: item.key,
        })
    }

    /// Proves what a key can do and records it, unless that was done or would ask a person.
    fn proved(&self, mut key: AppleKey) -> Result<Box<dyn Key>> {
        if !key.info.policy.prompts() && key.info.capabilities.proved.is_empty() {
            key.info.capabilities = capabilities(&key)?;
        }
        Ok(Box::new(key))
    }
}

impl Keystore for AppleKeystore {
    /// Makes a P-256 key in the Secure Enclave. What the device cannot do is the error; nothing is made
    /// in software instead.
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        let label = label(&spec.uri, "create")?;
        let refused = |reason: &str| Err(unsupported(&spec.uri, "create", reason.into()));
        if spec.algorithm != Algorithm::P256 {
            return refused("the Secure Enclave makes P-256 keys");
        }
        if spec.access != Access::default() {
            return refused("who else may use a key is said by its access group");
        }
        let demand = Demand::of_spec(spec)?;
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.find(&spec.uri, "create") {
            Err(Error::Absent { .. }) => {}
            Err(error @ (Error::Denied { .. } | Error::Unavailable { .. })) => return Err(error),
            _ => return Err(Error::Exists { key: spec.uri.to_string() }),
        }
        let made = keychain::generate(label, demand, self.0.access_group.as_deref());
        drop(made.map_err(failed(&spec.uri, "create"))?);
        // It is read back, so that what is reported is what is there.
        let mut key = self.key(&spec.uri, self.find(&spec.uri, "create")?)?;
        key.info.created = SystemTime::now();
        self.proved(key).inspect_err(|_| {
            // A key that proved to be of no use must not stay in the way of its name.
            let _ = self.delete(&spec.uri);
        })
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        self.proved(self.key(uri, self.find(uri, "open")?)?)
    }

    /// The keys that Enclasp made, and those of all identities. What another program keeps without a
    /// certificate is left out.
    fn list(&self) -> Result<Vec<KeyInfo>> {
        let fail = failed("apple:", "list the keys of");
        let mut found = self.0.find(Wanted::Keys, None).map_err(&fail)?;
        found.retain(|item| item.demand.is_some());
        for item in self.0.find(Wanted::Identities, None).map_err(&fail)? {
            if found.iter().all(|other| other.spki != item.spki) {
                found.push(item);
            }
        }
        let mut keys = Vec::new();
        for item in found {
            // An identity without a label cannot be named.
            if let Ok(uri) = KeyUri::apple(&item.label) {
                keys.push(self.0.info(uri, &item)?);
            }
        }
        keys.sort_by(|one, other| one.uri.cmp(&other.uri));
        Ok(keys)
    }

    /// Destroys a key that Enclasp made, and the certificates beside it.
    fn delete(&self, uri: &KeyUri) -> Result<()> {
        let item = self.find_ours(uri, "delete")?;
        let fail = failed(uri, "delete");
        let certificates = keychain::certificates(&item.public_key_hash).map_err(&fail)?;
        keychain::delete_key(&item.public_key_hash).map_err(&fail)?;
        for certificate in certificates {
            keychain::delete_certificate(&certificate).map_err(&fail)?;
        }
        self.0.answers.forget(&item.spki);
        self.0.proofs.forget(&item.spki)
    }
}

impl StoreCertificate for AppleKeystore {
    /// Adds the certificate to the keychain under the key's label, which makes them an identity for
    /// every program of the access group, and then removes those that were there.
    fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()> {
        const OPERATION: &str = "store a certificate beside";
        let certificate = Certificate::parse(certificate)?;
        let item = self.find_ours(uri, OPERATION)?;
        if certificate.spki != item.spki {
            return Err(Error::Denied {
                key: uri.to_string(),
                operation: OPERATION.into(),
                reason: "the certificate is for another key".into(),
            });
        }
        let fail = failed(uri, OPERATION);
        let old = keychain::certificates(&item.public_key_hash).map_err(&fail)?;
        if old.contains(&certificate.der) {
            return Ok(());
        }
        let group = self.0.access_group.as_deref();
        keychain::add_certificate(&certificate.der, &item.label, group).map_err(&fail)?;
        for old in old {
            keychain::delete_certificate(&old).map_err(&fail)?;
        }
        Ok(())
    }

    fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>> {
        const OPERATION: &str = "read the certificate of";
        let item = self.find(uri, OPERATION)?;
        let beside = keychain::certificates(&item.public_key_hash).map_err(failed(uri, OPERATION))?;
        Ok(beside
            .iter()
            .chain(&item.certificate)
            .filter_map(|der| Certificate::parse(der).ok())
            .filter(|certificate| certificate.spki == item.spki)
            .max_by_key(|certificate| certificate.not_before)
            .map(|certificate| certificate.der))
    }
}

impl Shared {
    fn find(&self, wanted: Wanted, label: Option<&str>) -> Attempt<Vec<Item>> {
        keychain::find(wanted, label, self.access_group.as_deref())
    }

    fn info(&self, uri: KeyUri, item: &Item) -> Result<KeyInfo> {
        // Nothing says whether another program's key asks a person. It is not tried to find out.
        let unknown = Policy { presence: Presence::Confirm, pin: false };
        Ok(KeyInfo {
            uri,
            algorithm: Algorithm::of_spki(&item.spki)?,
            policy: item.demand.map_or(unknown, Demand::policy),
            capabilities: Capabilities { proved: self.proofs.proved(&item.spki)? },
            access: Access::default(),
            // Nothing can be put into the Secure Enclave. Elsewhere, copies may exist.
            origin: if item.in_enclave { Origin::Generated } else { Origin::Imported },
            created: item.created.unwrap_or(SystemTime::UNIX_EPOCH),
            spki: item.spki.clone(),
        })
    }
}

fn label<'a>(uri: &'a KeyUri, operation: &'static str) -> Result<&'a str> {
    match uri.attribute("label") {
        Some(label) if uri.kind() == KeystoreKind::Apple => Ok(label),
        _ => Err(unsupported(uri, operation, "this keystore holds `apple:` keys only".into())),
    }
}

fn unsupported(uri: &KeyUri, operation: &str, reason: String) -> Error {
    Error::Unsupported { key: uri.to_string(), operation: operation.into(), reason }
}

fn failed(key: impl ToString, operation: &'static str) -> impl Fn(Failure) -> Error {
    let key = key.to_string();
    move |failure| failure.into_error(&key, operation)
}
