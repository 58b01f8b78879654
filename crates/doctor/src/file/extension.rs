//! Extensions (RFC 5280 §4.2), as certificates, revocation lists and requests have them.

use std::net::IpAddr;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use enclasp_pki::oid_in_words;

use super::node::{BOOLEAN, Node, with_article};
use super::rules;
use super::shapes::EXTENSIONS;
use super::sheet::Sheet;
use crate::{Finding, code};

/// An extension whose contents could be read.
pub(super) struct Extension {
    pub(super) oid: ObjectIdentifier,
    pub(super) critical: bool,
    /// What its OCTET STRING holds, with offsets and paths of the file.
    pub(super) value: Node,
}

/// The extensions of a list, and what is wrong with the list and with how each is encoded.
pub(super) fn read_all(list: &Node, sheet: &mut Sheet) -> Vec<Extension> {
    let mut extensions: Vec<Extension> = Vec::new();
    for node in list.children() {
        let [oid, .., octets] = node.children() else { continue };
        let Ok(oid) = ObjectIdentifier::from_bytes(oid.value()) else { continue };
        let critical = node.children().iter().any(|child| child.tag == BOOLEAN && child.value() != [0]);
        if extensions.iter().any(|extension| extension.oid == oid) {
            sheet.findings.push(
                Finding::error(
                    code::CERT_EXTENSION,
                    format!("the extension {} is there twice", oid_in_words(oid)),
                    "Each extension occurs at most once (RFC 5280 §4.2).",
                    "Leave one of them out.",
                )
                .with_at("second", oid_in_words(oid), node.place()),
            );
            continue;
        }
        let bytes = octets.value();
        match Node::read(bytes, 0, bytes.len(), octets.contents_offset()) {
            Ok((mut value, end)) if end == bytes.len() => {
                super::shape::Shape::Any.fit(&mut value, &octets.path, &mut Vec::new());
                // What is wrong inside cannot be mended without a new signature.
                let mut inside = Sheet::default();
                rules::check(&mut value, &mut inside);
                sheet.findings.append(&mut inside.findings);
                extensions.push(Extension { oid, critical, value });
            }
            other => {
                let found = match other {
                    Ok((_, end)) => format!("{} bytes after its end", bytes.len() - end),
                    Err(_) => "bytes that are no DER".into(),
                };
                sheet.findings.push(
                    Finding::error(
                        code::CERT_EXTENSION,
                        format!("the extension {} is malformed: it holds {found}", oid_in_words(oid)),
                        "extnValue is an OCTET STRING whose contents are the DER of the extension's value (RFC 5280 §4.2).",
                        "Encode the value as DER, once.",
                    )
                    .with_at("found", found, octets.place()),
                );
            }
        }
    }
    extensions
}

/// Looks at the extensions that a request asks for; returns how many alternative names are among them.
pub(super) fn requested(list: &Node, sheet: &mut Sheet) -> usize {
    let mut list = list.clone();
    let path = list.path.clone();
    let mut misfits = Vec::new();
    EXTENSIONS.fit(&mut list, &path, &mut misfits);
    if let Some(misfit) = misfits.first() {
        sheet.findings.push(
            Finding::error(
                code::CERT_EXTENSION,
                "the requested extensions are no Extensions",
                "extensionRequest holds SEQUENCE OF { extnID, critical DEFAULT FALSE, extnValue OCTET STRING } (RFC 5280 §4.1).",
                "Encode them in that form.",
            )
            .with_at("expected", misfit.expected.as_deref().unwrap_or("nothing"), misfit.place.clone()),
        );
        return 0;
    }
    let extensions = read_all(&list, sheet);
    let names = extensions.iter().find(|extension| extension.oid == ID_CE_SUBJECT_ALT_NAME);
    names.map_or(0, |names| alternative_names(&names.value, sheet).len())
}

/// A subject alternative name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum AlternativeName {
    Dns(String),
    Ip(IpAddr),
    /// Of a kind that no host is looked up by.
    Other,
}

/// The names of a SubjectAltName (RFC 5280 §4.2.1.6), and what is wrong with them.
pub(super) fn alternative_names(value: &Node, sheet: &mut Sheet) -> Vec<AlternativeName> {
    let mut names = Vec::new();
    let mut add = |node: &Node, found: String, expected: &str| {
        sheet.findings.push(
            Finding::error(
                code::CERT_NAME,
                found.clone(),
                "Each kind of alternative name has one form (RFC 5280 §4.2.1.6), and whoever compares names passes over those that \
                 do not have it.",
                format!("Give {expected}."),
            )
            .with_at("found", found, node.place()),
        );
    };
    if value.children().is_empty() {
        add(
            value,
            "the subject alternative names are an empty list".into(),
            "one name at least, or leave the extension out",
        );
    }
    for node in value.children() {
        let text = String::from_utf8_lossy(node.value());
        let shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
        match node.tag {
            0x82 => {
                match fault_of_dns(&text) {
                    Some((fault, expected)) => add(node, format!("the DNS name `{shown}` {fault}"), expected),
                    None => names.push(AlternativeName::Dns(text.to_ascii_lowercase())),
                };
            }
            0x87 => match (<[u8; 4]>::try_from(node.value()), <[u8; 16]>::try_from(node.value())) {
                (Ok(v4), _) => names.push(AlternativeName::Ip(v4.into())),
                (_, Ok(v6)) => names.push(AlternativeName::Ip(v6.into())),
                _ => {
                    let length = node.value().len();
                    let as_text = text.parse::<IpAddr>().is_ok();
                    let how = if as_text {
                        format!("is the text `{shown}`")
                    } else {
                        format!("has {length} bytes")
                    };
                    add(node, format!("an IP address {how}"), "its 4 or 16 bytes, in network byte order");
                }
            },
            0x81 => {
                if !text.is_ascii() || text.matches('@').count() != 1 {
                    add(
                        node,
                        format!("the mailbox `{shown}` is not of the form local@domain"),
                        "a mailbox in ASCII",
                    );
                }
                names.push(AlternativeName::Other);
            }
            0x86 => {
                if !text.is_ascii() || !text.contains(':') {
                    add(
                        node,
                        format!("the URI `{shown}` has no scheme, or is not ASCII"),
                        "an absolute URI in ASCII",
                    );
                }
                names.push(AlternativeName::Other);
            }
            0x88 | 0xa0 | 0xa3 | 0xa4 | 0xa5 => names.push(AlternativeName::Other),
            _ => add(
                node,
                format!("an alternative name is {}", with_article(&node.describe())),
                "a GeneralName, whose kind is its context-specific tag: [2] for DNS, [7] for an address",
            ),
        }
    }
    names
}

/// What is wrong with a DNS name in a certificate, and what to give in its place.
fn fault_of_dns(name: &str) -> Option<(&'static str, &'static str)> {
    let labels: Vec<&str> = name.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.parse::<IpAddr>().is_ok() {
        Some(("is an IP address", "an address as the kind iPAddress: `ip:` in Enclasp, `IP:` in OpenSSL"))
    } else if name.contains("://") || name.contains('/') {
        Some(("is a URL", "the host's name alone"))
    } else if !name.is_ascii() {
        Some(("is not ASCII", "internationalized names in their xn-- form"))
    } else if name.contains(':') {
        Some(("has a port", "the host's name alone: certificates know no ports"))
    } else if name.ends_with('.') {
        Some(("ends with a dot", "the name without the dot at its end"))
    } else if name.contains('*')
        && (labels.first() != Some(&"*") || name.matches('*').count() > 1 || labels.len() < 3)
    {
        Some(("has a * other than as its whole first label", "a wildcard in the form *.example.com"))
    } else if !labels.iter().skip(usize::from(labels.first() == Some(&"*"))).all(is_label) {
        Some(("is no host name", "letters, digits and hyphens, in labels of at most 63"))
    } else {
        None
    }
}
