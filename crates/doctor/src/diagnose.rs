//! From what happened on a connection to findings.
//!
//! Rules look at an [`Observation`] and nothing else, so that the same bytes give the same findings
//! whether we were the server, the client, or read a capture. The cause comes before the refusal
//! that it led to; where no rule understands why a handshake failed, that is said.

mod certificates;
mod outcome;
mod refusals;
mod signatures;
mod start;

pub use start::only_old_versions;

use std::time::SystemTime;

use enclasp_pki::{Certificate, DistinguishedName};

use crate::old_server::SERVER_NAME;
use crate::wire::names::{group_name, is_grease, scheme_name, suite_name, version_name};
use crate::wire::{Side, version};
use crate::{Evidence, Finding, Observation, Report, Severity};

/// What is known besides the bytes.
#[derive(Clone, Debug)]
pub struct Context {
    /// When it happened, for validity.
    pub now: SystemTime,
    /// Whether a client without a certificate is a failure although it was served: it is where
    /// somebody came to test one.
    pub certificate_wanted: bool,
    /// Nothing is to be said about the server's certificate: it is the doctor's own, or not the matter.
    pub spare_server: bool,
    /// The server answers with [`old_server`](crate::old_server)'s flight, and ends the connection
    /// after the client's.
    pub stops_early: bool,
    /// What client certificates have to lead to, if that is known.
    pub client_roots: Vec<Certificate>,
    /// What the server's certificate has to lead to, if that is known.
    pub server_roots: Vec<Certificate>,
    /// Schemes that the client's key was proved to sign with, if it is ours.
    pub own_schemes: Option<Vec<u16>>,
    /// Why the client's key did not sign, if it is ours.
    pub own_failure: Option<enclasp_keystore::Error>,
    /// The name that the server's certificate has to be for, if the ClientHello has none.
    pub server_name: Option<String>,
}

impl Context {
    /// Nothing is known.
    pub fn at(now: SystemTime) -> Self {
        Self {
            now,
            certificate_wanted: false,
            spare_server: false,
            stops_early: false,
            client_roots: Vec::new(),
            server_roots: Vec::new(),
            own_schemes: None,
            own_failure: None,
            server_name: None,
        }
    }
}

/// Says what went wrong on a connection, why, and what to do. `examined` names it.
pub fn diagnose(examined: impl Into<String>, seen: &Observation, context: &Context) -> Report {
    let mut findings = Vec::new();
    let context = &if is_our_server(seen) { at_our_server(seen, context) } else { context.clone() };
    let started = start::findings(seen, &mut findings);
    if started {
        signatures::findings(seen, &mut findings);
        certificates::findings(seen, context, &mut findings);
        refusals::findings(seen, context, &mut findings);
        outcome::findings(seen, context, &mut findings);
    }
    // Where somebody came to test a client, that it was served means nothing.
    if !context.certificate_wanted {
        settle(seen, &mut findings);
    }
    Report::new(examined, findings, evidence(seen))
}

/// Whether the server is that of `doctor listen`, which a capture of its connections does not say otherwise.
fn is_our_server(seen: &Observation) -> bool {
    let leaf = seen.server_chain.first().and_then(|der| Certificate::from_der(der).ok());
    leaf.is_some_and(|leaf| leaf.subject().to_string() == format!("CN={SERVER_NAME}"))
}

fn at_our_server(seen: &Observation, context: &Context) -> Context {
    // A goodbye in place of its Finished ends the handshakes that it cannot complete.
    let said_goodbye = seen.alerts.iter().any(|alert| alert.by == Side::Server && alert.is_closure());
    Context {
        certificate_wanted: true,
        spare_server: true,
        stops_early: context.stops_early || (said_goodbye && !seen.server.finished),
        ..context.clone()
    }
}

/// What was established counts more than what could have failed: where the handshake was completed
/// and nobody refused, what would only be somebody's reason to refuse is a warning.
fn settle(seen: &Observation, findings: &mut [Finding]) {
    let refused = seen.refusal_by(Side::Server).is_some() || seen.refusal_by(Side::Client).is_some();
    let accepted = seen.is_complete() && !refused && seen.server.data > 0;
    for finding in findings.iter_mut().filter(|_| accepted) {
        if finding.severity == Severity::Error && is_reason_only(finding) {
            finding.severity = Severity::Warning;
        }
    }
}

/// Findings that say why somebody may refuse, which somebody else may not.
fn is_reason_only(finding: &Finding) -> bool {
    use crate::code;
    [code::CHAIN_INCOMPLETE, code::CHAIN_ORDER, code::ISSUER_NOT_LISTED, code::WEAK_KEY, code::WRONG_NAME]
        .contains(&finding.code)
}

/// What was seen, for people.
fn evidence(seen: &Observation) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    let mut add = |what: &str, value: String| {
        if !value.is_empty() {
            evidence.push(Evidence::new(what, value));
        }
    };
    if let Some(hello) = seen.client_hellos.last() {
        add("client offers versions", list(&hello.versions, version_name));
        add("client offers suites", list(&hello.suites, suite_name));
        add("client offers groups", list(&hello.groups, group_name));
        add("client offers key shares", list(&hello.key_shares, group_name));
        add("client verifies schemes", list(&hello.schemes, scheme_name));
        add("client asks for", hello.server_name.clone().unwrap_or_else(|| "no server name".into()));
        add("client offers protocols", hello.alpn.join(", "));
    }
    if let Some(hello) = &seen.server_hello {
        add("spoken", format!("{}, {}", version_name(hello.version), suite_name(hello.suite)));
        let exchange = seen.server_key_exchange.as_ref();
        let group = hello.group.or_else(|| exchange.and_then(|exchange| exchange.group));
        add("group", group.map(group_name).unwrap_or_default());
        let bits = exchange.and_then(|exchange| exchange.prime_bits);
        add("group", bits.map(|bits| format!("a prime of {bits} bits")).unwrap_or_default());
    }
    if let Some(retry) = &seen.retry {
        let group = retry.group.map_or_else(|| "another ClientHello".into(), group_name);
        add("HelloRetryRequest", format!("the server wants {group}"));
    }
    add("protocol", seen.alpn.clone().unwrap_or_default());
    for (index, der) in seen.server_chain.iter().enumerate() {
        add(&format!("server certificate {}", index + 1), describe(der));
    }
    if let Some(request) = &seen.request {
        add("server takes schemes", list(&request.schemes, scheme_name));
        add("server takes key types", list(&request.certificate_types, certificate_type));
        let names: Vec<String> = request.authorities.iter().map(|der| name_of(der)).collect();
        add(
            "server names CAs",
            if names.is_empty() { "none: any may be tried".into() } else { names.join("; ") },
        );
        add("server filters by", if request.oid_filters { "extensions (OID filters)" } else { "" }.into());
    }
    for (index, der) in seen.client_chain.iter().flatten().enumerate() {
        add(&format!("client certificate {}", index + 1), describe(der));
    }
    if let Some(signature) = &seen.client_signature {
        let scheme = signature.scheme.map_or_else(
            || format!("no scheme field ({} has none)", seen.version().map(version_name).unwrap_or_default()),
            |scheme| format!("{} (0x{scheme:04x})", scheme_name(scheme)),
        );
        add("client's CertificateVerify", format!("{scheme}, {} bytes", signature.signature.len()));
    }
    for alert in &seen.alerts {
        add(&format!("alert by the {}", alert.by), alert.name());
    }
    evidence
}

/// The same without GREASE, comma-separated.
fn list<T: Copy + Into<u16>>(values: &[T], name: impl Fn(T) -> String) -> String {
    let names: Vec<String> =
        values.iter().filter(|value| !is_grease((**value).into())).map(|value| name(*value)).collect();
    names.join(", ")
}

fn certificate_type(value: u8) -> String {
    match value {
        1 => "RSA".into(),
        2 => "DSA".into(),
        64 => "ECDSA".into(),
        other => format!("type {other}"),
    }
}

fn describe(der: &[u8]) -> String {
    match Certificate::from_der(der) {
        Ok(certificate) => {
            let key = crate::public_key::PublicKey::of_spki(certificate.spki());
            let key = key.map_or_else(|| "an unreadable key".into(), |key| key.to_string());
            format!("{} ({key})", certificate.describe())
        }
        Err(error) => format!("{} bytes that cannot be read: {error}", der.len()),
    }
}

fn name_of(der: &[u8]) -> String {
    DistinguishedName::from_der(der).map_or_else(|_| enclasp_pki::hex(der), |name| name.to_string())
}

/// `the client's` or `the server's`.
fn whose(side: Side) -> &'static str {
    match side {
        Side::Client => "the client's",
        Side::Server => "the server's",
    }
}

/// Whether that is TLS 1.3 or newer.
fn is_tls13(seen: &Observation) -> bool {
    seen.version().is_some_and(|version| version >= version::TLS13)
}
