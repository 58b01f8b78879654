//! Public keys of any type, weak and rare ones too: what a signature by them can look like.

use std::fmt;

use der::asn1::UintRef;
use der::{Decode, Sequence};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::ecdsa::Curve;
use crate::rsa;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// `point` is as it is in the certificate.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    /// On a curve that is not followed here.
    OtherCurve(String),
    /// `pss_only` if its OID is id-RSASSA-PSS.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
        pss_only: bool,
    },
    Ed25519(Vec<u8>),
    Ed448,
    Other(String),
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo. `None` if it is none.
    pub(crate) fn of_spki(spki: &[u8]) -> Option<Self> {
        let parsed = SubjectPublicKeyInfoRef::from_der(spki).ok()?;
        let key = parsed.subject_public_key.raw_bytes();
        let oid = parsed.algorithm.oid.to_string();
        Some(match oid.as_str() {
            "1.2.840.10045.2.1" => {
                let curve = parsed.algorithm.parameters_oid().map(|oid: ObjectIdentifier| oid.to_string());
                let curve = match curve.as_deref() {
                    Ok("1.2.840.10045.3.1.7") => Curve::P256,
                    Ok("1.3.132.0.34") => Curve::P384,
                    Ok("1.3.132.0.35") => Curve::P521,
                    Ok("1.3.132.0.10") => return Some(Self::OtherCurve("secp256k1".into())),
                    Ok("1.2.840.10045.3.1.1") => return Some(Self::OtherCurve("P-192".into())),
                    Ok("1.3.132.0.33") => return Some(Self::OtherCurve("P-224".into())),
                    Ok("1.3.36.3.3.2.8.1.1.7") => return Some(Self::OtherCurve("brainpoolP256r1".into())),
                    Ok("1.3.36.3.3.2.8.1.1.11") => return Some(Self::OtherCurve("brainpoolP384r1".into())),
                    Ok(other) => return Some(Self::OtherCurve(other.into())),
                    Err(_) => return Some(Self::OtherCurve("an unnamed curve".into())),
                };
                Self::Ec { curve, point: key.to_vec() }
            }
            "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => {
                let pss_only = oid.ends_with("10");
                let rsa = RsaPublicKey::from_der(key).ok()?;
                let (modulus, exponent) = (rsa.modulus.as_bytes().to_vec(), rsa.exponent.as_bytes().to_vec());
                Self::Rsa { modulus, exponent, pss_only }
            }
            "1.3.101.112" => Self::Ed25519(key.to_vec()),
            "1.3.101.113" => Self::Ed448,
            "1.2.840.10040.4.1" => Self::Other("DSA".into()),
            _ => Self::Other(oid),
        })
    }

    /// Whether ECDSA is what it signs with.
    pub(crate) fn is_ec(&self) -> bool {
        matches!(self, Self::Ec { .. } | Self::OtherCurve(_))
    }

    /// What the private-key operation that made `signature` was given: its result of the
    /// public-key operation, as long as the modulus (RFC 8017 §5.2.2). `None` if it is not of that
    /// size or no RSA key.
    pub(crate) fn recover(&self, signature: &[u8]) -> Option<Vec<u8>> {
        let Self::Rsa { modulus, exponent, .. } = self else { return None };
        rsa::recover(modulus, exponent, signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ec { curve, .. } => write!(f, "EC {curve}"),
            Self::OtherCurve(curve) => write!(f, "EC on {curve}"),
            Self::Rsa { modulus, pss_only, .. } => {
                let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
                write!(f, "RSA {}", modulus.len() * 8 - unused)?;
                f.write_str(if *pss_only { " (RSASSA-PSS only)" } else { "" })
            }
            Self::Ed25519(_) => f.write_str("Ed25519"),
            Self::Ed448 => f.write_str("Ed448"),
            Self::Other(name) => f.write_str(name),
        }
    }
}
