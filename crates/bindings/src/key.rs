//! Keys that can be used and not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use enclasp_keystore as keystore;
use enclasp_pki::{DistinguishedName, SubjectAltName, create_csr, pem};
use keystore::{Algorithm, SignContext, encoding};

use crate::EnclaspError;
use crate::error::Result;

/// The type of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum KeyType {
    /// Elliptic curve over secp256r1 (NIST P-256).
    P256,
    /// Elliptic curve over secp384r1 (NIST P-384).
    P384,
    /// Edwards curve 25519 (RFC 8032).
    Ed25519,
    /// RSA of 2048 bits or more.
    Rsa,
}

impl KeyType {
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::P256,
            Self::P384 => Algorithm::P384,
            Self::Ed25519 => Algorithm::Ed25519,
            Self::Rsa => Algorithm::Rsa,
        }
    }

    fn of(algorithm: Algorithm) -> Result<Self> {
        Ok(match algorithm {
            Algorithm::P256 => Self::P256,
            Algorithm::P384 => Self::P384,
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::Rsa => Self::Rsa,
            other => {
                let message = format!("this interface has no name for keys of type {other}");
                return Err(EnclaspError::new(EnclaspError::Unsupported, message, None));
            }
        })
    }
}

/// A private key that can be used and not read.
#[derive(uniffi::Object)]
pub struct Key(pub(crate) Arc<dyn keystore::Key>);

/// How long a signature of a request may take: a person may be asked.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

#[uniffi::export]
impl Key {
    /// Its name: `soft:name=web`.
    pub fn uri(&self) -> String {
        self.0.info().uri.to_string()
    }

    /// Its type, which is that of its public key.
    ///
    /// # Errors
    /// `Unsupported` for a type that this interface has no name for.
    pub fn key_type(&self) -> Result<KeyType> {
        KeyType::of(self.0.info().algorithm)
    }

    /// Its public key: DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    pub fn public_key(&self) -> Vec<u8> {
        self.0.info().spki.clone()
    }

    /// The names (RFC 8446 §4.2.3) of the schemes that it may sign by, the natural one of its type first.
    pub fn schemes(&self) -> Vec<String> {
        self.0.info().usable_schemes().into_iter().map(|scheme| scheme.name().to_owned()).collect()
    }

    /// A certification request (PKCS#10, RFC 2986) in PEM, signed by this key. `subject` is RFC 4514
    /// text: `CN=web,OU=Ops,O=Acme,C=CH`; `names` are subject alternative names: `dns:localhost`,
    /// `ip:10.0.0.7`, `uri:…`, `email:…`.
    ///
    /// # Errors
    /// `Invalid` for a name that breaks the rules of its kind, and what the key says.
    #[uniffi::method(default(names = []))]
    pub fn csr(&self, subject: String, names: Vec<String>) -> Result<String> {
        let subject: DistinguishedName = subject.parse()?;
        let names: Vec<SubjectAltName> = names.iter().map(|name| Ok(name.parse()?)).collect::<Result<_>>()?;
        let ctx = SignContext::new(format!("certification request for {subject}"))
            .with_deadline(Instant::now() + REQUEST_TIMEOUT);
        let request = create_csr(&*self.0, &subject, &names, &ctx)?;
        Ok(pem::encode("CERTIFICATE REQUEST", &request))
    }
}

/// The DER SubjectPublicKeyInfo of a public key that is one already, or the point `04 ‖ X ‖ Y` of a
/// P-256 or P-384 key, which is all that Apple's SecKeyCopyExternalRepresentation gives.
///
/// # Errors
/// [`keystore::Error::PublicKey`] if it is neither.
pub(crate) fn spki_of(public_key: &[u8]) -> keystore::Result<Vec<u8>> {
    match (public_key.first(), public_key.len()) {
        (Some(4), 65) => encoding::ec_spki(Algorithm::P256, public_key),
        (Some(4), 97) => encoding::ec_spki(Algorithm::P384, public_key),
        _ => Algorithm::of_spki(public_key).map(|_| public_key.to_vec()),
    }
}
