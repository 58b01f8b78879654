//! Public keys as CNG has them: `BCRYPT_ECCKEY_BLOB` and `BCRYPT_RSAKEY_BLOB`.
//!
//! A header of little-endian 32-bit numbers, and big-endian integers behind it.

use crate::{Algorithm, Error, Result, encoding};

/// What such a blob begins with.
mod magic {
    pub(super) const ECDSA_P256: u32 = 0x3153_4345;
    pub(super) const ECDSA_P384: u32 = 0x3353_4345;
    pub(super) const RSA: u32 = 0x3141_5352;
}

/// The DER SubjectPublicKeyInfo of a blob.
///
/// # Errors
/// [`Error::PublicKey`] if it is not a P-256, P-384 or RSA key.
pub(super) fn spki(blob: &[u8]) -> Result<Vec<u8>> {
    let cut = || Error::PublicKey { reason: "the blob is cut short".into() };
    let mut rest = blob;
    let magic = number(&mut rest).ok_or_else(cut)?;
    let curve = match magic {
        magic::ECDSA_P256 => Algorithm::P256,
        magic::ECDSA_P384 => Algorithm::P384,
        magic::RSA => {
            let _bits = number(&mut rest).ok_or_else(cut)?;
            let exponent = number(&mut rest).ok_or_else(cut)?;
            let modulus = number(&mut rest).ok_or_else(cut)?;
            let _primes = (number(&mut rest).ok_or_else(cut)?, number(&mut rest).ok_or_else(cut)?);
            let exponent = rest.split_off(..exponent as usize).ok_or_else(cut)?;
            let modulus = rest.split_off(..modulus as usize).ok_or_else(cut)?;
            return encoding::rsa_spki(modulus, exponent);
        }
        other => {
            return Err(Error::PublicKey {
                reason: format!("a blob of kind {other:#010x} is neither P-256, P-384 nor RSA"),
            });
        }
    };
    let _width = number(&mut rest).ok_or_else(cut)?;
    encoding::ec_spki(curve, &[&[4], rest].concat())
}

/// The blob of a DER SubjectPublicKeyInfo, for verification.
///
/// # Errors
/// [`Error::PublicKey`] if the key cannot be read or is of another type.
#[cfg(any(not(feature = "aws-lc"), test))]
pub(super) fn blob(spki: &[u8]) -> Result<Vec<u8>> {
    use encoding::PublicParts;
    let length = |bytes: &[u8]| bytes.len() as u32;
    let (header, body) = match (Algorithm::of_spki(spki)?, encoding::public_parts(spki)?) {
        (Algorithm::P256, PublicParts::Curve { point, .. }) => {
            (vec![magic::ECDSA_P256, 32], point[1..].to_vec())
        }
        (Algorithm::P384, PublicParts::Curve { point, .. }) => {
            (vec![magic::ECDSA_P384, 48], point[1..].to_vec())
        }
        (_, PublicParts::Rsa { modulus, exponent }) => {
            let header = vec![magic::RSA, 8 * length(&modulus), length(&exponent), length(&modulus), 0, 0];
            (header, [exponent, modulus].concat())
        }
        (other, _) => return Err(Error::PublicKey { reason: format!("CNG has no {other}") }),
    };
    let header = header.into_iter().flat_map(u32::to_le_bytes);
    Ok(header.chain(body).collect())
}

/// Takes a number off the front.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_blobs() {
        let point = |length: usize| [vec![4], (0..length).map(|i| i as u8 + 1).collect()].concat();
        for spki_der in [
            encoding::ec_spki(Algorithm::P256, &point(64)).unwrap(),
            encoding::ec_spki(Algorithm::P384, &point(96)).unwrap(),
            encoding::rsa_spki(&[0xa5; 256], &[1, 0, 1]).unwrap(),
        ] {
            let blob = blob(&spki_der).unwrap();
            assert_eq!(spki(&blob), Ok(spki_der));
            for length in 0..blob.len() {
                assert!(spki(&blob[..length]).is_err(), "cut at {length}");
            }
        }
        assert!(blob(&encoding::ed25519_spki(&[7; 32]).unwrap()).is_err());
    }

    /// As the documentation of BCRYPT_ECCKEY_BLOB and BCRYPT_RSAKEY_BLOB lays them out.
    #[test]
    fn blobs_look_as_documented() {
        let p256 = encoding::ec_spki(Algorithm::P256, &[&[4][..], &[7; 64]].concat()).unwrap();
        assert_eq!(blob(&p256).unwrap()[..8], *b"ECS1\x20\0\0\0");
        let rsa = encoding::rsa_spki(&[0xff; 256], &[1, 0, 1]).unwrap();
        let expected = b"RSA1\0\x08\0\0\x03\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\x01\0\x01\xff";
        assert_eq!(blob(&rsa).unwrap()[..expected.len()], *expected);
        assert!(spki(b"ECK1\x20\0\0\0").is_err(), "for key agreement");
    }
}
