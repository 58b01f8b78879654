//! Handshakes that do not begin.

use super::list;
use crate::observe::Alert;
use crate::recording::End;
use crate::wire::names::{alert_name, group_name, scheme_name, suite_name, version_name};
use crate::wire::{ClientHello, Protocol, Side, Stranger, Version, version};
use crate::{Confidence, Finding, Observation, code};

/// Whether there is a handshake to look at any further.
pub(super) fn findings(seen: &Observation, findings: &mut Vec<Finding>) -> bool {
    for side in [Side::Client, Side::Server] {
        if let Some(stranger) = &seen.progress(side).stranger {
            findings.push(not_tls(seen, side, stranger));
            return false;
        }
    }
    for (side, message) in &seen.malformed {
        findings.push(malformed(*side, message));
    }
    let Some(hello) = seen.client_hellos.last() else {
        if let Some(alert) = seen.refusal_by(Side::Client) {
            findings.push(gave_up(alert));
        } else if seen.malformed.is_empty() {
            findings.push(no_hello(seen));
        }
        return false;
    };
    if seen.server_hello.is_some() {
        return true;
    }
    match seen.alerts.first() {
        Some(alert) => findings.push(refused_at_once(hello, alert.by, alert.description)),
        None if seen.malformed.is_empty() => findings.push(unanswered(seen)),
        None => {}
    }
    false
}

fn not_tls(seen: &Observation, side: Side, stranger: &Stranger) -> Finding {
    let other = side.other();
    let title = format!("the {side} sent {} instead of TLS", stranger.protocol);
    let (why, fix): (String, &str) = match (stranger.protocol, side) {
        (Protocol::Http, Side::Client) => (
            "The client speaks plain HTTP to a port where TLS is expected.".into(),
            "Give the client an https:// address, or let it talk to the port that serves plain HTTP.",
        ),
        (Protocol::Http, Side::Server) => (
            "The server answered in plain HTTP: this port is not its TLS port, or a proxy before it answered.".into(),
            "Connect to the TLS port (often 443 or 8443), or turn TLS on for this one.",
        ),
        (Protocol::Greeting, _) => (
            "The server greets first, as mail, FTP and similar servers do that begin in the clear and change to TLS \
             on request (STARTTLS)."
                .into(),
            "Connect with `--starttls` and the protocol, or to the port that speaks TLS from the beginning.",
        ),
        (Protocol::Proxy, _) => (
            "A load balancer puts a PROXY protocol header before the connection, and nobody here expects one.".into(),
            "Turn the PROXY protocol off at the load balancer, or on at the server.",
        ),
        (Protocol::Ssh, _) => ("This is an SSH connection.".into(), "Connect to the port of the TLS service."),
        (Protocol::Ssl2, _) => (
            "The client begins with an SSL 2.0 ClientHello, which old programs sent to be understood by older servers \
             (RFC 6176 forbids it)."
                .into(),
            "Turn SSL 2.0 off in the client: OpenSSL before 1.0, Java before 7 (`SSLv2Hello`).",
        ),
        (Protocol::Unknown, _) => (
            format!("The bytes are no TLS record, and the {other} can make nothing of them."),
            "Compare the first bytes with the protocol that the port is for.",
        ),
    };
    let finding = Finding::error(code::NOT_TLS, title, why, fix)
        .with("first bytes", &stranger.sample)
        .with("at byte", stranger.offset);
    match stranger.protocol {
        Protocol::Unknown if seen.client_hellos.is_empty() => finding.confidence(Confidence::Unknown),
        _ => finding,
    }
}

fn malformed(side: Side, message: &str) -> Finding {
    Finding::error(
        code::MALFORMED,
        format!("the {side} sent a message that does not follow its grammar: {message}"),
        "Lengths in the message do not add up. A TLS stack answers decode_error, or cuts the connection.",
        "Look for something that changes bytes on the way; otherwise it is a fault of the program that sent it.",
    )
}

fn no_hello(seen: &Observation) -> Finding {
    let (title, why, fix) = match (seen.client.bytes, seen.server.bytes, seen.client.end) {
        (0, 0, Some(End::TimedOut) | None) => (
            "neither side said anything",
            "The connection was opened, and nothing followed.",
            "A server that greets first needs `--starttls`; a port scanner or health check says nothing either.",
        ),
        (0, 0, _) => (
            "the client connected and left without a word",
            "Health checks and port scanners do this; so does a client that fails before its first message.",
            "If it was neither, the client's own log says why it gave up.",
        ),
        (0, _, _) => (
            "the server spoke and the client did not",
            "TLS begins with the client.",
            "See what the server said; a server that greets first needs `--starttls`.",
        ),
        _ => (
            "the client's first message is not complete",
            "The connection ended, or more bytes did not arrive, within the ClientHello. Large ClientHellos (hybrid key \
             shares) take two packets, and some devices on the way drop or delay the second.",
            "Try without the hybrid group (X25519MLKEM768). If that helps, a device between cannot take a ClientHello \
             of more than one packet.",
        ),
    };
    Finding::error(code::NOTHING_SENT, title, why, fix).confidence(Confidence::Likely)
}

fn gave_up(alert: &Alert) -> Finding {
    Finding::error(
        code::NOTHING_SENT,
        format!("the client gave up before its first message, with {}", alert.name()),
        "It failed on its own side: often a list of cipher suites, groups or versions that leaves nothing to offer.",
        "The client's own log says why. Try it with its default suites and versions.",
    )
    .confidence(Confidence::Likely)
}

/// What a server that chose nothing takes, as connections of their own have shown: `spoken` are the versions that it
/// answered. `None` if that explains nothing.
pub fn only_old_versions(offered: &[Version], spoken: &[Version]) -> Option<Finding> {
    let newest = spoken.iter().max().filter(|newest| !offered.contains(newest))?;
    let newest = version_name(*newest);
    Some(
        Finding::error(
            code::NO_COMMON_VERSION,
            format!("the server speaks none of the versions that the client offers: its newest is {newest}"),
            "It was asked with each version alone, and answered old ones only. They were given up (RFC 8996).",
            "Allow TLS 1.2 and 1.3 on the server, or update it.",
        )
        .with("server speaks", list(spoken, version_name)),
    )
}

fn unanswered(seen: &Observation) -> Finding {
    let (what, fix) = match seen.server.end {
        Some(End::Reset) => (
            "reset the connection at the ClientHello",
            "Look at the server's log. If it has no line of this connection, something between reset it: a firewall \
             that looks at the server name, or a load balancer without a healthy server behind.",
        ),
        Some(End::Closed) => (
            "closed the connection at the ClientHello without an alert",
            "Look at the server's log. Old servers close when they do not know the version or the server name; a port \
             that speaks something else than TLS does so too.",
        ),
        _ => (
            "did not answer the ClientHello",
            "A large ClientHello (hybrid key shares) may have been lost on the way: try without X25519MLKEM768. Or the \
             server waits for something else first (`--starttls`), or is overloaded.",
        ),
    };
    Finding::error(code::NOTHING_SENT, format!("the server {what}"), "There was no answer to explain.", fix)
        .confidence(Confidence::Possible)
}

/// An alert in place of a ServerHello, or by a client that does not wait for one.
fn refused_at_once(hello: &ClientHello, by: Side, description: u8) -> Finding {
    let versions = list(&hello.versions, version_name);
    let name = alert_name(description);
    let finding = match description {
        70 | 86 => Finding::error(
            code::NO_COMMON_VERSION,
            format!("the {by} speaks none of the versions that the client offers: {versions}"),
            if hello.versions.iter().all(|version| *version < version::TLS12) {
                "The client is limited to versions that were given up (RFC 8996); most servers refuse them."
            } else if hello.versions.contains(&version::TLS12) {
                "The client offers TLS 1.2 or newer, so the server is limited to older versions, or to newer ones only."
            } else {
                "The client offers TLS 1.3 only, and the server does not speak it."
            },
            "Allow TLS 1.2 and 1.3 on both sides. `enclasp doctor connect` lists the versions that a server takes.",
        ),
        40 | 71 | 47 | 109 => Finding::error(
            code::NO_COMMON_PARAMETERS,
            format!("the {by} found nothing in common with what the client offers, and answered {name}"),
            "The version would do; but no cipher suite, key exchange group or signature scheme is on both lists, or the \
             server has no certificate of a type that the client verifies. Some servers answer so to a server name \
             that they do not know.",
            "Compare the lists below with the server's settings. A server with an RSA certificate needs a client that \
             offers rsa_pss schemes and (before TLS 1.3) RSA suites; one with an EC certificate needs ecdsa schemes and \
             ECDSA suites.",
        )
        .confidence(Confidence::Likely),
        112 => Finding::error(
            code::NAME_NOT_SERVED,
            format!(
                "the server does not serve {}",
                hello.server_name.as_deref().unwrap_or("a client that names no server")
            ),
            "It looked at the server name in the ClientHello (SNI), and has no certificate for it.",
            "Use the name that the server is configured for, or add this one to it.",
        ),
        120 => Finding::error(
            code::NO_COMMON_ALPN,
            format!("the server speaks none of the protocols that the client offers: {}", hello.alpn.join(", ")),
            "Application protocols are agreed upon within TLS (ALPN), and the lists have nothing in common.",
            "Offer what the server speaks (http/1.1, h2, …), or no protocol at all.",
        ),
        50 => Finding::error(
            code::MALFORMED,
            format!("the {by} could not parse the other side's first message"),
            "It answered decode_error. Bytes were changed on the way, or one of the programs does not follow the \
             standard.",
            "Compare a capture of both ends: `enclasp doctor both`.",
        )
        .confidence(Confidence::Likely),
        80 => Finding::error(
            code::REFUSED_OTHER,
            format!("the {by} failed on its side before it answered"),
            "internal_error says that the fault is its own: often a certificate or key that it cannot load.",
            "Its log says why.",
        )
        .confidence(Confidence::Likely),
        _ => Finding::error(
            code::NOT_UNDERSTOOD,
            format!("the {by} answered the ClientHello with {name}"),
            "This alert is not expected here.",
            "The log of the side that sent it says more.",
        )
        .confidence(Confidence::Unknown),
    };
    finding
        .with("alert", format!("{name} ({description}) by the {by}"))
        .with("versions offered", versions)
        .with("suites offered", list(&hello.suites, suite_name))
        .with("groups offered", list(&hello.groups, group_name))
        .with("schemes offered", list(&hello.schemes, scheme_name))
}
