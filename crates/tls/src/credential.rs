//! A certificate chain with the key whose public key it carries.

use std::fmt;
use std::sync::Arc;

use enclasp_identity::{Identity, State};
use enclasp_keystore::{Algorithm, Key, KeyUri, Origin, Scheme};
use enclasp_pki::Certificate;
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;

use crate::evidence::{CertificateSummary, summaries};
use crate::{Error, Result, Version};

/// What one side of a connection authenticates itself with. Cloning shares it.
#[derive(Clone)]
pub struct Credential(Arc<Inner>);

struct Inner {
    chain: Vec<CertificateDer<'static>>,
    leaf: Certificate,
    /// The chain as evidence shows it, which every connection's does.
    summaries: Arc<[CertificateSummary]>,
    algorithm: Algorithm,
    key: Arc<dyn Key>,
    schemes: Vec<Scheme>,
    offloads: Arc<Semaphore>,
}

/// How many handshakes may be on blocking threads for one credential; the others wait their turn.
const MAX_OFFLOADS: usize = 64;

impl Credential {
    /// Joins a chain, leaf first, with its key. The key type and the schemes are taken from the
    /// leaf's public key, whatever the key says about itself.
    ///
    /// # Errors
    /// [`Error::Credential`] if the chain is empty or its leaf cannot be read, if the leaf's public
    /// key is not the key's, or if the key was proved to do nothing that fits.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: Arc<dyn Key>) -> Result<Self> {
        let info = key.info();
        let error = |subject: String, reason: String| Error::Credential {
            key: info.uri.to_string(),
            subject,
            reason,
        };
        let Some(leaf) = chain.first() else {
            return Err(error("no subject".into(), "the chain is empty".into()));
        };
        let leaf = Certificate::from_der(leaf.as_ref())
            .map_err(|e| error("an unknown subject".into(), e.to_string()))?;
        let subject = || leaf.subject().to_string();
        if leaf.spki() != info.spki {
            return Err(error(subject(), "its public key is not the key's".into()));
        }
        let algorithm = Algorithm::of_spki(leaf.spki())?;
        let usable = info.usable_schemes();
        let schemes: Vec<_> =
            algorithm.schemes().iter().copied().filter(|scheme| usable.contains(scheme)).collect();
        if schemes.is_empty() {
            return Err(error(
                subject(),
                format!("the key was proved to do none of the schemes of {algorithm}"),
            ));
        }
        let offloads = Arc::new(Semaphore::new(MAX_OFFLOADS));
        let summaries = summaries(&chain);
        Ok(Self(Arc::new(Inner { chain, leaf, summaries, algorithm, key, schemes, offloads })))
    }

    /// Opens an identity's key and joins it with the identity's chain.
    ///
    /// # Errors
    /// [`Error::Identity`] if the key cannot be opened, and as [`new`](Self::new).
    pub fn open(state: &State, identity: &Identity) -> Result<Self> {
        Self::new(identity.chain.clone(), state.open_key(&identity.key)?)
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }

    /// The first certificate of the chain.
    pub fn leaf(&self) -> &Certificate {
        &self.0.leaf
    }

    /// The chain in short.
    pub(crate) fn summaries(&self) -> &Arc<[CertificateSummary]> {
        &self.0.summaries
    }

    /// The type of the leaf's public key.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The key's name.
    pub fn uri(&self) -> &KeyUri {
        &self.0.key.info().uri
    }

    /// Whether copies of the key may exist: it was not born in its keystore, but imported or read
    /// from a file. Evidence and logs then say *software*.
    pub fn is_software(&self) -> bool {
        self.0.key.info().origin == Origin::Imported
    }

    pub(crate) fn key(&self) -> &dyn Key {
        &*self.0.key
    }

    /// What it may sign with, the natural scheme first.
    pub fn schemes(&self) -> &[Scheme] {
        &self.0.schemes
    }

    /// Those of [`schemes`](Self::schemes) that `version` has.
    pub fn schemes_in(&self, version: Version) -> Vec<Scheme> {
        let allowed = |scheme: &Scheme| version == Version::Tls12 || allowed_in_tls13(*scheme);
        self.schemes().iter().copied().filter(allowed).collect()
    }

    /// The same, but it signs with `scheme` alone. `None` if it may not.
    pub fn with_only(&self, scheme: Scheme) -> Option<Self> {
        let Inner { chain, leaf, summaries, algorithm, key, schemes, offloads } = &*self.0;
        schemes.contains(&scheme).then(|| {
            Self(Arc::new(Inner {
                chain: chain.clone(),
                leaf: leaf.clone(),
                summaries: summaries.clone(),
                algorithm: *algorithm,
                key: key.clone(),
                schemes: vec![scheme],
                offloads: offloads.clone(),
            }))
        })
    }

    pub(crate) fn prompts(&self) -> bool {
        self.key().info().policy.prompts()
    }

    /// Where to wait for a blocking thread, unless the key may sign on an async worker.
    pub(crate) fn offloads(&self) -> Option<&Arc<Semaphore>> {
        (!self.key().is_immediate()).then_some(&self.0.offloads)
    }
}

/// TLS 1.3 binds the hash to the curve (RFC 8446 §4.2.3), and has no PKCS #1 v1.5.
pub(crate) fn allowed_in_tls13(scheme: Scheme) -> bool {
    let pss = matches!(scheme, Scheme::RsaPssSha256 | Scheme::RsaPssSha384 | Scheme::RsaPssSha512);
    pss || (scheme == scheme.algorithm().natural_scheme())
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("key", self.uri())
            .field("subject", &self.leaf().subject().to_string())
            .field("software", &self.is_software())
            .finish_non_exhaustive()
    }
}
