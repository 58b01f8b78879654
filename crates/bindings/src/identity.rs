//! A key with its certificate.

use std::sync::Arc;
use std::time::SystemTime;

use enclasp_enroll::schedule;
use enclasp_pki::{Certificate, pem};
use enclasp_tls::Credential;

use crate::Key;
use crate::error::Result;

/// A certificate chain and the key that it is for.
#[derive(uniffi::Object)]
pub struct Identity {
    pub(crate) stored: enclasp_identity::Identity,
    pub(crate) key: Arc<Key>,
    leaf: Certificate,
}

#[uniffi::export]
impl Identity {
    /// Its name.
    pub fn name(&self) -> String {
        self.stored.name.clone()
    }

    /// Its key.
    pub fn key(&self) -> Arc<Key> {
        self.key.clone()
    }

    /// The subject of its certificate, as RFC 4514 writes it.
    pub fn subject(&self) -> String {
        self.leaf.subject().to_string()
    }

    /// The certificates as a peer gets them, leaf first, without the root, in PEM.
    pub fn chain(&self) -> String {
        self.stored.chain.iter().map(|certificate| pem::encode("CERTIFICATE", certificate)).collect()
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after()
    }

    /// From when on it should be renewed: after two thirds of its life, or up to a tenth of it later,
    /// so that not all devices of a day come back on one day.
    pub fn renew_after(&self) -> SystemTime {
        schedule::due(&self.leaf)
    }
}

impl Identity {
    /// Of a stored identity and its key. That they fit is checked when it is used.
    pub(crate) fn new(stored: enclasp_identity::Identity, key: Arc<Key>) -> Result<Arc<Self>> {
        let leaf = stored.leaf()?;
        Ok(Arc::new(Self { stored, key, leaf }))
    }

    pub(crate) fn credential(&self) -> Result<Credential> {
        Ok(Credential::new(self.stored.chain.clone(), self.key.0.clone())?)
    }
}
