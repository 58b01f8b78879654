//! Which public keys are certified: what is supported, and strong enough.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{
    ID_DSA, ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_224_R_1, SECP_256_R_1, SECP_384_R_1,
};
use const_oid::db::rfc8410::ID_ED_25519;
use der::asn1::UintRef;
use der::{Decode, Sequence};
use enclasp_keystore::Algorithm;
use spki::SubjectPublicKeyInfoRef;

use crate::encoding::in_field;
use crate::{Error, Result};

const WHAT: &str = "public key";

/// secp192r1 (NIST P-192).
const SECP_192_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.1");

/// What signatures are verified with has these limits too.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The algorithm of a DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), if it is one that may have a
/// certificate: P-256, P-384, Ed25519, or RSA of 2048 to 8192 bits.
///
/// # Errors
/// [`Error::Weak`] for RSA keys of fewer bits, P-192, P-224 and DSA; [`Error::Unsupported`] for
/// other curves and algorithms; [`Error::Malformed`] if the bytes are not a public key.
pub fn algorithm_of(spki: &[u8]) -> Result<Algorithm> {
    let parsed = in_field(WHAT, "SubjectPublicKeyInfo", SubjectPublicKeyInfoRef::from_der(spki))?;
    let weak = |reason: String| Err(Error::Weak { what: WHAT, reason });
    let unsupported = |reason: String| Err(Error::Unsupported { what: WHAT, reason });
    match parsed.algorithm.oid {
        RSA_ENCRYPTION => {
            let bits = rsa_bits(parsed.subject_public_key.raw_bytes())?;
            if bits < *RSA_BITS.start() {
                return weak(format!(
                    "it is an RSA key of {bits} bits, at least {} are needed",
                    RSA_BITS.start()
                ));
            }
            if bits > *RSA_BITS.end() {
                return unsupported(format!(
                    "it is an RSA key of {bits} bits, at most {} are",
                    RSA_BITS.end()
                ));
            }
        }
        ID_EC_PUBLIC_KEY => match parsed.algorithm.parameters_oid() {
            Ok(SECP_256_R_1 | SECP_384_R_1) => {}
            Ok(SECP_192_R_1) => return weak("it is on the curve P-192".into()),
            Ok(SECP_224_R_1) => return weak("it is on the curve P-224".into()),
            Ok(curve) => return unsupported(format!("it is on the curve {}", describe(curve))),
            Err(_) => return unsupported("it does not name its curve".into()),
        },
        ID_ED_25519 => {}
        ID_DSA => return weak("it is a DSA key".into()),
        other => return unsupported(format!("its algorithm is {}", describe(other))),
    }
    Algorithm::of_spki(spki).map_err(|error| Error::Malformed { what: WHAT, reason: error.to_string() })
}

/// An object identifier with its name, where it is a known one.
pub fn describe(oid: ObjectIdentifier) -> String {
    const_oid::db::DB.by_oid(&oid).map_or_else(|| oid.to_string(), |name| format!("{name} ({oid})"))
}

/// RSAPublicKey (RFC 8017 appendix A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn rsa_bits(key: &[u8]) -> Result<usize> {
    let key = in_field(WHAT, "RSAPublicKey", RsaPublicKey::from_der(key))?;
    let modulus = key.modulus.as_bytes();
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros()) as usize;
    Ok((modulus.len() * 8).saturating_sub(unused))
}
