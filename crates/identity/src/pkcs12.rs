//! PKCS#12 files (RFC 7292): a private key and its certificates, from elsewhere.

use enclasp_pki::Certificate;
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// What a PKCS#12 file held.
pub struct Pkcs12 {
    /// DER PrivateKeyInfo.
    pub private_key: Zeroizing<Vec<u8>>,
    /// Its certificates, leaf first.
    pub certificates: Vec<Certificate>,
}

impl Pkcs12 {
    /// Opens the file's bytes.
    ///
    /// # Errors
    /// [`Error::Pkcs12`] if it is none, if the passphrase is wrong, or if it does not hold exactly
    /// one private key with its certificate.
    pub fn open(bytes: &[u8], passphrase: &str) -> Result<Self> {
        let failed = |reason: String| Error::Pkcs12 { reason };
        if bytes.starts_with(b"-----BEGIN") {
            return Err(failed("it is PEM; a PKCS#12 file is binary".into()));
        }
        let store = KeyStore::from_pkcs12(bytes, passphrase, Pkcs12ImportPolicy::Relaxed).map_err(|e| {
            failed(match e {
                p12_keystore::error::Error::MacError(_) => "its passphrase is another one".into(),
                e => e.to_string(),
            })
        })?;
        let mut chains = store.entries().filter_map(|(_, entry)| match entry {
            KeyStoreEntry::PrivateKeyChain(chain) => Some(chain),
            _ => None,
        });
        let chain = chains.next().ok_or_else(|| failed("it holds no private key".into()))?;
        if chains.next().is_some() {
            return Err(failed("it holds several private keys; export the one you mean".into()));
        }
        let certificates = chain
            .certs()
            .iter()
            .map(|certificate| Ok(Certificate::from_der(certificate.as_der())?))
            .collect::<Result<Vec<_>>>()?;
        if certificates.is_empty() {
            return Err(failed("it holds a private key, but no certificate for it".into()));
        }
        Ok(Self { private_key: Zeroizing::new(chain.key().as_der().to_vec()), certificates })
    }
}
