//! Taking in a certificate: which key it is for, and whether its chain is good.

use std::time::SystemTime;

use enclasp_keystore::KeyInfo;
use enclasp_pki::{Certificate, ChainError, Purpose, order_chain, rfc3339, verify_chain};

use crate::{Error, Result};

/// The key among `keys` whose public key `leaf` carries.
///
/// # Errors
/// [`Error::NoKey`], which names the key that came nearest and what sets it apart.
pub fn match_key<'a>(leaf: &Certificate, keys: &'a [KeyInfo]) -> Result<&'a KeyInfo> {
    keys.iter()
        .find(|key| key.spki == leaf.spki())
        .ok_or_else(|| Error::NoKey { certificate: leaf.describe(), nearest: nearest(leaf, keys) })
}

/// A key of the same type comes nearer than another, one named like the certificate nearer still.
fn nearest(leaf: &Certificate, keys: &[KeyInfo]) -> Option<String> {
    let name = leaf.subject().common_name().unwrap_or_default();
    let algorithm = leaf.algorithm().ok();
    let rank = |key: &KeyInfo| {
        let named = !name.is_empty() && key.uri.name() == name;
        (named, algorithm == Some(key.algorithm), key.created)
    };
    let key = keys.iter().max_by_key(|key| rank(key))?;
    let (named, alike, _) = rank(key);
    let how = match (named, alike) {
        (true, true) => "has its name and type, but another public key",
        (true, false) => "has its name, but is of another type",
        (false, true) => "is of the same type, but has another public key",
        (false, false) => return None,
    };
    Some(format!("`{}`, made {}, which {how},", key.uri, rfc3339(key.created)))
}

/// What an import found out about the certificates that it was given.
pub struct Examined {
    /// Leaf first, as a peer gets it: no root, nothing that does not belong to the chain.
    pub chain: Vec<Certificate>,
    /// What is good to know, one line each.
    pub notes: Vec<String>,
    /// What will make peers refuse the certificate, one line each.
    pub warnings: Vec<String>,
}

/// Puts `certificates` in order and checks them against `roots` (none: the root is unknown) at the
/// time `now`.
///
/// # Errors
/// [`Error::NoCertificate`] if there is none, [`Error::Pki`] if one cannot be read.
pub fn examine(certificates: &[Certificate], roots: &[Certificate], now: SystemTime) -> Result<Examined> {
    let missing = || Error::NoCertificate { source_name: "what was given".into() };
    let first = certificates.iter().find(|certificate| !certificate.is_ca()).or(certificates.first());
    let leaf = first.ok_or_else(missing)?;
    let ordered = order_chain(leaf, certificates);
    let unrelated = certificates.len().saturating_sub(ordered.len());
    let is_root = |certificate: &Certificate| certificate.is_ca() && certificate.is_self_issued();
    let own_roots: Vec<Certificate> = ordered.iter().filter(|c| is_root(c)).cloned().collect();
    let chain: Vec<Certificate> =
        ordered.iter().enumerate().filter(|(i, c)| *i == 0 || !is_root(c)).map(|(_, c)| c.clone()).collect();
    let mut notes = Vec::new();
    let mut warnings = Vec::new();
    if unrelated > 0 {
        notes.push(format!("{unrelated} certificate(s) in the file do not belong to the chain"));
    }
    if certificates.first().is_some_and(|first| first != leaf) {
        notes.push("the file was not in order; the leaf is not its first certificate".to_owned());
    }
    if now < leaf.not_before() {
        warnings.push(format!("it is not valid before {}", rfc3339(leaf.not_before())));
    }
    if now > leaf.not_after() {
        warnings.push(format!("it expired at {}", rfc3339(leaf.not_after())));
    }
    let trusted = if roots.is_empty() { &own_roots[..] } else { roots };
    match trusted {
        [] => {
            let last = chain.last().unwrap_or(leaf);
            notes.push(format!(
                "its chain ends with a certificate issued by {}, which was not given: the chain cannot be checked",
                last.issuer()
            ));
        }
        roots => {
            let verified: Vec<_> = [Purpose::Client, Purpose::Server]
                .into_iter()
                .map(|purpose| verify_chain(leaf, &chain[1..], roots, now, purpose))
                .collect();
            match &verified[..] {
                [Ok(()), Ok(())] => notes.push("its chain is good, for clients and servers".into()),
                [Ok(()), _] => notes.push("its chain is good, for clients".into()),
                [_, Ok(())] => notes.push("its chain is good, for servers only".into()),
                // That the leaf has expired is said already.
                [Err(ChainError::Expired { .. } | ChainError::NotYetValid { .. }), _]
                    if !warnings.is_empty() => {}
                [Err(e), _] => warnings.push(e.to_string()),
                _ => {}
            }
        }
    }
    Ok(Examined { chain, notes, warnings })
}
