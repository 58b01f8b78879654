//! Chains: putting them in order, and saying why one is not to be trusted.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::instant::length;
use crate::{Certificate, Purpose, rfc3339};

/// No chain that is worth following is longer.
const MAX_DEPTH: usize = 10;

/// Why a chain does not lead from a certificate to a trusted root. Certificates are named by their
/// subjects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ChainError {
    #[error("{subject} expired {} ago, at {}", length(*.by), rfc3339(*.not_after))]
    Expired { subject: String, not_after: SystemTime, by: Duration },
    #[error("{subject} is not valid before {}, which is in {}", rfc3339(*.not_before), length(*.by))]
    NotYetValid { subject: String, not_before: SystemTime, by: Duration },
    /// `subject` is where the chain ends: the certificate itself, or the last intermediate.
    #[error("{subject} was issued by {issuer}, which is not among the trusted roots")]
    UnknownIssuer { subject: String, issuer: String },
    /// Another authority of the same name.
    #[error("{subject} says that it was issued by {issuer}, but was not signed with that one's key")]
    WrongSignature { subject: String, issuer: String },
    #[error("{subject} lacks the extended key usage {purpose} (it has {})", .has.join(", "))]
    WrongPurpose { subject: String, purpose: Purpose, has: Vec<String> },
    #[error("{subject} is not acceptable: {reason}")]
    Unacceptable { subject: String, reason: String },
}

impl ChainError {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Expired { .. } => Some("get a new certificate, or check the clock of this machine".into()),
            Self::NotYetValid { .. } => Some("check the clock of this machine".into()),
            Self::UnknownIssuer { issuer, .. } => {
                Some(format!("if it is to be trusted, give the certificate of {issuer} as a root"))
            }
            Self::WrongSignature { issuer, .. } => {
                Some(format!("there are two authorities called {issuer}: compare their fingerprints"))
            }
            Self::WrongPurpose { purpose, .. } => {
                let profile = match purpose {
                    Purpose::Client => "client",
                    Purpose::Server => "server",
                };
                Some(format!("have it issued with the profile `{profile}`"))
            }
            Self::Unacceptable { .. } => None,
        }
    }
}

/// The chain from `leaf` upwards, each certificate followed by the one of `others` that signed it,
/// up to a self-issued one or to where an issuer is missing. Certificates of `others` that have no
/// part in it are left out.
pub fn order_chain(leaf: &Certificate, others: &[Certificate]) -> Vec<Certificate> {
    let mut chain = vec![leaf.clone()];
    let mut top = leaf;
    while chain.len() < MAX_DEPTH && !top.is_self_issued() {
        let issuer = others
            .iter()
            .filter(|candidate| candidate.subject() == top.issuer() && !chain.contains(candidate))
            .find(|candidate| top.verify_signed_by(candidate).is_ok());
        let Some(issuer) = issuer else { break };
        chain.push(issuer.clone());
        top = issuer;
    }
    chain
}

/// Checks that `leaf` is good for `purpose` at `now`: that a path over some of `intermediates`
/// leads to one of `roots` (RFC 5280 §6). Roots are trusted as they are, whatever their validity.
/// Names and revocation are not looked at.
///
/// # Errors
/// [`ChainError`] says which certificate is to blame.
pub fn verify_chain(
    leaf: &Certificate,
    intermediates: &[Certificate],
    roots: &[Certificate],
    now: SystemTime,
    purpose: Purpose,
) -> Result<(), ChainError> {
    let failed = |error| explain(&error, leaf, intermediates, now, purpose);
    let anchors = roots
        .iter()
        .map(|root| anchor_from_trusted_cert(root.der()))
        .collect::<Result<Vec<TrustAnchor<'_>>, _>>()
        .map_err(failed)?;
    let others: Vec<CertificateDer<'_>> =
        intermediates.iter().map(|c| CertificateDer::from(&**c.der())).collect();
    let usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server => KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let end_entity = EndEntityCert::try_from(leaf.der()).map_err(failed)?;
    end_entity
        .verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &others, time, usage, None, None)
        .map(drop)
        .map_err(failed)
}

/// Whether a server's certificate is for `host`, a host name or an IP address: by its alternative
/// names, never by its common name (RFC 9525 §6.3).
pub fn is_for_host(certificate: &Certificate, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else { return false };
    EndEntityCert::try_from(certificate.der())
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

/// Finds the certificate that webpki's error, which names none, is about.
fn explain(
    error: &webpki::Error,
    leaf: &Certificate,
    intermediates: &[Certificate],
    now: SystemTime,
    purpose: Purpose,
) -> ChainError {
    let chain = order_chain(leaf, intermediates);
    // A root among the intermediates does not vouch for itself.
    let top = chain.iter().rfind(|c| !c.is_self_issued()).unwrap_or(leaf);
    let first = |wanted: &dyn Fn(&&Certificate) -> bool| chain.iter().find(wanted).unwrap_or(leaf);
    match error {
        webpki::Error::CertExpired { .. } => {
            let expired = first(&|c| c.not_after() < now);
            ChainError::Expired {
                subject: expired.name(),
                not_after: expired.not_after(),
                by: now.duration_since(expired.not_after()).unwrap_or_default(),
            }
        }
        webpki::Error::CertNotValidYet { .. } => {
            let early = first(&|c| c.not_before() > now);
            ChainError::NotYetValid {
                subject: early.name(),
                not_before: early.not_before(),
                by: early.not_before().duration_since(now).unwrap_or_default(),
            }
        }
        webpki::Error::UnknownIssuer => {
            ChainError::UnknownIssuer { subject: top.name(), issuer: top.issuer().to_string() }
        }
        webpki::Error::InvalidSignatureForPublicKey => {
            ChainError::WrongSignature { subject: top.name(), issuer: top.issuer().to_string() }
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            let lacking = first(&|c| !c.is_for(purpose));
            ChainError::WrongPurpose { subject: lacking.name(), purpose, has: lacking.extended_key_usages() }
        }
        webpki::Error::CaUsedAsEndEntity => {
            let reason = "it is a CA's certificate, not one for a client or server".into();
            ChainError::Unacceptable { subject: leaf.name(), reason }
        }
        webpki::Error::EndEntityUsedAsCa => {
            let issuer = chain.iter().skip(1).find(|c| !c.is_ca()).unwrap_or(top);
            let reason = "it signed a certificate, and is not a CA's".into();
            ChainError::Unacceptable { subject: issuer.name(), reason }
        }
        webpki::Error::UnsupportedCertVersion => {
            let reason = "it is of X.509 version 1, without extensions, which many peers refuse; \
                          have it issued with an extended key usage"
                .into();
            ChainError::Unacceptable { subject: leaf.name(), reason }
        }
        other => ChainError::Unacceptable { subject: leaf.name(), reason: format!("{other:?}") },
    }
}
