//! The software keystore: keys in the memory of this process, encrypted on disk.
//!
//! It is meant to live in the agent (the *software enclave*); other programs reach it through
//! [`agent`](crate::agent).

mod at_rest;
mod pair;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use pkcs8::SecretDocument;
use zeroize::Zeroizing;

pub use at_rest::Protection;
use at_rest::{Folder, KeyFile};
use pair::Pair;

use crate::{
    Access, Algorithm, Capabilities, Confirm, Error, Import, Input, Key, KeyInfo, KeySpec, KeyUri, Keystore,
    KeystoreKind, Origin, Policy, Result, Scheme, SignContext, Signature, Verification, input, prove, verify,
};

/// One in this many signatures of a software key is verified before it leaves: its arithmetic is
/// ours and was proved, so that this catches failing memory rather than a wrong key.
const VERIFY_ONE_IN: u32 = 64;

/// A folder of software keys, opened by the one process that owns them.
pub struct SoftKeystore(Arc<Shared>);

struct Shared {
    folder: Folder,
    confirm: Box<dyn Confirm>,
    /// Keys that were opened, by name. The lock is also held while a key's file changes.
    opened: Mutex<HashMap<String, Arc<SoftKey>>>,
}

impl SoftKeystore {
    /// Opens the keys in the folder `path`, which is made if it is missing. `confirm` is asked
    /// before a key signs whose policy wants a person there.
    ///
    /// # Errors
    /// [`Error::Protection`] if `protection` is not what protects the keys, [`Error::OpenFolder`],
    /// [`Error::Storage`].
    pub fn open(path: &Path, protection: &Protection, confirm: impl Confirm + 'static) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            folder: Folder::open(path, protection)?,
            confirm: Box::new(confirm),
            opened: Mutex::default(),
        })))
    }

    /// Opens a key for use in this process.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Storage`] if its file is damaged.
    pub fn open_key(&self, uri: &KeyUri) -> Result<Arc<SoftKey>> {
        check_kind(uri)?;
        let mut opened = self.0.opened();
        if let Some(key) = opened.get(uri.name()) {
            return Ok(key.clone());
        }
        let file = self.0.read(uri)?;
        let pair = Arc::new(self.0.folder.unlock(&file)?);
        let key = Arc::new(SoftKey::new(file.key, pair, Arc::downgrade(&self.0)));
        opened.insert(uri.name().to_owned(), key.clone());
        Ok(key)
    }

    fn add(&self, mut info: KeyInfo, pair: Pair) -> Result<Box<dyn Key>> {
        let taken = Error::Exists { key: info.uri.to_string() };
        if self.0.folder.read(info.uri.name())?.is_some() {
            return Err(taken);
        }
        let pair = Arc::new(pair);
        // A key that signs freely is proved before it is ever used; the others by first use.
        if !info.policy.prompts() {
            let unrecorded = SoftKey::new(info.clone(), pair.clone(), Weak::new());
            for proof in prove(&unrecorded, &SignContext::new("proof of a new key"))? {
                proof.outcome?;
                info.capabilities.proved.insert(proof.scheme);
            }
        }
        let mut opened = self.0.opened();
        if !self.0.folder.add(&info, &pair)? {
            return Err(taken);
        }
        let key = Arc::new(SoftKey::new(info, pair, Arc::downgrade(&self.0)));
        opened.insert(key.info.uri.name().to_owned(), key.clone());
        Ok(Box::new(key))
    }
}

impl Keystore for SoftKeystore {
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        check_kind(&spec.uri)?;
        let unsupported = |reason: &str| {
            Err(Error::Unsupported {
                key: spec.uri.to_string(),
                operation: "create".into(),
                reason: reason.into(),
            })
        };
        if spec.algorithm == Algorithm::Rsa {
            return unsupported("the software enclave makes P-256, P-384 and Ed25519 keys");
        }
        if spec.policy.pin {
            return unsupported("a software key has no PIN of its own; `presence=confirm` asks a person");
        }
        let pair = Pair::generate(spec.algorithm)?;
        let info = new_info(&spec.uri, &pair, spec.policy, spec.access.clone(), Origin::Generated)?;
        self.add(info, pair)
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        Ok(Box::new(self.open_key(uri)?))
    }

    fn list(&self) -> Result<Vec<KeyInfo>> {
        let mut keys = Vec::new();
        for name in self.0.folder.names()? {
            // A name that is none of ours, or a key deleted meanwhile, is not listed.
            if KeyUri::soft(&name).is_err() {
                continue;
            }
            match self.0.folder.read(&name) {
                Ok(file) => keys.extend(file.map(|file| file.key)),
                // One damaged file hides no other key. Whoever opens its key is told the same.
                Err(error) => tracing::warn!(key = %format_args!("soft:name={name}"), %error, "not listed"),
            }
        }
        Ok(keys)
    }

    fn delete(&self, uri: &KeyUri) -> Result<()> {
        check_kind(uri)?;
        let mut opened = self.0.opened();
        opened.remove(uri.name());
        if self.0.folder.remove(uri.name())? { Ok(()) } else { Err(Error::Absent { key: uri.to_string() }) }
    }
}

impl Import for SoftKeystore {
    fn import(&self, uri: &KeyUri, pkcs8: Zeroizing<Vec<u8>>) -> Result<Box<dyn Key>> {
        check_kind(uri)?;
        let pair = Pair::from_pkcs8(&pkcs8)?;
        let info = new_info(uri, &pair, Policy::default(), Access::default(), Origin::Imported)?;
        self.add(info, pair)
    }
}

impl Shared {
    fn opened(&self) -> MutexGuard<'_, HashMap<String, Arc<SoftKey>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, uri: &KeyUri) -> Result<KeyFile> {
        self.folder.read(uri.name())?.ok_or_else(|| Error::Absent { key: uri.to_string() })
    }

    /// Records durably that a key signed with `scheme`.
    fn record_proof(&self, key: &SoftKey, scheme: Scheme) -> Result<()> {
        let mut opened = self.opened();
        let mut info = self.read(&key.info.uri)?.key;
        if info.spki != key.info.spki || !info.capabilities.proved.insert(scheme) {
            return Ok(());
        }
        self.folder.update(&info)?;
        let updated = SoftKey::new(info, key.pair.clone(), key.keystore.clone());
        opened.insert(key.info.uri.name().to_owned(), Arc::new(updated));
        Ok(())
    }
}

/// A software key, in the memory of this process.
#[derive(Debug)]
pub struct SoftKey {
    info: KeyInfo,
    pair: Arc<Pair>,
    /// The keystore to record proofs in and to ask for confirmation; gone for a key of its own.
    keystore: Weak<Shared>,
    signatures: AtomicU32,
}

impl SoftKey {
    /// A key that lives in this process alone and is recorded nowhere: a key file given to the
    /// tunnel, or a test's. `uri` is only its name in logs. It is proved at once.
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if `pkcs8` (DER PrivateKeyInfo) is not a key of a supported type.
    pub fn from_pkcs8(uri: KeyUri, pkcs8: &[u8]) -> Result<Self> {
        Self::alone(uri, Pair::from_pkcs8(pkcs8)?, Origin::Imported)
    }

    /// The same of PKCS#8, or of what OpenSSL wrote before there was PKCS#8: an RSAPrivateKey
    /// (RFC 8017 §A.1.2) or an ECPrivateKey (RFC 5915).
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if it is none of them.
    pub fn from_der(uri: KeyUri, der: &[u8]) -> Result<Self> {
        Self::alone(uri, Pair::from_der(der)?, Origin::Imported)
    }

    /// The same, of PEM text with one PKCS#8 `PRIVATE KEY`.
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if it is something else.
    pub fn from_pem(uri: KeyUri, text: &str) -> Result<Self> {
        let failed = |reason: String| Error::PrivateKey { reason };
        let (label, document) =
            SecretDocument::from_pem(text).map_err(|e| failed(format!("it cannot be read as PEM: {e}")))?;
        match label {
            "PRIVATE KEY" => Self::from_pkcs8(uri, document.as_bytes()),
            other => Err(failed(format!("it is a PEM `{other}`, not a PKCS#8 `PRIVATE KEY`"))),
        }
    }

    /// Generates such a key.
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if keys of that type are not made in software.
    pub fn generate(uri: KeyUri, algorithm: Algorithm) -> Result<Self> {
        Self::alone(uri, Pair::generate(algorithm)?, Origin::Generated)
    }

    fn alone(uri: KeyUri, pair: Pair, origin: Origin) -> Result<Self> {
        let info = new_info(&uri, &pair, Policy::default(), Access::default(), origin)?;
        let mut key = Self::new(info, Arc::new(pair), Weak::new());
        for proof in prove(&key, &SignContext::new("proof of a key file"))? {
            proof.outcome?;
            key.info.capabilities.proved.insert(proof.scheme);
        }
        Ok(key)
    }

    fn new(info: KeyInfo, pair: Arc<Pair>, keystore: Weak<Shared>) -> Self {
        Self { info, pair, keystore, signatures: AtomicU32::new(0) }
    }
}

impl Key for SoftKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.info.uri)?;
        input::check(&self.info, scheme, input)?;
        let unsupported = |reason: String| Error::Unsupported {
            key: self.info.uri.to_string(),
            operation: "sign with".into(),
            reason,
        };
        let keystore = self.keystore.upgrade();
        if self.info.policy.prompts() {
            let Some(keystore) = &keystore else {
                return Err(unsupported("its keystore is closed".into()));
            };
            keystore.confirm.confirm(&self.info, ctx)?;
            ctx.check(&self.info.uri)?;
        }
        let signature = self
            .pair
            .sign(scheme, input)
            .ok_or_else(|| unsupported(format!("signing with {scheme} failed")))?;
        let proved = self.info.capabilities.proved.contains(&scheme);
        let due = self.signatures.fetch_add(1, Ordering::Relaxed).is_multiple_of(VERIFY_ONE_IN);
        if !proved || due {
            verify(&self.info.spki, scheme, input, signature.as_ref())
                .map_err(|_| Error::WrongSignature { key: self.info.uri.to_string(), scheme })?;
        }
        if let (false, Some(keystore)) = (proved, keystore) {
            keystore.record_proof(self, scheme)?;
        }
        Ok(signature)
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }

    fn is_immediate(&self) -> bool {
        !self.info.policy.prompts()
    }
}

fn check_kind(uri: &KeyUri) -> Result<()> {
    if uri.kind() == KeystoreKind::Soft {
        return Ok(());
    }
    Err(Error::Unsupported {
        key: uri.to_string(),
        operation: "use".into(),
        reason: "this keystore holds `soft:` keys only".into(),
    })
}

fn new_info(uri: &KeyUri, pair: &Pair, policy: Policy, access: Access, origin: Origin) -> Result<KeyInfo> {
    let spki = pair.spki()?;
    Ok(KeyInfo {
        uri: uri.clone(),
        algorithm: Algorithm::of_spki(&spki)?,
        spki,
        policy,
        capabilities: Capabilities::default(),
        access,
        origin,
        created: SystemTime::now(),
    })
}

#[cfg(test)]
mod tests;
