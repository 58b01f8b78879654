//! Verification of a signature against a public key: one function, whatever does the arithmetic.

use crate::{Algorithm, Error, Input, Result, Scheme};

/// Checks `signature` (in the encoding of TLS, see [`Signature`](crate::Signature)) over `input`
/// against the DER SubjectPublicKeyInfo `spki`.
///
/// # Errors
/// [`Error::PublicKey`] if the key cannot be read or is not of the scheme's type or has fewer than
/// 2048 bits (RSA), and if the signature does not verify. The text says which.
pub fn verify(spki: &[u8], scheme: Scheme, input: Input<'_>, signature: &[u8]) -> Result<()> {
    let algorithm = Algorithm::of_spki(spki)?;
    if scheme.algorithm() != algorithm {
        return Err(Error::PublicKey { reason: format!("{scheme} does not fit a key of type {algorithm}") });
    }
    backend::verify(spki, scheme, input, signature)
}

#[cfg(feature = "aws-lc")]
mod backend {
    use aws_lc_rs::digest::Digest;
    use aws_lc_rs::signature as aws;

    use crate::hashing;
    use crate::{Error, Input, Result, Scheme, encoding};

    pub(super) fn verify(spki: &[u8], scheme: Scheme, input: Input<'_>, signature: &[u8]) -> Result<()> {
        let key = aws::UnparsedPublicKey::new(algorithm(scheme), encoding::public_bits(spki)?);
        match input {
            Input::Message(message) => key.verify(message, signature),
            Input::Digest(digest) => {
                let Some(hash) = scheme.hash() else {
                    return Err(Error::PublicKey { reason: format!("{scheme} takes no digest") });
                };
                Digest::import_less_safe(digest, hashing::aws(hash))
                    .and_then(|digest| key.verify_digest(&digest, signature))
            }
        }
        .map_err(|_| Error::PublicKey {
            reason: format!("the {scheme} signature does not verify with this key"),
        })
    }

    fn algorithm(scheme: Scheme) -> &'static dyn aws::VerificationAlgorithm {
        match scheme {
            Scheme::EcdsaP256Sha256 => &aws::ECDSA_P256_SHA256_ASN1,
            Scheme::EcdsaP256Sha384 => &aws::ECDSA_P256_SHA384_ASN1,
            Scheme::EcdsaP384Sha384 => &aws::ECDSA_P384_SHA384_ASN1,
            Scheme::EcdsaP384Sha256 => &aws::ECDSA_P384_SHA256_ASN1,
            Scheme::Ed25519 => &aws::ED25519,
            Scheme::RsaPssSha256 => &aws::RSA_PSS_2048_8192_SHA256,
            Scheme::RsaPssSha384 => &aws::RSA_PSS_2048_8192_SHA384,
            Scheme::RsaPssSha512 => &aws::RSA_PSS_2048_8192_SHA512,
            Scheme::RsaPkcs1Sha256 => &aws::RSA_PKCS1_2048_8192_SHA256,
            Scheme::RsaPkcs1Sha384 => &aws::RSA_PKCS1_2048_8192_SHA384,
            Scheme::RsaPkcs1Sha512 => &aws::RSA_PKCS1_2048_8192_SHA512,
        }
    }
}

#[cfg(all(not(feature = "aws-lc"), target_vendor = "apple"))]
use crate::apple::verification as backend;
#[cfg(all(not(feature = "aws-lc"), windows))]
use crate::windows::verification as backend;

#[cfg(not(any(feature = "aws-lc", target_vendor = "apple", windows)))]
mod backend {
    use crate::{Error, Input, Result, Scheme};

    /// Without a verifier nothing can be shown to be right, so nothing is.
    pub(super) fn verify(_: &[u8], scheme: Scheme, _: Input<'_>, _: &[u8]) -> Result<()> {
        Err(Error::PublicKey {
            reason: format!("this build has no verifier for {scheme}: build with the feature `aws-lc`"),
        })
    }
}
