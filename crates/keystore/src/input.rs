//! What every backend asks of an input before it signs.

use crate::{Error, Input, KeyInfo, Result, Scheme};

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
