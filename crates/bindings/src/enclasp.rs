//! Where a user's keys and identities are.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enclasp_enroll::{Enrolment, Sponsor, Token};
use enclasp_identity::{State, Store, examine, match_key};
use enclasp_keystore::{
    Access, Algorithm, Capabilities, Error, KeyInfo, KeySpec, KeyUri, Keystore, Origin, Policy, Presence,
    ProofStore, Result as KeyResult,
};
use enclasp_pki::{Certificate, certificates_from};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::error::Result;
use crate::key::spki_of;
use crate::runtime::block_on;
use crate::signer::SignerKey;
use crate::{Identity, Key, KeyType, Signer};

/// The keys and identities of one user: those that the command `enclasp` shows.
#[derive(uniffi::Object)]
pub struct Enclasp {
    state: State,
}

#[uniffi::export]
impl Enclasp {
    /// What is in `folder`; without one, where the command looks: `ENCLASP_STATE`, or
    /// `~/.local/state/enclasp`. The folder is made when something is put there.
    ///
    /// # Errors
    /// `Failed` if there is no home folder.
    #[uniffi::constructor(default(folder = None))]
    pub fn new(folder: Option<String>) -> Result<Self> {
        let state = match folder {
            Some(folder) => State::at(Path::new(&folder)),
            None => State::from_environment(),
        };
        Ok(Self { state: state? })
    }

    /// Opens a key in an agent, which the command `enclasp` in `PATH` starts if it does not run.
    ///
    /// # Errors
    /// `Absent`, `Invalid` for what is no key URI, and what the keystore says.
    pub fn open_key(&self, uri: String) -> Result<Arc<Key>> {
        let uri: KeyUri = uri.parse()?;
        Ok(Arc::new(Key(self.state.open_key(&uri)?)))
    }

    /// The same; if there is no such key, it is made. `asks` is whether the new key asks a person
    /// before each signature.
    ///
    /// # Errors
    /// As [`open_key`](Self::open_key), without `Absent`.
    #[uniffi::method(default(asks = false))]
    pub fn open_or_make_key(&self, uri: String, key_type: KeyType, asks: bool) -> Result<Arc<Key>> {
        let uri: KeyUri = uri.parse()?;
        let keystore = self.state.keystore(&uri)?;
        let (algorithm, policy) = (key_type.algorithm(), policy(asks));
        let spec = KeySpec { uri, algorithm, policy, access: Access::default() };
        Ok(Arc::new(Key(Arc::from(keystore.open_or_create(&spec)?))))
    }

    /// Gives the agent that holds the key its PIN, or that of its token, for as long as the agent runs.
    ///
    /// # Errors
    /// `Denied` for a PIN that was wrong before, `Invalid`, `Unavailable`. Whether it is right, the next
    /// use of the key says.
    pub fn unlock(&self, uri: String, pin: String) -> Result<()> {
        let pin = Zeroizing::new(pin);
        let uri: KeyUri = uri.parse()?;
        Ok(self.state.keystore(&uri)?.unlock(&uri, pin)?)
    }

    /// A key of the program's own, `signer:name=NAME`, whose signatures `signer` makes. `public_key` is
    /// its DER SubjectPublicKeyInfo (Java's `PublicKey.getEncoded()`), or the point `04 ‖ X ‖ Y` of a
    /// P-256 or P-384 key (Apple's `SecKeyCopyExternalRepresentation`).
    ///
    /// A key that asks nobody is made to prove now what it can do, unless that is on record. One that
    /// `asks` a person is not called before it is needed.
    ///
    /// # Errors
    /// `Invalid` for a name or a public key that cannot be used; what the signer said, or
    /// `WrongSignature`, if it can do nothing.
    #[uniffi::method(default(asks = false))]
    pub fn signer_key(
        &self,
        name: String,
        public_key: Vec<u8>,
        signer: Arc<dyn Signer>,
        asks: bool,
    ) -> Result<Arc<Key>> {
        let uri = KeyUri::signer(&name)?;
        let spki = spki_of(&public_key)?;
        let proofs = ProofStore::open(&self.state.root().join("signers"))?;
        let info = KeyInfo {
            uri,
            algorithm: Algorithm::of_spki(&spki)?,
            policy: policy(asks),
            capabilities: Capabilities::default(),
            access: Access::default(),
            // What holds the key is the program's to know: copies of it may exist.
            origin: Origin::Imported,
            created: proofs.since(&spki)?.unwrap_or_else(SystemTime::now),
            spki,
        };
        Ok(Arc::new(Key(Arc::new(SignerKey::open(info, signer, &proofs)?))))
    }

    /// Gets a certificate for `key` with a one-time token of an authority of Enclasp's, and stores both
    /// as the identity `name`. If a person has to approve, it waits as long as `wait`. If it is
    /// interrupted, the same call goes on where it stopped.
    ///
    /// # Errors
    /// `Exists`; `Refused` for a token that is used up or has expired; `Busy` while nobody has approved;
    /// what the key, the connection and the authority say.
    #[uniffi::method(default(wait = None))]
    pub fn enroll(
        &self,
        token: String,
        name: String,
        key: Arc<Key>,
        wait: Option<Duration>,
    ) -> Result<Arc<Identity>> {
        let token = Zeroizing::new(token);
        let token = Token::parse(token.trim())?;
        let info = key.0.info();
        let enrolment = Enrolment {
            identity: name,
            key: KeySpec {
                uri: info.uri.clone(),
                algorithm: info.algorithm,
                policy: info.policy,
                access: info.access.clone(),
            },
            keystore: Arc::new(OneKey(key.0.clone())),
            store: self.state.identities()?,
            pending: self.state.enrolling(),
            patience: wait.unwrap_or_default(),
        };
        let stored = block_on(enclasp_enroll::enroll(&token, &enrolment, drop))??;
        Identity::new(stored, key)
    }

    /// Stores a certificate for `key` that any authority made, as the identity `name`, in place of one
    /// of that name. `certificates` is PEM, in any order; `roots`, PEM too, are what servers will be
    /// trusted by.
    ///
    /// # Errors
    /// `Invalid` if the certificate is not for the key, or cannot be read.
    #[uniffi::method(default(roots = None))]
    pub fn import_identity(
        &self,
        name: String,
        key: Arc<Key>,
        certificates: String,
        roots: Option<String>,
    ) -> Result<Arc<Identity>> {
        Store::check_name(&name)?;
        let roots = roots.map(|pem| certificates_from(pem.as_bytes())).transpose()?.unwrap_or_default();
        let examined = examine(&certificates_from(certificates.as_bytes())?, &roots, SystemTime::now())?;
        let info = key.0.info();
        match_key(&examined.chain[0], std::slice::from_ref(info))?;
        let stored = enclasp_identity::Identity {
            name,
            key: info.uri.clone(),
            chain: ders(&examined.chain),
            roots: ders(&roots),
            authority: None,
            software: info.origin == Origin::Imported,
            updated: SystemTime::now(),
            retired: None,
            certified_by: None,
        };
        self.state.identities()?.put(&stored)?;
        Identity::new(stored, key)
    }

    /// An identity that is stored here. `key` is needed for one whose key is behind a [`Signer`]; others
    /// are opened without it.
    ///
    /// # Errors
    /// `Absent`; what the keystore says.
    #[uniffi::method(default(key = None))]
    pub fn identity(&self, name: String, key: Option<Arc<Key>>) -> Result<Arc<Identity>> {
        let stored = self.state.identities()?.get(&name)?;
        let key = match key {
            Some(key) => key,
            None => Arc::new(Key(self.state.open_key(&stored.key)?)),
        };
        Identity::new(stored, key)
    }

    /// Gets a new certificate for the same names and the same key from the authority that made the
    /// present one, and stores it in its place.
    ///
    /// # Errors
    /// `Refused` if that cannot be, because no authority is known or the certificate has expired; what
    /// the key, the connection and the authority say.
    pub fn renew(&self, identity: Arc<Identity>) -> Result<Arc<Identity>> {
        let store = self.state.identities()?;
        let sponsor = match &identity.stored.certified_by {
            Some(name) => {
                let identity = store.get(name)?;
                let key = self.state.open_key(&identity.key)?;
                Some(Sponsor { identity, key })
            }
            None => None,
        };
        let key = identity.key.clone();
        let renewed = block_on(enclasp_enroll::renew(&identity.stored, key.0.clone(), sponsor, &store))??;
        Identity::new(renewed, key)
    }

    /// Forgets an identity. Its key stays where it is.
    ///
    /// # Errors
    /// `Absent`.
    pub fn delete_identity(&self, name: String) -> Result<()> {
        Ok(self.state.identities()?.delete(&name)?)
    }
}

fn policy(asks: bool) -> Policy {
    Policy { presence: if asks { Presence::Confirm } else { Presence::None }, ..Policy::default() }
}

fn ders(certificates: &[Certificate]) -> Vec<CertificateDer<'static>> {
    certificates.iter().map(|certificate| certificate.der().clone()).collect()
}

/// A keystore that holds one key, which was opened before. Nothing is made or destroyed in it.
struct OneKey(Arc<dyn enclasp_keystore::Key>);

impl OneKey {
    fn refused<T>(&self, operation: &str) -> KeyResult<T> {
        Err(Error::Unsupported {
            key: self.0.info().uri.to_string(),
            operation: operation.into(),
            reason: "the program that opened it decides about it".into(),
        })
    }
}

impl Keystore for OneKey {
    fn create(&self, _: &KeySpec) -> KeyResult<Box<dyn enclasp_keystore::Key>> {
        self.refused("create")
    }

    fn open(&self, uri: &KeyUri) -> KeyResult<Box<dyn enclasp_keystore::Key>> {
        if self.0.info().uri == *uri {
            Ok(Box::new(self.0.clone()))
        } else {
            Err(Error::Absent { key: uri.to_string() })
        }
    }

    fn list(&self) -> KeyResult<Vec<KeyInfo>> {
        Ok(vec![self.0.info().clone()])
    }

    fn delete(&self, _: &KeyUri) -> KeyResult<()> {
        self.refused("delete")
    }
}
