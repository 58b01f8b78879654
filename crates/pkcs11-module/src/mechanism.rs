//! Which mechanisms a key has, and signing with them.

use std::mem::{offset_of, size_of};

use cryptoki_sys::*;
use enclasp_keystore::encoding::{digest_info, ecdsa_pair_of_der};
use enclasp_keystore::{Algorithm, Hash, Input, Key, Scheme, SignContext};

use crate::failure;
use crate::object::SigningKey;

/// The mechanisms that a key with these schemes has: each is backed by at least one of them.
pub(crate) fn of_schemes(schemes: &[Scheme]) -> Vec<CK_MECHANISM_TYPE> {
    let mut mechanisms = Vec::new();
    for scheme in schemes {
        let of_scheme: &[CK_MECHANISM_TYPE] = match scheme {
            // The bare primitive is what the natural scheme of the curve proves.
            Scheme::EcdsaP256Sha256 => &[CKM_ECDSA, CKM_ECDSA_SHA256],
            Scheme::EcdsaP384Sha384 => &[CKM_ECDSA, CKM_ECDSA_SHA384],
            Scheme::EcdsaP256Sha384 => &[CKM_ECDSA_SHA384],
            Scheme::EcdsaP384Sha256 => &[CKM_ECDSA_SHA256],
            Scheme::Ed25519 => &[CKM_EDDSA],
            Scheme::RsaPkcs1Sha256 | Scheme::RsaPkcs1Sha384 | Scheme::RsaPkcs1Sha512 => &[CKM_RSA_PKCS],
            Scheme::RsaPssSha256 | Scheme::RsaPssSha384 | Scheme::RsaPssSha512 => &[CKM_RSA_PKCS_PSS],
            _ => &[],
        };
        mechanisms.extend(of_scheme);
    }
    mechanisms.sort_unstable();
    mechanisms.dedup();
    mechanisms
}

/// What is said of a mechanism: sizes in bits.
pub(crate) fn info(mechanism: CK_MECHANISM_TYPE) -> CK_MECHANISM_INFO {
    let (min, max, more) = match mechanism {
        CKM_RSA_PKCS | CKM_RSA_PKCS_PSS => (2048, 8192, 0),
        CKM_EDDSA => (255, 255, 0),
        _ => (256, 384, CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS),
    };
    CK_MECHANISM_INFO { ulMinKeySize: min, ulMaxKeySize: max, flags: CKF_SIGN | more }
}

/// What a `C_SignInit` began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Signs a message.
    Message(Scheme),
    /// Signs a digest by the ECDSA primitive.
    Ecdsa,
    /// Signs a `DigestInfo`, which says the hash.
    Pkcs1,
    /// Signs a digest by RSASSA-PSS.
    Pss(Scheme),
}

impl Operation {
    /// Begins to sign with `mechanism`, whose parameter is in the bytes of its C structure.
    pub(crate) fn begin(
        key: &SigningKey,
        mechanism: CK_MECHANISM_TYPE,
        parameter: &[u8],
    ) -> Result<Self, CK_RV> {
        if !of_schemes(&key.schemes).contains(&mechanism) {
            return Err(CKR_MECHANISM_INVALID);
        }
        let is_plain = match mechanism {
            CKM_RSA_PKCS_PSS => true,
            CKM_EDDSA => parameter.is_empty() || is_pure_eddsa(parameter),
            _ => parameter.is_empty(),
        };
        if !is_plain {
            return Err(CKR_MECHANISM_PARAM_INVALID);
        }
        let message = |wanted: Hash| {
            let scheme = key.schemes.iter().find(|scheme| scheme.hash() == Some(wanted));
            scheme.map(|scheme| Self::Message(*scheme)).ok_or(CKR_MECHANISM_INVALID)
        };
        match mechanism {
            CKM_ECDSA => Ok(Self::Ecdsa),
            CKM_ECDSA_SHA256 => message(Hash::Sha256),
            CKM_ECDSA_SHA384 => message(Hash::Sha384),
            CKM_EDDSA => Ok(Self::Message(Scheme::Ed25519)),
            CKM_RSA_PKCS => Ok(Self::Pkcs1),
            _ => {
                let scheme = pss_scheme(parameter).ok_or(CKR_MECHANISM_PARAM_INVALID)?;
                key.schemes.contains(&scheme).then_some(Self::Pss(scheme)).ok_or(CKR_MECHANISM_PARAM_INVALID)
            }
        }
    }

    /// Signs. The result is in the encoding of PKCS#11: for ECDSA `r ‖ s`.
    pub(crate) fn sign(
        self,
        key: &SigningKey,
        with: &dyn Key,
        data: &[u8],
        ctx: &SignContext,
    ) -> Result<Vec<u8>, CK_RV> {
        let adapted;
        let (scheme, input) = match self {
            Self::Message(scheme) => (scheme, Input::Message(data)),
            Self::Ecdsa => {
                adapted = bits_to_integer(data, key.algorithm).ok_or(CKR_DATA_LEN_RANGE)?;
                (key.algorithm.natural_scheme(), Input::Digest(&adapted))
            }
            Self::Pkcs1 => {
                let (scheme, digest) = pkcs1(data).ok_or(CKR_DATA_INVALID)?;
                if !key.schemes.contains(&scheme) {
                    return Err(CKR_DATA_INVALID);
                }
                (scheme, Input::Digest(digest))
            }
            Self::Pss(scheme) => {
                if scheme.hash().map(Hash::length) != Some(data.len()) {
                    return Err(CKR_DATA_LEN_RANGE);
                }
                (scheme, Input::Digest(data))
            }
        };
        let signature =
            with.sign(scheme, input, ctx).map_err(|error| failure::code("C_Sign", &error))?.into_bytes();
        match key.algorithm {
            Algorithm::P256 | Algorithm::P384 => {
                ecdsa_pair_of_der(&signature, key.signature_length / 2).ok_or(CKR_DEVICE_ERROR)
            }
            _ => Ok(signature),
        }
    }
}

/// The digest in as many bytes as the curve's order has: its leftmost bits are what ECDSA signs (SEC
/// 1 §4.1.3 step 5), and a shorter one is the same number with zeros before it. Only digests of the
/// hashes that we know.
fn bits_to_integer(digest: &[u8], algorithm: Algorithm) -> Option<Vec<u8>> {
    let width = algorithm.natural_scheme().hash()?.length();
    let known = [Hash::Sha256, Hash::Sha384, Hash::Sha512].iter().any(|hash| hash.length() == digest.len());
    let mut integer = vec![0; width.saturating_sub(digest.len())];
    integer.extend(digest.iter().take(width));
    known.then_some(integer)
}

/// The scheme and the digest of a DER `DigestInfo`, which is compared as a whole: there is one right
/// encoding, and what is signed is what stands there.
fn pkcs1(data: &[u8]) -> Option<(Scheme, &[u8])> {
    use Scheme::*;
    [RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512].into_iter().find_map(|scheme| {
        let hash = scheme.hash()?;
        let digest = data.get(data.len().checked_sub(hash.length())?..)?;
        (digest_info(hash, digest).ok()? == data).then_some((scheme, digest))
    })
}

/// The scheme that a `CK_RSA_PKCS_PSS_PARAMS` describes, if TLS has it: MGF1 with the same hash and
/// a salt of its length (RFC 8446 §4.2.3).
fn pss_scheme(parameter: &[u8]) -> Option<Scheme> {
    const WIDTH: usize = size_of::<CK_ULONG>();
    if parameter.len() != size_of::<CK_RSA_PKCS_PSS_PARAMS>() {
        return None;
    }
    let field = |offset: usize| ulong(parameter.get(offset..offset + WIDTH)?);
    let said = (
        field(offset_of!(CK_RSA_PKCS_PSS_PARAMS, hashAlg))?,
        field(offset_of!(CK_RSA_PKCS_PSS_PARAMS, mgf))?,
        field(offset_of!(CK_RSA_PKCS_PSS_PARAMS, sLen))?,
    );
    match said {
        (CKM_SHA256, CKG_MGF1_SHA256, 32) => Some(Scheme::RsaPssSha256),
        (CKM_SHA384, CKG_MGF1_SHA384, 48) => Some(Scheme::RsaPssSha384),
        (CKM_SHA512, CKG_MGF1_SHA512, 64) => Some(Scheme::RsaPssSha512),
        _ => None,
    }
}

/// Whether a `CK_EDDSA_PARAMS` asks for Ed25519 itself: neither prehashed nor with a context.
fn is_pure_eddsa(parameter: &[u8]) -> bool {
    let context = offset_of!(CK_EDDSA_PARAMS, ulContextDataLen);
    parameter.len() == size_of::<CK_EDDSA_PARAMS>()
        && parameter[offset_of!(CK_EDDSA_PARAMS, phFlag)] == CK_FALSE
        && ulong(&parameter[context..context + size_of::<CK_ULONG>()]) == Some(0)
}

fn ulong(bytes: &[u8]) -> Option<CK_ULONG> {
    Some(CK_ULONG::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_proved_is_listed() {
        assert!(of_schemes(&[]).is_empty());
        assert_eq!(of_schemes(&[Scheme::EcdsaP256Sha384]), [CKM_ECDSA_SHA384]);
        assert_eq!(of_schemes(Algorithm::P384.schemes()), [CKM_ECDSA, CKM_ECDSA_SHA256, CKM_ECDSA_SHA384]);
        assert_eq!(of_schemes(&[Scheme::RsaPssSha512]), [CKM_RSA_PKCS_PSS]);
    }

    #[test]
    fn digests_are_the_integers_of_ecdsa() {
        let p256 = |digest: &[u8]| bits_to_integer(digest, Algorithm::P256);
        assert_eq!(p256(&[7; 32]), Some(vec![7; 32]));
        assert_eq!(p256(&[7; 64]), Some(vec![7; 32]));
        for unknown in [0, 20, 31, 33, 65] {
            assert_eq!(p256(&vec![7; unknown]), None, "{unknown}");
        }
        let padded = bits_to_integer(&[7; 32], Algorithm::P384);
        assert_eq!(padded, Some([[0; 16].as_slice(), &[7; 32]].concat()));
    }

    #[test]
    fn a_digest_info_has_one_encoding() {
        let good = digest_info(Hash::Sha384, &[9; 48]).unwrap();
        assert_eq!(pkcs1(&good), Some((Scheme::RsaPkcs1Sha384, &[9; 48][..])));
        for position in 0..good.len() - 48 {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert_eq!(pkcs1(&bad), None, "{position}");
        }
        assert_eq!(pkcs1(&good[1..]), None);
        assert_eq!(pkcs1(&[&good[..], &[0]].concat()), None);
        // What TLS 1.1 signs: MD5 and SHA-1, bare.
        assert_eq!(pkcs1(&[5; 36]), None);
        assert_eq!(pkcs1(&[]), None);
    }

    #[test]
    fn pss_is_that_of_tls() {
        let parameter = |hash: CK_ULONG, mgf: CK_ULONG, salt: CK_ULONG| {
            [hash, mgf, salt].map(CK_ULONG::to_ne_bytes).concat()
        };
        let good = parameter(CKM_SHA256, CKG_MGF1_SHA256, 32);
        assert_eq!(pss_scheme(&good), Some(Scheme::RsaPssSha256));
        assert_eq!(pss_scheme(&good[1..]), None);
        assert_eq!(pss_scheme(&[]), None);
        assert_eq!(pss_scheme(&parameter(CKM_SHA256, CKG_MGF1_SHA1, 32)), None);
        assert_eq!(pss_scheme(&parameter(CKM_SHA256, CKG_MGF1_SHA256, 20)), None);
        assert_eq!(pss_scheme(&parameter(CKM_SHA_1, CKG_MGF1_SHA1, 20)), None);
    }
}
