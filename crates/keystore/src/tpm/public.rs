//! Public areas: the templates that keys are made from, and what a TPM's public key means elsewhere.

use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, Public, PublicEccParameters, PublicKeyRsa,
    PublicRsaParameters, RsaExponent, RsaScheme, Signature, SignatureScheme, SymmetricDefinitionObject,
};

use crate::{Algorithm, Error, Hash, Origin, Result, Scheme, encoding};

/// The exponent that a public area means by zero (TPM 2.0 part 2, TPMS_RSA_PARMS).
const DEFAULT_EXPONENT: u32 = 65537;

/// The longest PIN of a key made here in bytes: the digest of its name algorithm, SHA-256.
pub(super) const MAX_PIN: usize = 32;

/// The storage root key: an ECC P-256 storage key from the template of the TCG's provisioning
/// guidance, which is the parent that "TPM 2.0 Key Files" means by a hierarchy's handle.
pub(super) fn storage_root() -> tss_esapi::Result<Public> {
    let attributes = fixed()
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()?;
    ecc(attributes, SymmetricDefinitionObject::AES_128_CFB, EccCurve::NistP256)
}

/// Whether `public` is a storage root key of that template, whatever its point.
pub(super) fn is_storage_root(public: &Public) -> bool {
    let Ok(Public::Ecc { object_attributes, name_hashing_algorithm, auth_policy, parameters, .. }) =
        storage_root()
    else {
        return false;
    };
    let Public::Ecc { unique, .. } = public else { return false };
    let unique = unique.clone();
    *public == Public::Ecc { object_attributes, name_hashing_algorithm, auth_policy, parameters, unique }
}

/// A signing key of no fixed scheme, that cannot leave its TPM. With a PIN, guesses are counted by
/// the TPM's protection against dictionary attacks. `None` if TPMs have no keys of that type.
pub(super) fn signing_key(algorithm: Algorithm, pin: bool) -> tss_esapi::Result<Option<Public>> {
    let attributes = fixed().with_user_with_auth(true).with_no_da(!pin).with_sign_encrypt(true).build()?;
    match algorithm {
        Algorithm::P256 => ecc(attributes, SymmetricDefinitionObject::Null, EccCurve::NistP256).map(Some),
        Algorithm::P384 => ecc(attributes, SymmetricDefinitionObject::Null, EccCurve::NistP384).map(Some),
        Algorithm::Rsa => rsa_2048(attributes).map(Some),
        _ => Ok(None),
    }
}

/// The DER SubjectPublicKeyInfo.
///
/// # Errors
/// [`Error::PublicKey`] if it is of a type that we do not sign with.
pub(super) fn spki(public: &Public) -> Result<Vec<u8>> {
    let unsupported = |what: String| Error::PublicKey { reason: format!("{what} is not supported") };
    match public {
        Public::Ecc { parameters, unique, .. } => {
            let (algorithm, size) = match parameters.ecc_curve() {
                EccCurve::NistP256 => (Algorithm::P256, 32),
                EccCurve::NistP384 => (Algorithm::P384, 48),
                other => return Err(unsupported(format!("the curve {other:?}"))),
            };
            let mut point = vec![4];
            for coordinate in [unique.x().value(), unique.y().value()] {
                let padding = size - coordinate.len().min(size);
                point.resize(point.len() + padding, 0);
                point.extend_from_slice(coordinate);
            }
            encoding::ec_spki(algorithm, &point)
        }
        Public::Rsa { parameters, unique, .. } => {
            let exponent = match parameters.exponent().value() {
                0 => DEFAULT_EXPONENT,
                other => other,
            };
            encoding::rsa_spki(unique.value(), &exponent.to_be_bytes())
        }
        _ => Err(unsupported("a symmetric key".into())),
    }
}

/// Why a key of this public area cannot be used here, if it cannot.
pub(super) fn objection(public: &Public) -> Option<&'static str> {
    let attributes = public.object_attributes();
    if !attributes.sign_encrypt() {
        Some("it is not a signing key")
    } else if attributes.restricted() {
        Some("it is restricted to what the TPM itself attests")
    } else if !attributes.user_with_auth() {
        Some("it is used by a policy, not by an auth value")
    } else {
        None
    }
}

/// Where its private key was born: one that can be moved, or came from outside, may have copies.
pub(super) fn origin(public: &Public) -> Origin {
    let attributes = public.object_attributes();
    if attributes.fixed_tpm() && attributes.fixed_parent() && attributes.sensitive_data_origin() {
        Origin::Generated
    } else {
        Origin::Imported
    }
}

/// The scheme in the TPM's terms, with its hash. `None` for Ed25519, which TPMs do not have.
pub(super) fn signature_scheme(scheme: Scheme) -> Option<(SignatureScheme, Hash)> {
    let hash = scheme.hash()?;
    let hash_scheme = HashScheme::new(match hash {
        Hash::Sha256 => HashingAlgorithm::Sha256,
        Hash::Sha384 => HashingAlgorithm::Sha384,
        Hash::Sha512 => HashingAlgorithm::Sha512,
    });
    let scheme = match scheme {
        Scheme::RsaPssSha256 | Scheme::RsaPssSha384 | Scheme::RsaPssSha512 => {
            SignatureScheme::RsaPss { hash_scheme }
        }
        Scheme::RsaPkcs1Sha256 | Scheme::RsaPkcs1Sha384 | Scheme::RsaPkcs1Sha512 => {
            SignatureScheme::RsaSsa { hash_scheme }
        }
        _ => SignatureScheme::EcDsa { hash_scheme },
    };
    Some((scheme, hash))
}

/// The signature in the encoding of TLS. `None` if it is none that can verify.
pub(super) fn encoded(signature: &Signature) -> Option<Vec<u8>> {
    match signature {
        Signature::EcDsa(numbers) => {
            encoding::ecdsa_der(numbers.signature_r().value(), numbers.signature_s().value())
        }
        Signature::RsaPss(signature) | Signature::RsaSsa(signature) => {
            Some(signature.signature().value().to_vec())
        }
        _ => None,
    }
}

fn fixed() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
}

fn ecc(
    attributes: ObjectAttributes,
    symmetric: SymmetricDefinitionObject,
    curve: EccCurve,
) -> tss_esapi::Result<Public> {
    Public::builder()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            symmetric,
            EccScheme::Null,
            curve,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn rsa_2048(attributes: ObjectAttributes) -> tss_esapi::Result<Public> {
    Public::builder()
        .with_public_algorithm(PublicAlgorithm::Rsa)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_rsa_parameters(PublicRsaParameters::new(
            SymmetricDefinitionObject::Null,
            RsaScheme::Null,
            RsaKeyBits::Rsa2048,
            RsaExponent::default(),
        ))
        .with_rsa_unique_identifier(PublicKeyRsa::default())
        .build()
}
