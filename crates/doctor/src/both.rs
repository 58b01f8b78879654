//! Two recordings of one connection, made at its two ends: what one side sent and the other did not
//! receive.

use crate::wire::names::message_name;
use crate::wire::{Reader, Side};
use crate::{Confidence, Context, End, Finding, Recording, Report, code, diagnose, observe};

/// Joins the client's and the server's recording of a connection: what changed or was lost on the
/// way comes first, then what [`diagnose`] says of what both saw. Evidence is in the server's time.
pub fn diagnose_both(client: &Recording, server: &Recording, context: &Context) -> Report {
    let mut findings = Vec::new();
    for side in [Side::Client, Side::Server] {
        let (sender, receiver) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        findings.extend(compare(side, &sender.sent_by(side), &receiver.sent_by(side)));
    }
    if findings.is_empty() {
        findings.extend(ends(client, server));
    }
    let mut joined = server.clone();
    joined.secrets.extend(&client.secrets);
    let report = diagnose("", &observe(&joined), context);
    let altered = findings.iter().any(|finding| finding.code == code::ALTERED);
    let fault = match report.verdict() {
        _ if altered => "something between the two",
        Some(verdict)
            if verdict.title.contains("the client's") || verdict.title.starts_with("the client") =>
        {
            "the client's side, by what both ends saw"
        }
        Some(verdict)
            if verdict.title.contains("the server's") || verdict.title.starts_with("the server") =>
        {
            "the server's side, by what both ends saw"
        }
        Some(_) => "not to be told",
        None if findings.is_empty() => "nobody",
        None => "something between the two",
    };
    findings.extend(report.findings);
    let examined = format!("the connection from {} to {}", client.client, server.server);
    let mut joined = Report::new(examined, findings, report.evidence);
    joined.evidence.insert(0, crate::Evidence::new("at fault", fault));
    joined
}

/// Finds where the bytes that one side sent differ from those that arrived.
fn compare(sender: Side, sent: &[u8], arrived: &[u8]) -> Option<Finding> {
    let same = sent.iter().zip(arrived).take_while(|(sent, arrived)| sent == arrived).count();
    let other = sender.other();
    if same < sent.len().min(arrived.len()) {
        let around = |bytes: &[u8]| enclasp_pki::hex(&bytes[same..bytes.len().min(same + 16)]);
        let first = same == 0 && !hello_matches(sent, arrived);
        return Some(
            if first {
                Finding::error(
                    code::NOT_THE_SAME,
                    format!("what the {other} received begins differently from what the {sender} sent"),
                    "Either the two recordings are not of the same connection, or something between ends TLS and begins it \
                     anew: a proxy that inspects it, a load balancer, an antivirus program.",
                    "Compare the certificates that both ends saw. Mutual TLS does not pass through a proxy that ends it.",
                )
                .confidence(Confidence::Likely)
            } else {
                Finding::error(
                    code::ALTERED,
                    format!("what the {sender} sent was changed on the way to the {other}"),
                    format!("The first {same} bytes are the same, then they differ, within {}.", place(sent, same)),
                    "Look for a device between that rewrites TLS: a firewall, a proxy, a faulty network card.",
                )
            }
            .with("sent", around(sent))
            .with("arrived", around(arrived)),
        );
    }
    (arrived.len() < sent.len()).then(|| {
        Finding::error(
            code::LOST,
            format!("{} bytes that the {sender} sent did not reach the {other}", sent.len() - arrived.len()),
            format!(
                "The {other} received the first {} bytes and no more: the loss begins within {}.",
                arrived.len(),
                place(sent, arrived.len())
            ),
            "If the ClientHello is what is lost: some devices drop those that take two packets. If the last alert is lost: the \
             sender closed its socket with unread bytes in it, and the reset overtook the alert.",
        )
        .confidence(Confidence::Likely)
    })
}

/// Whether both begin with a ClientHello or ServerHello of the same random value.
fn hello_matches(one: &[u8], other: &[u8]) -> bool {
    let random = |bytes: &[u8]| bytes.get(11..43).map(<[u8]>::to_vec);
    random(one).is_some() && random(one) == random(other)
}

/// The record or message that a byte of a stream is in.
fn place(stream: &[u8], at: usize) -> String {
    let mut reader = Reader::new(stream);
    let mut offset = 0;
    loop {
        let mut header = || Some((reader.u8()?, reader.u16()?, reader.vec16()?));
        let Some((kind, _, payload)) = header() else { return "the last record".into() };
        let end = offset + 5 + payload.len();
        if at < end {
            return match (kind, payload.first()) {
                (22, Some(message)) => format!("the record of {} at byte {offset}", message_name(*message)),
                _ => format!("the record of type {kind} at byte {offset}"),
            };
        }
        offset = end;
    }
}

/// One end saw the other cut the connection, which the other did not do.
fn ends(client: &Recording, server: &Recording) -> Option<Finding> {
    let cut = |side: Side, own: &Recording, seen: &Recording| {
        seen.end_of(side) == Some(End::Reset) && own.end_of(side) != Some(End::Reset)
    };
    let (victim, innocent) = if cut(Side::Server, server, client) {
        (Side::Client, Side::Server)
    } else if cut(Side::Client, client, server) {
        (Side::Server, Side::Client)
    } else {
        return None;
    };
    Some(
        Finding::error(
            code::CUT,
            format!("the {victim} saw the {innocent} reset the connection, and the {innocent} did not do it"),
            "A reset came from something between, or from the system because bytes were unread when the socket was closed.",
            "Look for a firewall or an idle timeout between the two.",
        )
        .confidence(Confidence::Possible),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_placed() {
        let stream = [&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], &[20, 3, 3, 0, 1, 1]].concat();
        let mut changed = stream.clone();
        changed[14] = 9;
        let finding = compare(Side::Client, &stream, &changed).unwrap();
        assert_eq!(finding.code, code::ALTERED);
        assert!(finding.why.contains("the record of type 20 at byte 9"), "{}", finding.why);
        let finding = compare(Side::Server, &stream, &stream[..3]).unwrap();
        assert_eq!(finding.code, code::LOST);
        assert!(finding.why.contains("the record of ClientHello at byte 0"), "{}", finding.why);
        assert_eq!(compare(Side::Client, &stream, &stream), None);
        let other: Vec<u8> = stream.iter().map(|byte| !byte).collect();
        assert_eq!(compare(Side::Client, &stream, &other).unwrap().code, code::NOT_THE_SAME);
    }
}
