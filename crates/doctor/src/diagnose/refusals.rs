//! What an alert after the ServerHello means, here.

use super::{Context, list, whose};
use crate::observe::Alert;
use crate::wire::Side;
use crate::wire::names::scheme_name;
use crate::{Code, Confidence, Finding, Observation, Severity, code, key};

pub(super) fn findings(seen: &Observation, context: &Context, findings: &mut Vec<Finding>) {
    // What our own end knows needs no alert.
    if let Some(finding) = no_common_scheme(seen, context) {
        findings.push(finding);
        return;
    }
    if let Some(error) = &context.own_failure {
        findings.push(key::refusal(error));
        return;
    }
    // Who speaks first gives the reason; the other may only answer to it.
    let first = seen.alerts.iter().find(|alert| !alert.is_closure());
    let Some(alert) = first else { return };
    let finding = match alert.by {
        Side::Client => client_refuses(seen, context, alert, findings),
        Side::Server => server_refuses(seen, alert, findings),
    };
    let when = if seen.is_complete() { "after the handshake" } else { "during the handshake" };
    findings.push(
        finding
            .with("alert", format!("{} ({}) by the {}, {when}", alert.name(), alert.description, alert.by)),
    );
}

/// The key of ours can do nothing that the server takes.
fn no_common_scheme(seen: &Observation, context: &Context) -> Option<Finding> {
    let own = context.own_schemes.as_ref().filter(|own| !own.is_empty())?;
    let offered = &seen.request.as_ref()?.schemes;
    if offered.is_empty() || own.iter().any(|scheme| offered.contains(scheme)) {
        return None;
    }
    Some(
        Finding::error(
            code::NO_COMMON_SCHEME,
            "the key can sign with no scheme that the server takes",
            "The server lists the schemes that it verifies in its CertificateRequest, and the key was proved to do none of \
             them. Most clients go on with an empty certificate then, and the server reports \"no certificate\".",
            "Have the server accept one of the key's schemes, or use a key of another type.",
        )
        .with("the key signs with", list(own, scheme_name))
        .with("the server takes", list(offered, scheme_name)),
    )
}

fn client_refuses(seen: &Observation, context: &Context, alert: &Alert, found: &[Finding]) -> Finding {
    let name = alert.name();
    let trust = "Give the client the CA's certificate that issued the server's. For a server that sends no intermediate, \
                 let it send the whole chain.";
    let rejected = |what: &str, fix: &str| {
        Finding::error(
            code::SERVER_REJECTED,
            format!("the client rejects the server's certificate: {what}"),
            format!(
                "It answered {name} when it saw the certificate; its own certificate was not the matter."
            ),
            fix,
        )
    };
    match alert.description {
        48 => Finding::error(
            code::SERVER_NOT_TRUSTED,
            "the client does not trust the CA that issued the server's certificate",
            "It answered unknown_ca when it saw the server's certificate, before its own came into it.",
            trust,
        ),
        45 => rejected("it finds it expired, or not yet valid", "Renew it, or compare the clocks of both machines."),
        44 => rejected("it finds it revoked", "Have a new one issued."),
        43 => rejected(
            "it takes none of this kind",
            "A server needs serverAuth among its extended key usages, and a key type that the client knows.",
        ),
        46 if already(found, Side::Server) => rejected("it does not say why", "See the other findings."),
        46 => Finding::error(
            code::SERVER_NOT_TRUSTED,
            "the client rejects the server's certificate, most likely because it does not trust its issuer",
            "certificate_unknown is what Java, Chrome and Apple's TLS answer to an issuer that is not in their trust store; \
             they say the same of a name that does not match.",
            trust,
        )
        .confidence(Confidence::Likely),
        42 => {
            let asked = seen.client_hellos.last().and_then(|hello| hello.server_name.as_deref());
            rejected(
                "it does not say why",
                "GnuTLS answers so to an issuer that it does not trust, OpenSSL to a name that does not match: compare both. \
                 The client's own log says which.",
            )
            .with("name asked for", asked.unwrap_or("none"))
            .confidence(if already(found, Side::Server) { Confidence::Possible } else { Confidence::Likely })
        }
        51 => Finding::error(
            code::SIGNATURE_REJECTED,
            "the client could not verify the server's signature or Finished message",
            "decrypt_error: the server's private key may not be its certificate's, or bytes were changed on the way.",
            "Compare the public keys of the server's certificate and key. If the findings have no bad signature, look for \
             something between that changes bytes.",
        )
        .confidence(Confidence::Likely),
        70 => Finding::error(
            code::NO_COMMON_VERSION,
            "the client does not take the version that the server chose",
            "It offered it and then refused it: a policy of the client's is stricter than its ClientHello.",
            "Allow TLS 1.2 and 1.3 on both sides.",
        ),
        40 | 71 | 47 => {
            let bits = seen.server_key_exchange.as_ref().and_then(|exchange| exchange.prime_bits);
            let why = match bits.filter(|bits| *bits < 2048) {
                Some(bits) => format!("The server's Diffie-Hellman prime has {bits} bits, fewer than clients take today."),
                None => "Something in the server's choice or certificate does not pass the client's policy: the suite, the \
                         group, the signature scheme or the size of a key."
                    .into(),
            };
            Finding::error(
                code::NO_COMMON_PARAMETERS,
                format!("the client does not accept what the server chose, and answered {name}"),
                why,
                "The client's log names it. Elliptic-curve key exchange and 2048-bit RSA or P-256 certificates are taken by \
                 everybody.",
            )
            .confidence(if bits.is_some_and(|bits| bits < 2048) { Confidence::Likely } else { Confidence::Possible })
        }
        80 => Finding::error(
            code::REFUSED_OTHER,
            "the client failed on its side",
            if seen.request.is_some() && seen.client_signature.is_none() {
                "internal_error: the fault is the client's own. It was asked for a certificate and did not sign: often a \
                 private key that cannot be used (locked, denied, of the wrong type)."
            } else {
                "internal_error: the fault is the client's own."
            },
            own_fix(context),
        )
        .confidence(Confidence::Likely),
        50 => Finding::error(
            code::MALFORMED,
            "the client could not parse a message of the server's",
            "decode_error: bytes were changed on the way, or one program does not follow the standard.",
            "Compare the records of both ends: `enclasp doctor both`.",
        )
        .confidence(Confidence::Likely),
        _ => unknown(alert),
    }
}

fn own_fix(context: &Context) -> &'static str {
    match context.own_schemes {
        Some(_) => "`enclasp doctor key` tries the key by itself.",
        None => "The client's own log says why; try its private key by itself.",
    }
}

fn server_refuses(seen: &Observation, alert: &Alert, found: &mut [Finding]) -> Finding {
    let presented = seen.client_chain.as_ref().is_some_and(|chain| !chain.is_empty());
    match (alert.description, &seen.client_chain) {
        // GnuTLS cannot parse an empty Certificate before TLS 1.3 if it demands one.
        (116, _) | (40 | 41 | 42 | 46 | 48 | 50 | 80, Some(_)) if !presented => {
            return demanded(seen, alert);
        }
        (116 | 42 | 46, None) => return demanded(seen, alert),
        (112, _) => {
            let asked = seen.client_hellos.last().and_then(|hello| hello.server_name.as_deref());
            return Finding::error(
                code::NAME_NOT_SERVED,
                format!("the server does not serve {}", asked.unwrap_or("a client that names no server")),
                "unrecognized_name: it looked at the server name in the ClientHello.",
                "Use the name that the server is configured for, or add this one to it.",
            );
        }
        (120, _) => {
            return Finding::error(
                code::NO_COMMON_ALPN,
                "the server speaks none of the protocols that the client offers",
                "Application protocols are agreed upon within TLS (ALPN).",
                "Offer what the server speaks, or no protocol at all.",
            );
        }
        _ => {}
    }
    if !presented {
        return before_certificate(alert);
    }
    promote(alert, found);
    refused_certificate(seen, alert, found)
}

/// The server refused a client's certificate, or its proof.
fn refused_certificate(seen: &Observation, alert: &Alert, found: &[Finding]) -> Finding {
    let name = alert.name();
    let refused = |code: Code, title: &str, why: &str, fix: &str| Finding::error(code, title, why, fix);
    match alert.description {
        48 => refused(
            code::REFUSED_UNKNOWN_CA,
            "the server does not trust the CA that issued the client's certificate",
            "unknown_ca: no path from the certificate to a root that the server trusts. The root is missing on the server, or \
             the client did not send an intermediate.",
            "Send the intermediates with the certificate; otherwise add the client's CA to what the server trusts.",
        ),
        45 => refused(
            code::REFUSED_EXPIRED,
            "the server finds the client's certificate expired",
            "By the server's clock it is not valid now. TLS stacks say the same of a certificate that is not valid yet, and of \
             an expired intermediate.",
            "Renew it; if it is valid here, compare the clocks.",
        ),
        44 => refused(
            code::REFUSED_REVOKED,
            "the server finds the client's certificate revoked",
            "Its CRL or OCSP answer says so; some servers also answer so when they cannot get one.",
            "Enrol again; if it should not be revoked, ask its CA.",
        ),
        49 => refused(
            code::REFUSED_ACCESS,
            "the server accepts the client's certificate, but its rules do not admit this client",
            "access_denied: the chain is good, and the subject or names are not on the server's list.",
            "Compare the names with the server's rules; its log says which one refused.",
        ),
        43 => refused(
            code::REFUSED_UNSUPPORTED,
            "the server does not take a client certificate of this kind",
            "unsupported_certificate: its key type, or an extended key usage that does not fit. Java and OpenSSL answer so to a \
             certificate without clientAuth.",
            "Have it issued with clientAuth, and a P-256 or RSA key.",
        ),
        42 | 46 => refused(
            code::REFUSED_CERTIFICATE,
            "the server rejects the client's certificate and does not say why",
            if alert.description == 46 {
                "certificate_unknown: Java answers so for a CA that its trust store lacks, and for most other faults."
            } else {
                "bad_certificate: GnuTLS and others answer so for any fault of the chain, and some servers for a signature that \
                 does not verify."
            },
            "The server's log says what it found. First compare its trust store with the client's issuer.",
        )
        .confidence(Confidence::Likely),
        51 => {
            let explained = signature_at_fault(found);
            let why = if explained {
                "decrypt_error: it did not verify. The finding about the signature says why."
            } else {
                "decrypt_error: the client's CertificateVerify or Finished did not verify there, while the signature verifies \
                 here: bytes were changed on the way, or the server took another certificate's key."
            };
            refused(
                code::REFUSED_SIGNATURE,
                "the server could not verify the client's signature",
                why,
                "See the signature's findings; otherwise compare the records of both ends: `enclasp doctor both`.",
            )
            .confidence(if explained { Confidence::Likely } else { Confidence::Possible })
        }
        40 | 47 | 50 | 10 | 20 | 71 | 80 => {
            let why = match alert.description {
                47 => "illegal_parameter: a field contradicts another; OpenSSL answers so to a signature scheme that does not \
                       fit the key or was not offered.",
                80 => "internal_error: the server failed on its side, perhaps when it looked up the client.",
                50 => "decode_error: it could not parse a message; signatures in a wrong encoding are refused so, too.",
                10 => "unexpected_message: a message was missing or out of order.",
                20 => "bad_record_mac: it could not decrypt what the client sent, so that the keys which both ends derived differ.",
                _ => "The server gives no more than that. Many answer so to a client certificate that they do not accept, or to \
                      a signature scheme that they did not offer.",
            };
            Finding::error(
                code::REFUSED_OTHER,
                format!("the server refused after the client's certificate, with {name}"),
                why,
                "The server's log says why.",
            )
            .confidence(if already(found, Side::Client) || signature_at_fault(found) {
                Confidence::Possible
            } else {
                Confidence::Likely
            })
        }
        _ => unknown(alert),
    }
    .with("presented", seen.client_chain.as_ref().map_or(0, Vec::len))
}

fn demanded(seen: &Observation, alert: &Alert) -> Finding {
    let request = seen.request.clone().unwrap_or_default();
    let mut why = String::from(match &seen.client_chain {
        Some(_) => {
            "The server asked for a certificate, and the client answered with an empty one: it has none, or it has one \
                    and hides it because the issuer is not on the server's list or no signature scheme fits."
        }
        None => "The server wants a certificate from the client, and none was seen.",
    });
    if !request.authorities.is_empty() {
        why += " The server names the CAs that it takes: clients hide certificates of others.";
    }
    let finding = Finding::error(
        code::CERTIFICATE_DEMANDED,
        format!("the server demands a client certificate and received none (it answered {})", alert.name()),
        why,
        "Configure the client with a certificate and its key, and check that its issuer is one that the server names.",
    );
    if alert.description == 116 || seen.client_chain.is_some() {
        return finding;
    }
    finding.confidence(Confidence::Possible)
}

fn before_certificate(alert: &Alert) -> Finding {
    let name = alert.name();
    match alert.description {
        51 | 20 => Finding::error(
            code::REFUSED_OTHER,
            format!("the server could not decrypt what the client sent, and answered {name}"),
            "The keys that both ends derived differ: bytes of the handshake were changed on the way, or one program derives them \
             wrongly.",
            "Compare the records of both ends: `enclasp doctor both`.",
        )
        .confidence(Confidence::Likely),
        40 | 71 | 47 | 80 => Finding::error(
            code::REFUSED_OTHER,
            format!("the server broke off with {name}, before any client certificate"),
            "It had already chosen a version and a suite.",
            "The server's log says why.",
        )
        .confidence(Confidence::Possible),
        _ => unknown(alert),
    }
}

fn unknown(alert: &Alert) -> Finding {
    Finding::error(
        code::NOT_UNDERSTOOD,
        format!("the {} answered {}, which is not understood here", alert.by, alert.name()),
        "No rule knows this alert at this point.",
        format!("The log of the {} says more.", alert.by),
    )
    .confidence(Confidence::Unknown)
}

/// Whether something is wrong with that side's certificate by its own.
fn already(found: &[Finding], side: Side) -> bool {
    found.iter().any(|finding| finding.severity == Severity::Error && finding.title.contains(whose(side)))
}

fn signature_at_fault(found: &[Finding]) -> bool {
    let codes = [
        code::EC_KEY_RSA_CLAIM,
        code::SCHEME_DOES_NOT_FIT,
        code::SCHEME_NOT_OFFERED,
        code::RAW_ECDSA,
        code::LAX_DER,
        code::WRONG_HASH,
        code::WRONG_INPUT,
        code::OTHER_KEY,
        code::BAD_SIGNATURE,
        code::WRONG_PADDING,
    ];
    found
        .iter()
        .any(|finding| codes.contains(&finding.code) && finding.title.starts_with(whose(Side::Client)))
}

/// What only could have been a reason is the likely one, once the server has refused.
fn promote(alert: &Alert, found: &mut [Finding]) {
    let of_issuer = matches!(alert.description, 40 | 42 | 46 | 48);
    let of_key = matches!(alert.description, 40 | 42 | 43 | 47 | 71);
    for finding in found.iter_mut().filter(|finding| finding.severity == Severity::Warning) {
        if (finding.code == code::ISSUER_NOT_LISTED && of_issuer)
            || (finding.code == code::WEAK_KEY && of_key)
        {
            finding.severity = Severity::Error;
            finding.confidence = Confidence::Likely;
        }
    }
}
