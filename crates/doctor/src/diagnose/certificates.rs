//! What is wrong with the certificates of a handshake.

use std::time::SystemTime;

use enclasp_pki::{Certificate, ChainError, Purpose, order_chain, rfc3339, verify_chain};

use super::{Context, name_of, whose};
use crate::public_key::PublicKey;
use crate::wire::{Side, version};
use crate::{Confidence, Finding, Observation, code};

pub(super) fn findings(seen: &Observation, context: &Context, findings: &mut Vec<Finding>) {
    if !context.spare_server {
        let name = seen.client_hellos.last().and_then(|hello| hello.server_name.clone());
        let name = name.or_else(|| context.server_name.clone());
        let chain = Chain::read(Side::Server, &seen.server_chain, findings);
        chain.examine(&context.server_roots, context.now, findings);
        if let (Some(name), Some(leaf)) = (name, chain.certificates.first()) {
            findings.extend(wrong_name(leaf, &name));
        }
    }
    if let Some(presented) = seen.client_chain.as_ref().filter(|chain| !chain.is_empty()) {
        let chain = Chain::read(Side::Client, presented, findings);
        chain.examine(&context.client_roots, context.now, findings);
        findings.extend(chain.not_listed(seen));
        findings.extend(chain.not_asked(seen));
    }
}

/// The certificates that one side presented, as far as they can be read.
struct Chain {
    by: Side,
    certificates: Vec<Certificate>,
}

impl Chain {
    fn read(by: Side, ders: &[Vec<u8>], findings: &mut Vec<Finding>) -> Self {
        let mut certificates = Vec::new();
        for (index, der) in ders.iter().enumerate() {
            match Certificate::from_der(der) {
                Ok(certificate) => certificates.push(certificate),
                Err(error) => {
                    let finding = Finding::error(
                        code::CERTIFICATE_UNREADABLE,
                        format!("{} certificate {} cannot be read: {error}", whose(by), index + 1),
                        "Its DER does not follow the grammar of X.509; other TLS stacks refuse it too, or read something \
                         else in it.",
                        "Save it to a file and see `enclasp doctor cert FILE`.",
                    );
                    findings.push(finding.with("first bytes", enclasp_pki::hex(&der[..der.len().min(32)])));
                    // Positions would be wrong from here on.
                    break;
                }
            }
        }
        Self { by, certificates }
    }

    fn examine(&self, roots: &[Certificate], now: SystemTime, findings: &mut Vec<Finding>) {
        let Some((leaf, others)) = self.certificates.split_first() else { return };
        let whose = whose(self.by);
        if leaf.is_ca() && !others.is_empty() && self.leaf_is_elsewhere(leaf, others) {
            findings.push(wrong_order(whose, &self.certificates));
            return;
        }
        for (index, certificate) in self.certificates.iter().enumerate() {
            findings.extend(validity(whose, index, certificate, now));
        }
        let purpose = match self.by {
            Side::Client => Purpose::Client,
            Side::Server => Purpose::Server,
        };
        if !leaf.is_for(purpose) {
            findings.push(wrong_purpose(whose, leaf, purpose));
        }
        if leaf.is_ca() {
            findings.push(ca_as_leaf(whose, leaf));
        }
        findings.extend(weak_key(whose, leaf));
        let ordered = order_chain(leaf, others);
        findings.extend(self.broken_link(leaf, others));
        if ordered.len() < self.certificates.len() || ordered != self.certificates {
            let same = ordered.len() == self.certificates.len();
            findings.push(if same {
                wrong_order(whose, &self.certificates)
            } else {
                stray(whose, &ordered, others)
            });
        }
        if !roots.is_empty() {
            findings.extend(self.untrusted(leaf, others, roots, now, purpose));
        }
    }

    /// The first certificate is the issuer of one that follows.
    fn leaf_is_elsewhere(&self, first: &Certificate, others: &[Certificate]) -> bool {
        others.iter().any(|other| !other.is_ca() && other.issuer() == first.subject())
    }

    /// A certificate that names another of the chain as its issuer, which did not sign it.
    fn broken_link(&self, leaf: &Certificate, others: &[Certificate]) -> Option<Finding> {
        let issuer = others.iter().find(|other| leaf.issuer() == other.subject())?;
        let signed = others.iter().any(|other| leaf.verify_signed_by(other).is_ok());
        if signed || leaf.is_self_issued() {
            return None;
        }
        Some(Finding::error(
            code::CHAIN_BROKEN,
            format!("{} certificate was not signed with the key of the issuer beside it", whose(self.by)),
            format!(
                "There are two authorities called {}: one signed the certificate, the other was sent along.",
                issuer.name()
            ),
            "Send the CA certificate that was in use when this certificate was issued: compare key identifiers and \
             fingerprints.",
        ))
    }

    fn untrusted(
        &self,
        leaf: &Certificate,
        others: &[Certificate],
        roots: &[Certificate],
        now: SystemTime,
        purpose: Purpose,
    ) -> Option<Finding> {
        let error = verify_chain(leaf, others, roots, now, purpose).err()?;
        let whose = whose(self.by);
        let missing_link = |subject: &str, issuer: &str| {
            let (why, fix) = if others.is_empty() && !leaf.is_self_issued() {
                (
                    format!(
                        "It was sent alone, and its issuer {issuer} is not itself a trusted root. An intermediate is \
                         missing, or the root is another one."
                    ),
                    "Send the intermediates together with the certificate; or trust the root that it leads to.".to_owned(),
                )
            } else {
                (
                    format!(
                        "The chain ends at {subject}, which was issued by {issuer}; that is not among the roots."
                    ),
                    format!(
                        "Add the certificate of {issuer} to what is trusted, or use a certificate of a trusted CA."
                    ),
                )
            };
            Finding::error(
                code::CHAIN_INCOMPLETE,
                format!("{whose} chain leads to no trusted root"),
                why,
                fix,
            )
        };
        match &error {
            // They have findings of their own.
            ChainError::Expired { .. } | ChainError::NotYetValid { .. } | ChainError::WrongPurpose { .. } => {
                None
            }
            ChainError::UnknownIssuer { subject, issuer } => Some(missing_link(subject, issuer)),
            ChainError::WrongSignature { issuer, .. } => Some(Finding::error(
                code::CHAIN_BROKEN,
                format!("{whose} certificate was not signed by the trusted {issuer}"),
                format!(
                    "It names {issuer} as its issuer, as a trusted root is called, but was signed with another key."
                ),
                "There are two authorities of this name, perhaps an old and a new one: compare their fingerprints.",
            )),
            other => Some(
                Finding::error(
                    code::REFUSED_CERTIFICATE,
                    format!("{whose} chain is not acceptable: {other}"),
                    "The chain was checked against the roots that were given.",
                    other.hint().unwrap_or_else(|| "See `enclasp doctor cert`.".into()),
                )
                .confidence(Confidence::Likely),
            ),
        }
    }

    /// Servers may name the CAs whose certificates they take. Clients hide certificates that do not
    /// match, and some servers insist.
    fn not_listed(&self, seen: &Observation) -> Option<Finding> {
        let authorities = &seen.request.as_ref()?.authorities;
        let listed = |certificate: &Certificate| {
            let names = [certificate.issuer(), certificate.subject()];
            names.iter().any(|name| authorities.iter().any(|listed| name_of(listed) == name.to_string()))
        };
        if authorities.is_empty() || self.certificates.is_empty() || self.certificates.iter().any(listed) {
            return None;
        }
        let names: Vec<String> = authorities.iter().map(|der| name_of(der)).collect();
        Some(
            Finding::warning(
                code::ISSUER_NOT_LISTED,
                format!("the server's list of CAs does not name {}", self.certificates.first()?.issuer()),
                "The CertificateRequest lists the CAs whose certificates the server takes. This certificate's issuers are \
                 not on it. The list is a hint, so it was sent all the same; many clients would hide it.",
                "Use a certificate of a CA on the list, or have the server list this one.",
            )
            .with("listed", names.join("; ")),
        )
    }

    /// Before TLS 1.3 a server lists the key types that it takes.
    fn not_asked(&self, seen: &Observation) -> Option<Finding> {
        let types = &seen.request.as_ref()?.certificate_types;
        let key = PublicKey::of_spki(self.certificates.first()?.spki())?;
        let (wanted, name) = match key {
            PublicKey::Rsa { .. } => (1, "RSA (rsa_sign)"),
            PublicKey::Ec { .. } | PublicKey::OtherCurve(_) | PublicKey::Ed25519(_) | PublicKey::Ed448 => {
                (64, "ECDSA (ecdsa_sign)")
            }
            PublicKey::Other(_) => return None,
        };
        if types.is_empty() || types.contains(&wanted) || seen.version() >= Some(version::TLS13) {
            return None;
        }
        Some(Finding::error(
            code::KEY_TYPE_NOT_ASKED,
            format!("the server does not ask for {name} certificates, and the client's key is {key}"),
            "Before TLS 1.3 the CertificateRequest lists the types of keys that the server verifies.",
            "Use a certificate with a key of a type on the list, or have the server take this one.",
        ))
    }
}

fn validity(whose: &str, index: usize, certificate: &Certificate, now: SystemTime) -> Option<Finding> {
    let which = if index == 0 { "certificate".into() } else { format!("chain's certificate {}", index + 1) };
    let (name, before, after) = (certificate.name(), certificate.not_before(), certificate.not_after());
    // A root is trusted as it is, whatever it says.
    if index > 0 && certificate.is_self_issued() {
        return None;
    }
    if now > after {
        return Some(Finding::error(
            code::CERTIFICATE_EXPIRED,
            format!("{whose} {which} expired at {}", rfc3339(after)),
            format!("{name} is not valid any more, by this machine's clock ({}).", rfc3339(now)),
            "Renew it: `enclasp renew`, or what its CA offers.",
        ));
    }
    (now < before).then(|| {
        Finding::error(
            code::CERTIFICATE_NOT_YET_VALID,
            format!("{whose} {which} is not valid before {}", rfc3339(before)),
            format!("{name} begins in the future, by this machine's clock ({}).", rfc3339(now)),
            "Compare the clocks of this machine and of the CA.",
        )
    })
}

fn wrong_purpose(whose: &str, leaf: &Certificate, purpose: Purpose) -> Finding {
    Finding::error(
        code::WRONG_PURPOSE,
        format!("{whose} certificate is not for this: it lacks the extended key usage {purpose}"),
        format!(
            "Its extended key usages are {}. A peer that checks them refuses it.",
            leaf.extended_key_usages().join(", ")
        ),
        format!("Have it issued with {purpose} (with OpenSSL: `extendedKeyUsage = {purpose}`)."),
    )
}

fn ca_as_leaf(whose: &str, leaf: &Certificate) -> Finding {
    Finding::error(
        code::CA_AS_LEAF,
        format!("{whose} certificate is a CA's (CA:TRUE)"),
        format!(
            "{} may sign other certificates. `openssl req -x509` makes such ones by default. Most TLS stacks refuse it \
             as a client's or server's own.",
            leaf.name()
        ),
        "Issue a certificate for the client with `basicConstraints = CA:FALSE`.",
    )
    .confidence(Confidence::Likely)
}

fn weak_key(whose: &str, leaf: &Certificate) -> Option<Finding> {
    let key = PublicKey::of_spki(leaf.spki())?;
    let why = match &key {
        PublicKey::Rsa { modulus, .. } if modulus.len() < 256 => {
            "RSA keys of fewer than 2048 bits are refused by almost everybody."
        }
        PublicKey::OtherCurve(_) => "TLS 1.3 has no scheme for this curve, and few peers take it in TLS 1.2.",
        PublicKey::Ed448 => "Few peers take Ed448.",
        PublicKey::Rsa { pss_only: true, .. } => {
            "A key for RSASSA-PSS only needs the rsa_pss_pss schemes, which few peers offer."
        }
        PublicKey::Other(_) => "TLS 1.3 has no scheme for this key type.",
        _ => return None,
    };
    Some(Finding::warning(
        code::WEAK_KEY,
        format!("{whose} key is {key}"),
        why,
        "Use P-256, or RSA with 2048 bits or more.",
    ))
}

fn wrong_order(whose: &str, chain: &[Certificate]) -> Finding {
    let names: Vec<String> = chain.iter().map(Certificate::name).collect();
    Finding::error(
        code::CHAIN_ORDER,
        format!("{whose} chain is in the wrong order"),
        "The certificate of the key comes first, and each one is followed by its issuer (RFC 5246 §7.4.2). TLS 1.3 peers \
         often sort; others refuse, and all take the first certificate for the one whose key signs.",
        "Order the file: certificate, intermediate, root (the root may be left out). `enclasp identity import` does.",
    )
    .with("sent", names.join(" | "))
}

fn stray(whose: &str, ordered: &[Certificate], others: &[Certificate]) -> Finding {
    let strays: Vec<String> = others.iter().filter(|c| !ordered.contains(c)).map(Certificate::name).collect();
    Finding::note(
        code::CHAIN_ORDER,
        format!("{whose} chain has certificates that are no part of it"),
        "They lead nowhere from the first certificate. Most peers pass over them.",
        "Leave them out.",
    )
    .with("no part of it", strays.join(" | "))
}

fn wrong_name(leaf: &Certificate, name: &str) -> Option<Finding> {
    if enclasp_pki::is_for_host(leaf, name) {
        return None;
    }
    let names: Vec<String> = leaf.subject_alt_names().iter().map(ToString::to_string).collect();
    let has = if names.is_empty() { "no alternative names at all".into() } else { names.join(", ") };
    Some(Finding::error(
        code::WRONG_NAME,
        format!("the server's certificate is not for {name}"),
        format!("Its names are: {has}. The common name has not counted for years (RFC 9525)."),
        "Ask for a name that is in the certificate, or have it issued with this one as a subject alternative name.",
    ))
}
