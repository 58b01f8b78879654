//! Elliptic curves, their points, and ECDSA over any digest.

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature as aws;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};

/// A curve, with what it takes to tell whether a point is on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
    Secp256k1,
}

/// secp256k1 (SEC 2 §2.4.1).
const SECP_256_K_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
impl Curve {
    const ALL: [Self; 4] = [Self::P256, Self::P384, Self::P521, Self::Secp256k1];

    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::P256 => SECP_256_R_1,
            Self::P384 => SECP_384_R_1,
            Self::P521 => SECP_521_R_1,
            Self::Secp256k1 => SECP_256_K_1,
        }
    }

    pub(crate) fn of_oid(oid: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.oid() == oid)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Secp256k1 => "secp256k1",
        }
    }

    /// The bytes of a coordinate.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::P256 | Self::Secp256k1 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The length of an uncompressed point (SEC 1 §2.3.3, X9.62).
    pub(crate) fn point_length(self) -> usize {
        1 + 2 * self.width()
    }

    /// Whether these bytes are an uncompressed point on it.
    pub(crate) fn has(self, point: &[u8]) -> bool {
        let algorithm: &'static dyn aws::VerificationAlgorithm = match self {
            Self::P256 => &aws::ECDSA_P256_SHA256_ASN1,
            Self::P384 => &aws::ECDSA_P384_SHA384_ASN1,
            Self::P521 => &aws::ECDSA_P521_SHA512_ASN1,
            Self::Secp256k1 => &aws::ECDSA_P256K1_SHA256_ASN1,
        };
        point.len() == self.point_length()
            && point.first() == Some(&4)
            && aws::UnparsedPublicKey::new(algorithm, point).parse().is_ok()
    }

    /// The curve that a point is on.
    pub(crate) fn of_point(point: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.has(point))
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Verifies a DER `Ecdsa-Sig-Value`. ECDSA takes as many of the leftmost bits of the digest as the order has
/// (SEC 1 §4.1.4), whatever the hash; aws-lc-rs binds hash and curve, so it is given the adapted number as a digest.
pub(crate) fn verify(curve: Curve, point: &[u8], digest: &[u8], der: &[u8]) -> bool {
    let (algorithm, hash): (&aws::EcdsaVerificationAlgorithm, _) = match curve {
        Curve::P256 => (&aws::ECDSA_P256_SHA256_ASN1, &digest::SHA256),
        Curve::P384 => (&aws::ECDSA_P384_SHA384_ASN1, &digest::SHA384),
        Curve::P521 => (&aws::ECDSA_P521_SHA512_ASN1, &digest::SHA512),
        Curve::Secp256k1 => (&aws::ECDSA_P256K1_SHA256_ASN1, &digest::SHA256),
    };
    let width = hash.output_len();
    let mut number = vec![0; width.saturating_sub(digest.len())];
    number.extend(digest.iter().take(width));
    Digest::import_less_safe(&number, hash)
        .is_ok_and(|digest| aws::UnparsedPublicKey::new(algorithm, point).verify_digest(&digest, der).is_ok())
}
