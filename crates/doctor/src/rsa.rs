//! What an RSA signature holds: the public-key operation, and the paddings of PKCS #1 (RFC 8017).

use num_bigint::BigUint;

use crate::hash::Hash;
use crate::wire::Reader;

/// No larger modulus is worked with, and no larger exponent: it would take too long.
const MAX_MODULUS: usize = 1024;
const MAX_EXPONENT: usize = 8;

/// What the private-key operation that made `signature` was given, as long as the modulus (RFC 8017 §5.2.2).
/// The numbers are big-endian, without leading zeros. `None` if the signature is not of that size.
pub(crate) fn recover(modulus: &[u8], exponent: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != modulus.len() || modulus.len() > MAX_MODULUS || exponent.len() > MAX_EXPONENT {
        return None;
    }
    let [modulus_number, exponent, signature] = [modulus, exponent, signature].map(BigUint::from_bytes_be);
    if signature >= modulus_number {
        return None;
    }
    let recovered = signature.modpow(&exponent, &modulus_number).to_bytes_be();
    let mut padded = vec![0; modulus.len().checked_sub(recovered.len())?];
    padded.extend_from_slice(&recovered);
    Some(padded)
}

/// What is inside the padding of PKCS #1 v1.5 for signatures (RFC 8017 §9.2). `None` without that padding.
pub(crate) fn pkcs1_content(recovered: &[u8]) -> Option<&[u8]> {
    let rest = recovered.strip_prefix(&[0, 1])?;
    let padding = rest.iter().take_while(|byte| **byte == 0xff).count();
    match rest.get(padding..) {
        Some([0, content @ ..]) if padding >= 8 => Some(content),
        _ => None,
    }
}

/// The hash and the digest of a DER `DigestInfo` (RFC 8017 appendix A.2.4).
pub(crate) fn digest_info(bytes: &[u8]) -> Option<(Hash, &[u8])> {
    let mut reader = Reader::new(bytes);
    let mut info = Reader::new(element(&mut reader, 0x30)?);
    let mut algorithm = Reader::new(element(&mut info, 0x30)?);
    let hash = Hash::of_oid(element(&mut algorithm, 6)?)?;
    let digest = element(&mut info, 4)?;
    let fits = hash.length() == 0 || digest.len() == hash.length();
    (reader.is_empty() && fits).then_some((hash, digest))
}

/// The content of a DER element with that tag, of up to 255 bytes.
pub(crate) fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    if reader.u8()? != tag {
        return None;
    }
    match reader.u8()? {
        length @ ..=0x7f => reader.take(length.into()),
        0x81 => reader.vec8(),
        _ => None,
    }
}
