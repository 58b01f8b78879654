//! Signatures on requests and certificates: how their algorithms are named, made and checked.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ID_MGF_1, ID_RSASSA_PSS, ID_SHA_256, ID_SHA_384, ID_SHA_512,
    MD_2_WITH_RSA_ENCRYPTION, MD_5_WITH_RSA_ENCRYPTION, SHA_1_WITH_RSA_ENCRYPTION,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use const_oid::db::rfc8410::ID_ED_25519;
use der::Sequence;
use der::asn1::Any;
use enclasp_keystore::{Algorithm, Hash, Input, Key, Scheme, SignContext, Verification, verify};
use spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

use crate::encoding::{Signed, encoded, in_field};
use crate::public_key::{algorithm_of, describe};
use crate::{Error, Result};

const WHAT: &str = "signature algorithm";

/// ecdsa-with-SHA1 (RFC 3279 §2.2.3).
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// Checks that `signed` was signed by the private key of `spki`.
pub(crate) fn check(what: &'static str, signed: &Signed<'_>, spki: &[u8]) -> Result<()> {
    let key = algorithm_of(spki)?;
    let scheme = scheme_of(what, signed.algorithm, key)?;
    verify(spki, scheme, Input::Message(signed.content), signed.signature).map_err(|_| Error::Signature {
        what,
        reason: format!("it does not verify as {} with its {key} key", describe(signed.algorithm.oid)),
    })
}

/// The scheme that `key` signs certificates and requests with: the natural one of its type if it
/// may be used, or else the first that may.
pub(crate) fn scheme_for(key: &dyn Key) -> Result<Scheme> {
    let info = key.info();
    info.usable_schemes().first().copied().ok_or_else(|| {
        Error::Key(enclasp_keystore::Error::Unsupported {
            key: info.uri.to_string(),
            operation: "sign with".into(),
            reason: "it was not proved to make any signature that its public key allows".into(),
        })
    })
}

/// Signs what is neither a request nor a certificate, with the natural scheme of the key's type. The
/// signature has been verified; ECDSA's is in DER.
///
/// # Errors
/// [`Error::Key`] if the key refuses, or signs wrongly.
pub fn sign_message(key: &dyn Key, message: &[u8], ctx: &SignContext) -> Result<(Scheme, Vec<u8>)> {
    let scheme = scheme_for(key)?;
    Ok((scheme, sign(key, scheme, message, ctx)?))
}

/// A signature over `message` that is known to verify.
pub(crate) fn sign(key: &dyn Key, scheme: Scheme, message: &[u8], ctx: &SignContext) -> Result<Vec<u8>> {
    let info = key.info();
    let signature = key.sign(scheme, Input::Message(message), ctx)?;
    if key.verification() == Verification::Needed {
        verify(&info.spki, scheme, Input::Message(message), signature.as_ref())
            .map_err(|_| enclasp_keystore::Error::WrongSignature { key: info.uri.to_string(), scheme })?;
    }
    Ok(signature.into_bytes())
}

/// How X.509 names `scheme` (RFC 5758 §3.2, RFC 8410 §3, RFC 4055 §3 and §5).
pub(crate) fn algorithm_identifier(scheme: Scheme) -> Result<AlgorithmIdentifierOwned> {
    let plain = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
    let with_null = |oid| AlgorithmIdentifierOwned { oid, parameters: Some(Any::null()) };
    Ok(match scheme {
        Scheme::EcdsaP256Sha256 | Scheme::EcdsaP384Sha256 => plain(ECDSA_WITH_SHA_256),
        Scheme::EcdsaP384Sha384 | Scheme::EcdsaP256Sha384 => plain(ECDSA_WITH_SHA_384),
        Scheme::Ed25519 => plain(ID_ED_25519),
        Scheme::RsaPkcs1Sha256 => with_null(SHA_256_WITH_RSA_ENCRYPTION),
        Scheme::RsaPkcs1Sha384 => with_null(SHA_384_WITH_RSA_ENCRYPTION),
        Scheme::RsaPkcs1Sha512 => with_null(SHA_512_WITH_RSA_ENCRYPTION),
        Scheme::RsaPssSha256 => pss_identifier(ID_SHA_256, Hash::Sha256)?,
        Scheme::RsaPssSha384 => pss_identifier(ID_SHA_384, Hash::Sha384)?,
        Scheme::RsaPssSha512 => pss_identifier(ID_SHA_512, Hash::Sha512)?,
        other => {
            return Err(Error::Unsupported { what: WHAT, reason: format!("{other} is not used in X.509") });
        }
    })
}

/// The scheme that `algorithm` means for a key of type `key`.
fn scheme_of(what: &'static str, algorithm: AlgorithmIdentifierRef<'_>, key: Algorithm) -> Result<Scheme> {
    let scheme = match (algorithm.oid, key) {
        (ECDSA_WITH_SHA_256, Algorithm::P384) => Scheme::EcdsaP384Sha256,
        (ECDSA_WITH_SHA_256, _) => Scheme::EcdsaP256Sha256,
        (ECDSA_WITH_SHA_384, Algorithm::P256) => Scheme::EcdsaP256Sha384,
        (ECDSA_WITH_SHA_384, _) => Scheme::EcdsaP384Sha384,
        (ID_ED_25519, _) => Scheme::Ed25519,
        (SHA_256_WITH_RSA_ENCRYPTION, _) => Scheme::RsaPkcs1Sha256,
        (SHA_384_WITH_RSA_ENCRYPTION, _) => Scheme::RsaPkcs1Sha384,
        (SHA_512_WITH_RSA_ENCRYPTION, _) => Scheme::RsaPkcs1Sha512,
        (ID_RSASSA_PSS, _) => pss_scheme(algorithm)?,
        (
            weak @ (ECDSA_WITH_SHA_1
            | SHA_1_WITH_RSA_ENCRYPTION
            | MD_5_WITH_RSA_ENCRYPTION
            | MD_2_WITH_RSA_ENCRYPTION),
            _,
        ) => return Err(Error::Weak { what: WHAT, reason: format!("it is {}", describe(weak)) }),
        (other, _) => {
            return Err(Error::Unsupported { what: WHAT, reason: format!("it is {}", describe(other)) });
        }
    };
    if scheme.algorithm() == key {
        Ok(scheme)
    } else {
        let claimed = describe(algorithm.oid);
        Err(Error::Signature { what, reason: format!("it claims to be {claimed}, but the key is {key}") })
    }
}

/// RSASSA-PSS-params (RFC 4055 §3.1).
#[derive(Sequence)]
struct PssParameters<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask_generation: Option<MaskGeneration<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt_length: Option<u16>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u8>,
}

/// MaskGenAlgorithm: MGF1 with a hash.
#[derive(Sequence)]
struct MaskGeneration<'a> {
    algorithm: ObjectIdentifier,
    hash: AlgorithmIdentifierRef<'a>,
}

fn pss_identifier(hash_oid: ObjectIdentifier, hash: Hash) -> Result<AlgorithmIdentifierOwned> {
    let hash_identifier = AlgorithmIdentifierRef { oid: hash_oid, parameters: Some(der::asn1::AnyRef::NULL) };
    let parameters = PssParameters {
        hash: Some(hash_identifier),
        mask_generation: Some(MaskGeneration { algorithm: ID_MGF_1, hash: hash_identifier }),
        salt_length: u16::try_from(hash.length()).ok(),
        trailer: None,
    };
    let parameters = encoded(WHAT, Any::encode_from(&parameters))?;
    Ok(AlgorithmIdentifierOwned { oid: ID_RSASSA_PSS, parameters: Some(parameters) })
}

/// The parameters must name one SHA-2 hash for everything, and a salt of its length, as TLS has it.
fn pss_scheme(algorithm: AlgorithmIdentifierRef<'_>) -> Result<Scheme> {
    let refuse =
        |reason: &str| Err(Error::Unsupported { what: WHAT, reason: format!("RSASSA-PSS {reason}") });
    let Some(parameters) = algorithm.parameters else {
        return refuse("without parameters");
    };
    let parameters: PssParameters<'_> = in_field(WHAT, "RSASSA-PSS parameters", parameters.decode_as())?;
    let Some(hash) = parameters.hash.map(|hash| hash.oid) else {
        return Err(Error::Weak { what: WHAT, reason: "it is RSASSA-PSS with SHA-1".into() });
    };
    let (scheme, length) = match hash {
        ID_SHA_256 => (Scheme::RsaPssSha256, 32),
        ID_SHA_384 => (Scheme::RsaPssSha384, 48),
        ID_SHA_512 => (Scheme::RsaPssSha512, 64),
        _ => return refuse(&format!("with the hash {}", describe(hash))),
    };
    let same_hash =
        parameters.mask_generation.is_some_and(|mgf| mgf.algorithm == ID_MGF_1 && mgf.hash.oid == hash);
    if !same_hash {
        return refuse("with another hash for its mask than for its message");
    }
    if parameters.salt_length != Some(length) {
        return refuse("with a salt that is not of the length of its hash");
    }
    if parameters.trailer.is_some_and(|trailer| trailer != 1) {
        return refuse("with an unknown trailer");
    }
    Ok(scheme)
}
