//! How it ended, where no alert says so.

use super::signatures::lacks_proof;
use super::{Context, is_tls13, list};
use crate::recording::End;
use crate::wire::names::{scheme_name, version_name};
use crate::wire::{Side, version};
use crate::{Confidence, Finding, Observation, Severity, code};

pub(super) fn findings(seen: &Observation, context: &Context, findings: &mut Vec<Finding>) {
    if let Some(version) = seen.version().filter(|version| *version < version::TLS12) {
        findings.push(Finding::warning(
            code::OLD_VERSION,
            format!("{} is spoken", version_name(version)),
            "It was given up years ago (RFC 8996), and most peers refuse it today. Its CertificateVerify has no scheme field: \
             RSA signs MD5 and SHA-1 together, ECDSA signs SHA-1.",
            "Update the side that cannot do TLS 1.2.",
        ));
    }
    if lacks_proof(seen) {
        findings.push(Finding::error(
            code::NO_CERTIFICATE_VERIFY,
            "the client presented a certificate and no proof that it has its key",
            "A Certificate message with a certificate in it is followed by a CertificateVerify. It was not sent.",
            "It is a fault of the program that sent it.",
        ));
    }
    if seen.resumed {
        findings.push(Finding::note(
            code::RESUMED,
            "a session was resumed: neither side presented a certificate",
            "What the first handshake of the session established counts.",
            "To see certificates and signatures, begin with a new session: restart the client, or forget its tickets.",
        ));
        return;
    }
    let asked_in_vain = seen.client_chain.as_ref().is_some_and(Vec::is_empty);
    let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
    if asked_in_vain && !refused {
        findings.push(without_certificate(seen, context));
    }
    // What follows a handshake that could be read is of no interest.
    if seen.opaque && is_tls13(seen) && seen.server_chain.is_empty() {
        findings.push(
            Finding::note(
                code::UNREADABLE,
                "most of this handshake is encrypted, and there are no secrets to read it with",
                "TLS 1.3 encrypts all that follows the ServerHello: certificates, signatures and alerts.",
                "Give a key log (`--keylog FILE`). Programs write one when the environment variable SSLKEYLOGFILE is set \
                 (curl, browsers), and OpenSSL's tools with `-keylogfile`.",
            )
            .confidence(Confidence::Unknown),
        );
        return;
    }
    if !refused && seen.request.is_none() && seen.is_complete() {
        findings.push(Finding::note(
            code::NOT_ASKED,
            "the server asked for no client certificate",
            "Without a CertificateRequest a client presents none, whatever it is configured with.",
            "If it should have: turn client authentication on at the server (`ssl_verify_client`, `needClientAuth`), for this \
             address and name.",
        ));
    }
    let stopped = context.stops_early && (seen.client.finished || seen.client_signature.is_some());
    if !refused && !stopped && !seen.is_complete() && seen.refusal_by(Side::Server).is_none() {
        findings.extend(cut(seen));
    }
}

fn without_certificate(seen: &Observation, context: &Context) -> Finding {
    let title = "the client was asked for a certificate and presented none";
    let mut why = String::from(
        "It answered with an empty Certificate message: it is configured with none, or it has one and did not choose it.",
    );
    let request = seen.request.clone().unwrap_or_default();
    if request.authorities.is_empty() {
        why += " The server named no CAs, so that any certificate could have been chosen.";
    } else {
        why += " The server named CAs, and clients hide certificates of others.";
    }
    let fix = "Configure the client with a certificate and its key. If it has them: check that the key can be used (unlocked, \
               permitted, of a type that the server takes), and that the certificate has clientAuth.";
    let finding = if context.certificate_wanted {
        Finding::error(code::NO_CLIENT_CERTIFICATE, title, why, fix)
    } else {
        Finding::note(code::NO_CLIENT_CERTIFICATE, title, why, fix)
    };
    finding.with("the server takes", list(&request.schemes, scheme_name))
}

/// The handshake stopped and nobody said why.
fn cut(seen: &Observation) -> Option<Finding> {
    let ended =
        seen.events.iter().find(|event| event.what.starts_with("closes") || event.what.starts_with("resets"));
    let first = ended.map(|event| event.by);
    let presented = seen.client_chain.as_ref().is_some_and(|chain| !chain.is_empty());
    let last = seen.events.iter().rfind(|event| Some(event.by) != first && !event.detail.is_empty());
    let after = last.map(|event| event.what.clone()).unwrap_or_default();
    let finding = match first {
        Some(Side::Client) if !seen.client.finished && !seen.server_chain.is_empty() && !presented => Finding::error(
            code::CLIENT_LEFT,
            "the client left after it saw the server's certificate, without saying why",
            "Most clients that leave here do not trust the certificate's issuer, or do not find in it the name that they asked \
             for; some ask a person first. It is not about the client's own certificate, which was not sent yet.",
            "Give the client the CA's certificate that issued the server's, and ask for a name that is in the certificate.",
        )
        .confidence(Confidence::Likely),
        Some(Side::Server) if presented => Finding::error(
            code::CUT,
            "the server cut the connection after the client's certificate, without an alert",
            "Some servers refuse certificates so, others crash on them.",
            "The server's log says more. Compare its trust store with the client's issuer.",
        )
        .confidence(Confidence::Possible),
        Some(side) => Finding::error(
            code::CUT,
            format!("the {side} cut the connection in the middle of the handshake, without an alert"),
            "A program ended, or a device on the way cut the connection.",
            format!("The log of the {side} says more. If it has nothing, look for a firewall or a timeout between."),
        )
        .confidence(Confidence::Possible),
        None if seen.client.end == Some(End::TimedOut) || seen.server.end == Some(End::TimedOut) => Finding::error(
            code::CUT,
            "the handshake stopped, and both sides wait",
            "A message was lost, or a side waits for a person: for a PIN, a touch, a choice of certificates.",
            "Look at both ends; a key that asks needs longer than the peer waits.",
        )
        .confidence(Confidence::Possible),
        // It was not recorded to its end.
        None => return None,
    };
    Some(finding.with("last message of the other side", after))
}
