//! Hashing for keys that sign digests.

use std::borrow::Cow;

use sha2::{Digest, Sha256, Sha384, Sha512};

#[cfg(any(feature = "pkcs11", windows))]
use crate::{Algorithm, Scheme};
use crate::{Hash, Input};

/// The digest of the input: it, or that of the message.
pub(crate) fn digest(hash: Hash, input: Input<'_>) -> Cow<'_, [u8]> {
    match input {
        Input::Message(message) => match hash {
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha384 => Sha384::digest(message).to_vec(),
            Hash::Sha512 => Sha512::digest(message).to_vec(),
        }
        .into(),
        Input::Digest(digest) => digest.into(),
    }
}

/// What the bare primitive of `scheme` takes: the digest, and for ECDSA its leftmost bits, as many as
/// the curve's order has (SEC 1 §4.1.3 step 5). Not all hardware does that itself.
#[cfg(any(feature = "pkcs11", windows))]
pub(crate) fn primitive(scheme: Scheme, hash: Hash, input: Input<'_>) -> Vec<u8> {
    let mut digest = digest(hash, input).into_owned();
    match scheme.algorithm() {
        Algorithm::P256 => digest.truncate(32),
        Algorithm::P384 => digest.truncate(48),
        Algorithm::Ed25519 | Algorithm::Rsa => {}
    }
    digest
}

/// The hash as aws-lc-rs names it.
#[cfg(feature = "aws-lc")]
pub(crate) fn aws(hash: Hash) -> &'static aws_lc_rs::digest::Algorithm {
    use aws_lc_rs::digest;
    match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    }
}
