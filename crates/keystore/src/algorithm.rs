//! Key types and signature schemes, named as RFC 8446 §4.2.3 names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use spki::ObjectIdentifier;
use spki::der::Decode;

use crate::{Error, Result};

/// The type of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Algorithm {
    /// Elliptic curve over secp256r1 (NIST P-256).
    P256,
    /// Elliptic curve over secp384r1 (NIST P-384).
    P384,
    /// Edwards curve 25519 (RFC 8032).
    Ed25519,
    /// RSA of 2048 bits or more.
    Rsa,
}

pub(crate) const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(crate) const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(crate) const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
pub(crate) const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
pub(crate) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

impl Algorithm {
    /// The algorithm of a DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), read from the key itself.
    ///
    /// # Errors
    /// [`Error::PublicKey`] if the bytes are not a SubjectPublicKeyInfo, or of a type that we do
    /// not sign with.
    pub fn of_spki(spki: &[u8]) -> Result<Self> {
        let parsed = spki::SubjectPublicKeyInfoRef::from_der(spki)
            .map_err(|e| Error::PublicKey { reason: format!("not a SubjectPublicKeyInfo: {e}") })?;
        let bits = parsed.subject_public_key.raw_bytes().len();
        let point = |algorithm, length: usize| {
            if bits == length {
                Ok(algorithm)
            } else {
                Err(Error::PublicKey {
                    reason: format!("a {algorithm} public key has {length} bytes, this one {bits}"),
                })
            }
        };
        match parsed.algorithm.oid {
            ID_ED25519 => point(Self::Ed25519, 32),
            RSA_ENCRYPTION => Ok(Self::Rsa),
            ID_EC_PUBLIC_KEY => match parsed.algorithm.parameters_oid() {
                Ok(SECP256R1) => point(Self::P256, 65),
                Ok(SECP384R1) => point(Self::P384, 97),
                Ok(other) => {
                    Err(Error::PublicKey { reason: format!("curve {other} is neither P-256 nor P-384") })
                }
                Err(_) => Err(Error::PublicKey { reason: "the EC key names no curve".into() }),
            },
            other => {
                Err(Error::PublicKey { reason: format!("public key algorithm {other} is not supported") })
            }
        }
    }

    /// Every scheme that a key of this type could sign with, the natural one first.
    pub fn schemes(self) -> &'static [Scheme] {
        use Scheme::*;
        match self {
            Self::P256 => &[EcdsaP256Sha256, EcdsaP256Sha384],
            Self::P384 => &[EcdsaP384Sha384, EcdsaP384Sha256],
            Self::Ed25519 => &[Ed25519],
            Self::Rsa => {
                &[RsaPssSha256, RsaPssSha384, RsaPssSha512, RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512]
            }
        }
    }

    /// The scheme that TLS 1.3 binds to this key type (for RSA: RSA-PSS with SHA-256).
    pub fn natural_scheme(self) -> Scheme {
        self.schemes()[0]
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        })
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "p256" | "p-256" => Ok(Self::P256),
            "p384" | "p-384" => Ok(Self::P384),
            "ed25519" => Ok(Self::Ed25519),
            "rsa" => Ok(Self::Rsa),
            _ => Err(format!("`{text}` is not one of p256, p384, ed25519, rsa")),
        }
    }
}

/// A hash function of a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// The length of its output in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A way to sign: key type, padding and hash together.
///
/// ECDSA schemes name the curve, because TLS 1.3 binds it; P-256 with SHA-384 and P-384 with
/// SHA-256 are legal in TLS 1.2 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Scheme {
    #[serde(rename = "ecdsa_secp256r1_sha256")]
    EcdsaP256Sha256,
    #[serde(rename = "ecdsa_secp256r1_sha384")]
    EcdsaP256Sha384,
    #[serde(rename = "ecdsa_secp384r1_sha384")]
    EcdsaP384Sha384,
    #[serde(rename = "ecdsa_secp384r1_sha256")]
    EcdsaP384Sha256,
    #[serde(rename = "ed25519")]
    Ed25519,
    #[serde(rename = "rsa_pss_rsae_sha256")]
    RsaPssSha256,
    #[serde(rename = "rsa_pss_rsae_sha384")]
    RsaPssSha384,
    #[serde(rename = "rsa_pss_rsae_sha512")]
    RsaPssSha512,
    #[serde(rename = "rsa_pkcs1_sha256")]
    RsaPkcs1Sha256,
    #[serde(rename = "rsa_pkcs1_sha384")]
    RsaPkcs1Sha384,
    #[serde(rename = "rsa_pkcs1_sha512")]
    RsaPkcs1Sha512,
}

impl Scheme {
    /// The `SignatureScheme` code point of RFC 8446 §4.2.3. In TLS 1.2 an ECDSA code point names
    /// only the hash, so both curves share one.
    pub fn code_point(self) -> u16 {
        match self {
            Self::EcdsaP256Sha256 | Self::EcdsaP384Sha256 => 0x0403,
            Self::EcdsaP384Sha384 | Self::EcdsaP256Sha384 => 0x0503,
            Self::Ed25519 => 0x0807,
            Self::RsaPssSha256 => 0x0804,
            Self::RsaPssSha384 => 0x0805,
            Self::RsaPssSha512 => 0x0806,
            Self::RsaPkcs1Sha256 => 0x0401,
            Self::RsaPkcs1Sha384 => 0x0501,
            Self::RsaPkcs1Sha512 => 0x0601,
        }
    }

    /// The hash of the scheme. Ed25519 hashes inside the signature and has none.
    pub fn hash(self) -> Option<Hash> {
        match self {
            Self::EcdsaP256Sha256 | Self::EcdsaP384Sha256 | Self::RsaPssSha256 | Self::RsaPkcs1Sha256 => {
                Some(Hash::Sha256)
            }
            Self::EcdsaP384Sha384 | Self::EcdsaP256Sha384 | Self::RsaPssSha384 | Self::RsaPkcs1Sha384 => {
                Some(Hash::Sha384)
            }
            Self::RsaPssSha512 | Self::RsaPkcs1Sha512 => Some(Hash::Sha512),
            Self::Ed25519 => None,
        }
    }

    /// The type of key that can sign with it.
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::EcdsaP256Sha256 | Self::EcdsaP256Sha384 => Algorithm::P256,
            Self::EcdsaP384Sha384 | Self::EcdsaP384Sha256 => Algorithm::P384,
            Self::Ed25519 => Algorithm::Ed25519,
            _ => Algorithm::Rsa,
        }
    }

    /// The name of RFC 8446 §4.2.3, or the like for the pairs that only TLS 1.2 has.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256Sha256 => "ecdsa_secp256r1_sha256",
            Self::EcdsaP256Sha384 => "ecdsa_secp256r1_sha384",
            Self::EcdsaP384Sha384 => "ecdsa_secp384r1_sha384",
            Self::EcdsaP384Sha256 => "ecdsa_secp384r1_sha256",
            Self::Ed25519 => "ed25519",
            Self::RsaPssSha256 => "rsa_pss_rsae_sha256",
            Self::RsaPssSha384 => "rsa_pss_rsae_sha384",
            Self::RsaPssSha512 => "rsa_pss_rsae_sha512",
            Self::RsaPkcs1Sha256 => "rsa_pkcs1_sha256",
            Self::RsaPkcs1Sha384 => "rsa_pkcs1_sha384",
            Self::RsaPkcs1Sha512 => "rsa_pkcs1_sha512",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
