//! The identity itself, and its form on disk.

use std::time::SystemTime;

use enclasp_keystore::KeyUri;
use enclasp_pki::{Certificate, pem};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A named pair of certificate chain and key, whose public keys match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// The key that the leaf certificate is for.
    pub key: KeyUri,
    /// The chain as a TLS peer gets it: leaf first, without the root. Never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// Roots to trust when this identity connects: learned at enrolment, or given at import.
    pub roots: Vec<CertificateDer<'static>>,
    /// URL of the authority that issued the certificate and can renew it.
    pub authority: Option<String>,
    /// Whether copies of the private key may exist: it was imported.
    pub software: bool,
    /// When the chain was put here.
    pub updated: SystemTime,
    /// The key that a rekey put out of service. It is kept until the new one has been used.
    pub retired: Option<KeyUri>,
    /// The identity whose certificate authenticates the renewal of this one, if it is not this one
    /// itself: a key in hardware that has short-lived certificates made for a key in software.
    pub certified_by: Option<String>,
}

impl Identity {
    /// The leaf certificate.
    ///
    /// # Errors
    /// [`Error::Pki`] if it cannot be read, [`Error::NoCertificate`] if the chain is empty.
    pub fn leaf(&self) -> Result<Certificate> {
        let leaf = self
            .chain
            .first()
            .ok_or_else(|| Error::NoCertificate { source_name: format!("the identity `{}`", self.name) })?;
        Ok(Certificate::from_der(leaf)?)
    }
}

/// The JSON on disk. Certificates are PEM, so that other tools can be fed from it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Stored {
    version: u32,
    name: String,
    key: KeyUri,
    software: bool,
    authority: Option<String>,
    updated: SystemTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<KeyUri>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certified_by: Option<String>,
    chain: String,
    roots: String,
}

const VERSION: u32 = 1;

impl From<&Identity> for Stored {
    fn from(identity: &Identity) -> Self {
        let bundle = |chain: &[CertificateDer<'_>]| {
            chain.iter().map(|certificate| pem::encode("CERTIFICATE", certificate)).collect()
        };
        Self {
            version: VERSION,
            name: identity.name.clone(),
            key: identity.key.clone(),
            software: identity.software,
            authority: identity.authority.clone(),
            updated: identity.updated,
            retired: identity.retired.clone(),
            certified_by: identity.certified_by.clone(),
            chain: bundle(&identity.chain),
            roots: bundle(&identity.roots),
        }
    }
}

impl Stored {
    /// Parses the bytes of a file; the reason of a failure is one line.
    pub(crate) fn parse(bytes: &[u8]) -> std::result::Result<Identity, String> {
        let stored: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if stored.version != VERSION {
            return Err(format!("version {} is not known", stored.version));
        }
        let certificates = |text: &str| -> std::result::Result<Vec<CertificateDer<'static>>, String> {
            if text.is_empty() {
                return Ok(Vec::new());
            }
            let parsed = enclasp_pki::certificates_from(text.as_bytes()).map_err(|e| e.to_string())?;
            Ok(parsed.iter().map(|certificate| certificate.der().clone()).collect())
        };
        let chain = certificates(&stored.chain)?;
        if chain.is_empty() {
            return Err("it holds no certificate".into());
        }
        Ok(Identity {
            name: stored.name,
            key: stored.key,
            roots: certificates(&stored.roots)?,
            chain,
            authority: stored.authority,
            software: stored.software,
            updated: stored.updated,
            retired: stored.retired,
            certified_by: stored.certified_by,
        })
    }
}
