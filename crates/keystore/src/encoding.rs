//! Between the encodings of hardware and those of certificates and TLS: signatures and public keys.
//!
//! Hardware speaks in plain numbers (`r ‖ s`, a point, a modulus); everything else in DER.

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::algorithm::{ID_EC_PUBLIC_KEY, ID_ED25519, RSA_ENCRYPTION, SECP256R1, SECP384R1};
use crate::{Algorithm, Error, Hash, Result};

/// `Ecdsa-Sig-Value` (RFC 3279 §2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// `DigestInfo` (RFC 8017 appendix A.2.4).
#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: AlgorithmIdentifier<AnyRef<'a>>,
    digest: &'a OctetStringRef,
}

/// The DER `Ecdsa-Sig-Value` of the big-endian integers `r` and `s`, in as few bytes as DER
/// demands, however they were padded. `None` if either is zero, which no signature has.
pub fn ecdsa_der(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let signature = EcdsaSignature { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? };
    let is_zero = |number: &UintRef<'_>| number.as_bytes().iter().all(|byte| *byte == 0);
    if is_zero(&signature.r) || is_zero(&signature.s) {
        return None;
    }
    signature.to_der().ok()
}

/// The same of `r ‖ s`, each half of the same width, as PKCS#11 and IEEE P1363 have it.
pub fn ecdsa_der_of_pair(pair: &[u8]) -> Option<Vec<u8>> {
    if !pair.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = pair.split_at(pair.len() / 2);
    ecdsa_der(r, s)
}

/// `r ‖ s`, each of `width` bytes, of a DER `Ecdsa-Sig-Value`. `None` if it is not DER or a number
/// is wider.
pub fn ecdsa_pair_of_der(der: &[u8], width: usize) -> Option<Vec<u8>> {
    let signature = EcdsaSignature::from_der(der).ok()?;
    let mut pair = Vec::with_capacity(width.checked_mul(2)?);
    for number in [signature.r, signature.s] {
        let number = number.as_bytes();
        let padding = width.checked_sub(number.len())?;
        pair.resize(pair.len() + padding, 0);
        pair.extend_from_slice(number);
    }
    Some(pair)
}

/// The DER SubjectPublicKeyInfo (RFC 5480 §2) of an uncompressed point `04 ‖ X ‖ Y` on the curve
/// of `algorithm`.
///
/// # Errors
/// [`Error::PublicKey`] if the algorithm has no curve, or the point is not of its size.
pub fn ec_spki(algorithm: Algorithm, point: &[u8]) -> Result<Vec<u8>> {
    let curve = match algorithm {
        Algorithm::P256 => SECP256R1,
        Algorithm::P384 => SECP384R1,
        _ => return Err(Error::PublicKey { reason: format!("a {algorithm} key is not a point") }),
    };
    if point.first() != Some(&4) {
        return Err(Error::PublicKey { reason: "the point is not uncompressed".into() });
    }
    spki(ID_EC_PUBLIC_KEY, Some(AnyRef::from(&curve)), point)
}

/// The DER SubjectPublicKeyInfo (RFC 8410 §4) of the 32 bytes of an Ed25519 public key.
///
/// # Errors
/// [`Error::PublicKey`] if it is not of that size.
pub fn ed25519_spki(public_key: &[u8]) -> Result<Vec<u8>> {
    spki(ID_ED25519, None, public_key)
}

/// The DER SubjectPublicKeyInfo (RFC 3279 §2.3.1) of an RSA key, from big-endian integers.
///
/// # Errors
/// [`Error::PublicKey`] if a number cannot be encoded.
pub fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>> {
    let key = UintRef::new(modulus)
        .and_then(|modulus| RsaPublicKey { modulus, exponent: UintRef::new(exponent)? }.to_der())
        .map_err(|e| not_encodable(&e))?;
    spki(RSA_ENCRYPTION, Some(AnyRef::NULL), &key)
}

/// The same of a DER `RSAPublicKey` (RFC 8017 appendix A.1.1).
///
/// # Errors
/// [`Error::PublicKey`] if it is none.
pub fn rsa_spki_of_public_key(der: &[u8]) -> Result<Vec<u8>> {
    let key = RsaPublicKey::from_der(der)
        .map_err(|e| Error::PublicKey { reason: format!("not an RSAPublicKey: {e}") })?;
    rsa_spki(key.modulus.as_bytes(), key.exponent.as_bytes())
}

/// What the BIT STRING of a DER SubjectPublicKeyInfo holds: a point, or a DER `RSAPublicKey`.
///
/// # Errors
/// [`Error::PublicKey`] if it cannot be read.
pub fn public_bits(spki: &[u8]) -> Result<&[u8]> {
    let parsed = spki::SubjectPublicKeyInfoRef::from_der(spki)
        .map_err(|e| Error::PublicKey { reason: format!("not a SubjectPublicKeyInfo: {e}") })?;
    Ok(parsed.subject_public_key.raw_bytes())
}

/// What a public key consists of, as hardware wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicParts {
    /// A point on a curve.
    Curve {
        /// The DER OBJECT IDENTIFIER of the curve.
        oid: Vec<u8>,
        /// `04 ‖ X ‖ Y`, or the 32 bytes of an Ed25519 key.
        point: Vec<u8>,
    },
    /// Big-endian integers without zero bytes at their front.
    Rsa {
        #[allow(missing_docs)]
        modulus: Vec<u8>,
        #[allow(missing_docs)]
        exponent: Vec<u8>,
    },
}

/// What the key in a DER SubjectPublicKeyInfo consists of.
///
/// # Errors
/// [`Error::PublicKey`] if it cannot be read.
pub fn public_parts(spki: &[u8]) -> Result<PublicParts> {
    let algorithm = Algorithm::of_spki(spki)?;
    let parsed = || {
        let parsed = spki::SubjectPublicKeyInfoRef::from_der(spki)?;
        let bytes = parsed.subject_public_key.raw_bytes();
        let curve =
            |oid: ObjectIdentifier| Ok(PublicParts::Curve { oid: oid.to_der()?, point: bytes.to_vec() });
        match algorithm {
            Algorithm::P256 => curve(SECP256R1),
            Algorithm::P384 => curve(SECP384R1),
            Algorithm::Ed25519 => curve(ID_ED25519),
            Algorithm::Rsa => {
                let key = RsaPublicKey::from_der(bytes)?;
                let integer = |number: UintRef<'_>| number.as_bytes().to_vec();
                Ok(PublicParts::Rsa { modulus: integer(key.modulus), exponent: integer(key.exponent) })
            }
        }
    };
    parsed().map_err(|e: der::Error| Error::PublicKey { reason: format!("it cannot be read: {e}") })
}

/// The DER `DigestInfo` of a digest, which is what a bare RSASSA-PKCS1-v1_5 primitive signs (RFC
/// 8017 §9.2).
///
/// # Errors
/// [`Error::PublicKey`] if it cannot be encoded.
pub fn digest_info(hash: Hash, digest: &[u8]) -> Result<Vec<u8>> {
    let oid = ObjectIdentifier::new_unwrap(match hash {
        Hash::Sha256 => "2.16.840.1.101.3.4.2.1",
        Hash::Sha384 => "2.16.840.1.101.3.4.2.2",
        Hash::Sha512 => "2.16.840.1.101.3.4.2.3",
    });
    let algorithm = AlgorithmIdentifier { oid, parameters: Some(AnyRef::NULL) };
    OctetStringRef::new(digest)
        .and_then(|digest| DigestInfo { algorithm, digest }.to_der())
        .map_err(|e| not_encodable(&e))
}

/// Encodes, and checks by reading it back that what was encoded is a key that we know.
fn spki(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Vec<u8>> {
    let encoded = BitStringRef::from_bytes(key)
        .and_then(|subject_public_key| {
            let algorithm = AlgorithmIdentifier { oid, parameters };
            SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der()
        })
        .map_err(|e| not_encodable(&e))?;
    Algorithm::of_spki(&encoded)?;
    Ok(encoded)
}

fn not_encodable(error: &der::Error) -> Error {
    Error::PublicKey { reason: format!("it cannot be encoded: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_signature() {
        let width = 32;
        assert_eq!(ecdsa_der_of_pair(&[]), None, "empty");
        assert_eq!(ecdsa_der_of_pair(&[1; 63]), None, "odd");
        assert_eq!(ecdsa_der_of_pair(&[0; 64]), None, "zero");
        assert_eq!(ecdsa_der(&[1], &[0, 0]), None, "s is zero");
        let der = ecdsa_der(&[0x80; 33], &[1]).unwrap();
        assert_eq!(ecdsa_pair_of_der(&der, width), None, "too wide");
        let der = ecdsa_der(&[1; 32], &[2; 32]).unwrap();
        for length in 0..der.len() {
            assert_eq!(ecdsa_pair_of_der(&der[..length], width), None, "cut at {length}");
        }
        assert_eq!(ecdsa_pair_of_der(&[&der[..], &[0]].concat(), width), None, "trailing byte");
        // Not minimal: a leading zero that the sign does not need; and negative.
        assert_eq!(ecdsa_pair_of_der(&[0x30, 7, 2, 2, 0, 1, 2, 1, 1], width), None);
        assert_eq!(ecdsa_pair_of_der(&[0x30, 6, 2, 1, 0x80, 2, 1, 1], width), None);
    }

    /// Every count of leading zeros with the highest bit set and clear, in both numbers.
    #[test]
    fn integers_are_minimal_whatever_they_begin_with() {
        for width in [32, 48] {
            let numbers = (0..width).flat_map(|zeros| {
                [0x01, 0x7f, 0x80, 0xff].map(|first| {
                    let mut number = vec![0xa5; width];
                    number[..zeros].fill(0);
                    number[zeros] = first;
                    number
                })
            });
            let numbers: Vec<Vec<u8>> = numbers.collect();
            for r in &numbers {
                for s in &numbers {
                    let pair = [&r[..], s].concat();
                    let der = ecdsa_der_of_pair(&pair).unwrap();
                    let expected = [integer(r), integer(s)].concat();
                    assert_eq!(der, [&[0x30, expected.len() as u8][..], &expected].concat());
                    assert_eq!(ecdsa_pair_of_der(&der, width).unwrap(), pair);
                }
            }
        }
    }

    /// X.690 §8.3, written down a second time.
    fn integer(number: &[u8]) -> Vec<u8> {
        let first = number.iter().position(|byte| *byte != 0).unwrap();
        let sign: &[u8] = if number[first] >= 0x80 { &[0] } else { &[] };
        let content = [sign, &number[first..]].concat();
        [&[2, content.len() as u8][..], &content].concat()
    }

    #[test]
    fn public_keys_of_another_size_are_refused() {
        assert!(ec_spki(Algorithm::P256, &[4; 64]).is_err());
        assert!(ec_spki(Algorithm::P256, &[4; 97]).is_err());
        assert!(ec_spki(Algorithm::P384, &[2; 97]).is_err());
        assert!(ec_spki(Algorithm::Rsa, &[4; 65]).is_err());
        assert!(ed25519_spki(&[1; 33]).is_err());
        assert_eq!(Algorithm::of_spki(&ec_spki(Algorithm::P384, &[4; 97]).unwrap()), Ok(Algorithm::P384));
        assert_eq!(Algorithm::of_spki(&ed25519_spki(&[1; 32]).unwrap()), Ok(Algorithm::Ed25519));
        assert_eq!(Algorithm::of_spki(&rsa_spki(&[0xff; 256], &[1, 0, 1]).unwrap()), Ok(Algorithm::Rsa));
    }

    #[test]
    fn public_keys_come_apart_as_they_were_put_together() {
        let rsa = rsa_spki(&[0xff; 256], &[1, 0, 1]).unwrap();
        let parts = PublicParts::Rsa { modulus: vec![0xff; 256], exponent: vec![1, 0, 1] };
        assert_eq!(public_parts(&rsa), Ok(parts));
        let point = [&[4][..], &[7; 96]].concat();
        let oid = SECP384R1.to_der().unwrap();
        assert_eq!(
            public_parts(&ec_spki(Algorithm::P384, &point).unwrap()),
            Ok(PublicParts::Curve { oid, point })
        );
        assert!(public_parts(&rsa[1..]).is_err());
        let bare = public_bits(&rsa).unwrap();
        assert_eq!(rsa_spki_of_public_key(bare), Ok(rsa.clone()));
        assert!(rsa_spki_of_public_key(&bare[1..]).is_err());
    }
}
