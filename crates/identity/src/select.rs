//! Which identity to use when several fit, and why.

use std::time::SystemTime;

use enclasp_pki::{Certificate, DistinguishedName, Purpose, rfc3339};

use crate::{Identity, Result};

/// What an identity has to be good for.
#[derive(Clone, Debug)]
pub struct Criteria {
    /// What its certificate is wanted for.
    pub purpose: Purpose,
    /// Issuers that the peer accepts, anywhere in the chain. Empty: any.
    pub issuers: Vec<DistinguishedName>,
    /// The time at which the certificate has to be valid.
    pub now: SystemTime,
}

/// One identity, and what speaks for or against it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The name of the identity.
    pub name: String,
    /// When its certificate expires, if it fits; why it does not, if not.
    pub verdict: std::result::Result<SystemTime, String>,
}

/// What was chosen, and from what.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The identity to use: of those that fit, the one that expires last.
    pub chosen: Option<Identity>,
    /// All that were looked at, in the order given.
    pub candidates: Vec<Candidate>,
}

impl Selection {
    /// The reasons, one line for each identity.
    pub fn explain(&self) -> Vec<String> {
        let chosen = self.chosen.as_ref().map(|identity| identity.name.as_str());
        let line = |candidate: &Candidate| match &candidate.verdict {
            Ok(expiry) if chosen == Some(&candidate.name) => {
                format!("`{}` is used: it fits, until {}", candidate.name, rfc3339(*expiry))
            }
            Ok(expiry) => {
                format!("`{}` would fit too, but expires earlier, {}", candidate.name, rfc3339(*expiry))
            }
            Err(reason) => format!("`{}` does not fit: {reason}", candidate.name),
        };
        self.candidates.iter().map(line).collect()
    }
}

/// Selects among `identities` by usage, issuer and expiry.
///
/// # Errors
/// None of its own: an identity whose certificate cannot be read does not fit.
pub fn select(identities: &[Identity], criteria: &Criteria) -> Selection {
    let mut chosen: Option<(SystemTime, &Identity)> = None;
    let mut candidates = Vec::new();
    for identity in identities {
        let verdict = judge(identity, criteria).unwrap_or_else(|e| Err(e.to_string()));
        if let Ok(expiry) = verdict
            && chosen.is_none_or(|(best, _)| expiry > best)
        {
            chosen = Some((expiry, identity));
        }
        candidates.push(Candidate { name: identity.name.clone(), verdict });
    }
    Selection { chosen: chosen.map(|(_, identity)| identity.clone()), candidates }
}

fn judge(identity: &Identity, criteria: &Criteria) -> Result<std::result::Result<SystemTime, String>> {
    let leaf = identity.leaf()?;
    if criteria.now < leaf.not_before() {
        return Ok(Err(format!("it is not valid before {}", rfc3339(leaf.not_before()))));
    }
    if criteria.now > leaf.not_after() {
        return Ok(Err(format!("it expired at {}", rfc3339(leaf.not_after()))));
    }
    if !leaf.is_for(criteria.purpose) {
        return Ok(Err(format!(
            "it is for {}, not for {}",
            leaf.extended_key_usages().join(" "),
            criteria.purpose
        )));
    }
    if criteria.issuers.is_empty() {
        return Ok(Ok(leaf.not_after()));
    }
    for certificate in &identity.chain {
        if criteria.issuers.contains(Certificate::from_der(certificate)?.issuer()) {
            return Ok(Ok(leaf.not_after()));
        }
    }
    Ok(Err(format!("its issuer, {}, is not among those accepted", leaf.issuer())))
}
