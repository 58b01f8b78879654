//! What every backend asks of an input before it signs, and hashing for hardware that wants a digest.

use std::borrow::Cow;

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};

use crate::{Error, Hash, Input, KeyInfo, Result, Scheme};

/// Refuses a scheme of another key type, and a digest that is not of the scheme's hash.
pub(crate) fn check(key: &KeyInfo, scheme: Scheme, input: Input<'_>) -> Result<()> {
    let unsupported = |reason: String| {
        Err(Error::Unsupported { key: key.uri.to_string(), operation: "sign with".into(), reason })
    };
    if scheme.algorithm() != key.algorithm {
        return unsupported(format!("{scheme} does not fit a {} key", key.algorithm));
    }
    match (input, scheme.hash()) {
        (Input::Digest(_), None) => unsupported(format!("{scheme} signs messages, not digests")),
        (Input::Digest(digest), Some(hash)) if digest.len() != hash.length() => {
            let (right, wrong) = (hash.length(), digest.len());
            unsupported(format!("{scheme} takes a digest of {right} bytes, not {wrong}"))
        }
        _ => Ok(()),
    }
}

/// The digest of the input: it, or that of the message.
pub(crate) fn digest(hash: Hash, input: Input<'_>) -> Cow<'_, [u8]> {
    match input {
        Input::Message(message) => digest::digest(aws_hash(hash), message).as_ref().to_vec().into(),
        Input::Digest(digest) => digest.into(),
    }
}

/// The hash as aws-lc-rs names it.
pub(crate) fn aws_hash(hash: Hash) -> &'static digest::Algorithm {
    match hash {
        Hash::Sha256 => &SHA256,
        Hash::Sha384 => &SHA384,
        Hash::Sha512 => &SHA512,
    }
}
