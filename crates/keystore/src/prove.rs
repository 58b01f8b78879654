//! Finding out what a key can do by making it do it (invariant 2).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{Algorithm, Capabilities, Error, Input, Key, Result, Scheme, SignContext, verify};

/// What came of trying one scheme.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The scheme that was tried.
    pub scheme: Scheme,
    /// Whether the key made a signature that verified, or why not.
    pub outcome: std::result::Result<(), Error>,
    /// How long the signature took.
    pub elapsed: Duration,
}

/// Has `key` sign once with every scheme that its public key allows, and verifies what comes back.
/// A key that prompts does so once per scheme.
///
/// # Errors
/// [`Error::PublicKey`] if the key's SPKI cannot be read. What the key refused is in the proofs.
pub fn prove(key: &dyn Key, ctx: &SignContext) -> Result<Vec<Proof>> {
    let info = key.info();
    let schemes = Algorithm::of_spki(&info.spki)?.schemes();
    Ok(schemes
        .iter()
        .map(|&scheme| {
            let message = format!("Enclasp proof that {} can sign with {scheme}", info.uri);
            let input = Input::Message(message.as_bytes());
            let started = Instant::now();
            let signature = key.sign(scheme, input, ctx);
            let elapsed = started.elapsed();
            let outcome = signature.and_then(|signature| {
                verify(&info.spki, scheme, input, signature.as_ref())
                    .map_err(|_| Error::WrongSignature { key: info.uri.to_string(), scheme })
            });
            Proof { scheme, outcome, elapsed }
        })
        .collect())
}

/// What a key that signs freely can do. A keystore may lack some schemes; a key that can do none is
/// refused with what it answered first.
///
/// # Errors
/// As [`prove`], and the key's own.
pub fn capabilities(key: &dyn Key) -> Result<Capabilities> {
    let mut refused = None;
    let mut proved = std::collections::BTreeSet::new();
    for proof in prove(key, &SignContext::new(format!("proof of what `{}` can do", key.info().uri)))? {
        match proof.outcome {
            Ok(()) => _ = proved.insert(proof.scheme),
            Err(error) => _ = refused.get_or_insert(error),
        }
    }
    match refused {
        Some(error) if proved.is_empty() => Err(error),
        _ => Ok(Capabilities { proved }),
    }
}
