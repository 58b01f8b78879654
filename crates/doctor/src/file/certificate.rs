//! One certificate (RFC 5280): what is wrong with it by itself.

use std::time::SystemTime;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ANY_EXTENDED_KEY_USAGE, ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS,
    ID_CE_CERTIFICATE_POLICIES, ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_EXT_KEY_USAGE, ID_CE_INHIBIT_ANY_POLICY,
    ID_CE_ISSUER_ALT_NAME, ID_CE_KEY_USAGE, ID_CE_NAME_CONSTRAINTS, ID_CE_POLICY_CONSTRAINTS,
    ID_CE_POLICY_MAPPINGS, ID_CE_SUBJECT_ALT_NAME, ID_CE_SUBJECT_KEY_IDENTIFIER, ID_KP_CLIENT_AUTH,
    ID_KP_SERVER_AUTH,
};
use enclasp_pki::{Certificate, Purpose, oid_in_words, rfc3339};

use super::extension::{AlternativeName, Extension, alternative_names, read_all};
use super::node::{BOOLEAN, INTEGER, Node, OID};
use super::public_key::{self, PublicKey};
use super::shapes::CERTIFICATE;
use super::sheet::Sheet;
use super::{File, rules, shape, time};
use crate::{Finding, Place, code};

/// A certificate that was looked at.
pub(super) struct Seen {
    /// As it was read, with what could be mended outside of the signed part.
    pub(super) root: Node,
    /// The signed part, byte for byte.
    pub(super) signed_part: Vec<u8>,
    /// Its key, if that can be made out and nothing in the signed part had to be mended for it.
    pub(super) key: Option<PublicKey>,
    /// The same certificate for chains, if it is as it should be.
    pub(super) parsed: Option<Certificate>,
    /// What a person calls it.
    pub(super) name: String,
    /// What its paths begin with.
    pub(super) path: String,
    pub(super) is_ca: bool,
    subject_key_identifier: Option<Vec<u8>>,
    pub(super) authority_key_identifier: Option<Vec<u8>>,
}

impl Seen {
    pub(super) fn find(&self, path: &str) -> Option<&Node> {
        self.root.find(&join(&self.path, path))
    }

    /// Whether the signed part is what it was: a change would make the signature wrong.
    pub(super) fn is_as_signed(&self) -> bool {
        self.find("tbsCertificate").map(Node::encode).as_ref() == Some(&self.signed_part)
    }

    pub(super) fn is_self_issued(&self) -> bool {
        let name = |path| self.find(path).map(Node::encode);
        name("tbsCertificate.issuer") == name("tbsCertificate.subject")
    }

    pub(super) fn place(&self, path: &str) -> Place {
        self.find(path).map_or_else(|| self.root.place(), Node::place)
    }

    /// Whether its authority key identifier, if it has one, is the key identifier of `issuer`.
    pub(super) fn names_key_of(&self, issuer: &Self) -> bool {
        match (&self.authority_key_identifier, &issuer.subject_key_identifier) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        }
    }
}

pub(super) fn join(prefix: &str, path: &str) -> String {
    if prefix.is_empty() { path.to_owned() } else { format!("{prefix}.{path}") }
}

/// Says what is wrong with the certificate in `der`, whose paths begin with `path`. `None` if it
/// cannot be read.
pub(super) fn examine(der: &[u8], path: &str, file: &File<'_>, sheet: &mut Sheet) -> Option<Seen> {
    let reading = match shape::read(der, &CERTIFICATE, 0, path) {
        Ok(reading) => reading,
        Err(unreadable) => {
            sheet.unreadable(der, &unreadable);
            return None;
        }
    };
    let at = |suffix: &str| join(path, suffix);
    let tbs = reading.root.find(&at("tbsCertificate"));
    let signed_part =
        tbs.and_then(|tbs| der.get(tbs.offset..tbs.offset + tbs.size)).unwrap_or_default().to_vec();
    let repairs = sheet.repairs.len();
    sheet.outlines(&reading);
    let whole = reading.misfits.is_empty();
    let mut root = reading.root;
    rules::check(&mut root, sheet);
    if !whole {
        return None;
    }
    let key_path = at("tbsCertificate.subjectPublicKeyInfo");
    let key = root.find_mut(&key_path).and_then(|node| public_key::examine(node, sheet));
    let encoded = root.find(&at("tbsCertificate")).map(Node::encode);
    if encoded.as_ref() != Some(&signed_part) {
        // Only whoever signed it can mend what is signed.
        sheet.repairs.truncate(repairs);
    }
    let parsed = Certificate::from_der(&root.encode()).ok();
    let name = parsed.as_ref().map_or_else(|| "the certificate".into(), Certificate::name);
    let extensions =
        root.find(&at("tbsCertificate.extensions")).and_then(|explicit| explicit.children().first());
    let extensions = extensions.map_or(Vec::new(), |list| read_all(list, sheet));
    let constraints = extensions.iter().find(|extension| extension.oid == ID_CE_BASIC_CONSTRAINTS);
    let is_ca = constraints.is_some_and(|constraints| says_ca(&constraints.value));
    let mut seen = Seen {
        signed_part,
        key,
        parsed,
        name,
        path: path.to_owned(),
        is_ca,
        subject_key_identifier: None,
        authority_key_identifier: None,
        root,
    };
    check_version_and_serial(&seen, !extensions.is_empty(), sheet);
    check_algorithms(&seen, sheet);
    check_validity(&seen, file.now, sheet);
    check_extensions(&mut seen, &extensions, file, sheet);
    Some(seen)
}

fn check_version_and_serial(seen: &Seen, has_extensions: bool, sheet: &mut Sheet) {
    let version = seen.find("tbsCertificate.version").and_then(|explicit| explicit.children().first());
    let version = version.map_or(&[0][..], Node::value);
    let name = &seen.name;
    let wrong = match (version, has_extensions) {
        ([2], _) => None,
        ([0], true) => Some("it has extensions, and says that it is of version 1".to_owned()),
        ([0], false) if seen.is_self_issued() => None,
        ([0], false) => Some("it is of X.509 version 1, without extensions".to_owned()),
        (other, _) => Some(format!("its version is 0x{}", enclasp_pki::hex(other.get(..4).unwrap_or(other)))),
    };
    if let Some(wrong) = wrong {
        sheet.findings.push(
            Finding::error(
                code::CERT_VERSION,
                format!("{name}: {wrong}"),
                "Certificates are of version 3, whose number is 2 (RFC 5280 §4.1.2.1). rustls, Go and others refuse all others; \
                 `openssl x509 -req` without -extfile makes version 1.",
                "Have it issued again with extensions: `-extfile`, or `enclasp ca sign`.",
            )
            .with_at("version", enclasp_pki::hex(version.get(..4).unwrap_or(version)), seen.place("tbsCertificate.version")),
        );
    }
    let serial = seen.find("tbsCertificate.serialNumber").map_or(&[][..], Node::value);
    let wrong = match serial {
        [0x80..=0xff, ..] => Some("is negative"),
        [0] => Some("is 0"),
        long if long.len() > 20 => Some("has more than 20 bytes"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let finding = Finding::error(
            code::CERT_SERIAL,
            format!("{name}: its serial number {wrong}"),
            "A serial number is positive and has at most 20 bytes (RFC 5280 §4.1.2.2). rustls and Go refuse negative ones; a CA \
             that takes random bytes as they are makes every other one negative.",
            "Have it issued again.",
        );
        let finding =
            if serial == [0] { Finding { severity: crate::Severity::Warning, ..finding } } else { finding };
        let shown = enclasp_pki::hex(serial.get(..24).unwrap_or(serial));
        sheet.findings.push(finding.with_at(
            "serial number",
            shown,
            seen.place("tbsCertificate.serialNumber"),
        ));
    }
}

fn check_algorithms(seen: &Seen, sheet: &mut Sheet) {
    let (Some(inner), Some(outer)) = (seen.find("tbsCertificate.signature"), seen.find("signatureAlgorithm"))
    else {
        return;
    };
    if inner.contents() == outer.contents() {
        return;
    }
    let words = |node: &Node| public_key::algorithm_of(node).map_or("?".into(), |(oid, _)| oid_in_words(oid));
    sheet.findings.push(
        Finding::error(
            code::CERT_ALGORITHMS,
            format!("{}: it names its signature algorithm twice, differently", seen.name),
            "signatureAlgorithm and tbsCertificate.signature have to be the same, parameters included (RFC 5280 §4.1.1.2). The \
             inner one is signed, the outer one is not.",
            "If the inner one is right, write it outside, too; else have it issued again.",
        )
        .with_at("inside", words(inner), inner.place())
        .with_at("outside", words(outer), outer.place()),
    );
}

fn check_validity(seen: &Seen, now: SystemTime, sheet: &mut Sheet) {
    let read = |path: &str| seen.find(path).and_then(|node| time::read(node).ok()).map(|time| time.at);
    let (from_path, to_path) = ("tbsCertificate.validity.notBefore", "tbsCertificate.validity.notAfter");
    let (Some(from), Some(to)) = (read(from_path), read(to_path)) else { return };
    let name = &seen.name;
    if to < from {
        sheet.findings.push(
            Finding::error(
                code::CERT_VALIDITY,
                format!("{name}: it ends before it begins"),
                "notAfter is earlier than notBefore, so it is never valid.",
                "Have it issued again.",
            )
            .with_at(
                "valid",
                format!("from {} to {}", rfc3339(from), rfc3339(to)),
                seen.place("tbsCertificate.validity"),
            ),
        );
        return;
    }
    let clock = "Check this machine's clock first: everything else follows from it.";
    if now > to {
        let finding = Finding::error(
            code::CERT_EXPIRED,
            format!("{name}: it expired at {}", rfc3339(to)),
            "Peers refuse an expired certificate.",
            format!("Renew it: `enclasp renew`, or ask whoever issued it. {clock}"),
        );
        // Nobody looks at the validity of a root that is trusted by name.
        let is_root = seen.is_ca && seen.is_self_issued();
        let severity = if is_root { crate::Severity::Warning } else { finding.severity };
        let finding = Finding { severity, ..finding };
        sheet.findings.push(finding.with("this clock", rfc3339(now)).with_at(
            "notAfter",
            rfc3339(to),
            seen.place(to_path),
        ));
    } else if now < from {
        sheet.findings.push(
            Finding::error(
                code::CERT_NOT_YET_VALID,
                format!("{name}: it is not valid before {}", rfc3339(from)),
                "A machine whose clock is behind that of the CA sees this, too.",
                clock,
            )
            .with("this clock", rfc3339(now))
            .with_at("notBefore", rfc3339(from), seen.place(from_path)),
        );
    }
}

/// Extensions that every TLS stack knows.
const KNOWN: [ObjectIdentifier; 13] = [
    ID_CE_AUTHORITY_KEY_IDENTIFIER,
    ID_CE_BASIC_CONSTRAINTS,
    ID_CE_CERTIFICATE_POLICIES,
    ID_CE_CRL_DISTRIBUTION_POINTS,
    ID_CE_EXT_KEY_USAGE,
    ID_CE_INHIBIT_ANY_POLICY,
    ID_CE_ISSUER_ALT_NAME,
    ID_CE_KEY_USAGE,
    ID_CE_NAME_CONSTRAINTS,
    ID_CE_POLICY_CONSTRAINTS,
    ID_CE_POLICY_MAPPINGS,
    ID_CE_SUBJECT_ALT_NAME,
    ID_CE_SUBJECT_KEY_IDENTIFIER,
];

/// The bits of a KeyUsage (RFC 5280 §4.2.1.3).
const DIGITAL_SIGNATURE: usize = 0;
const KEY_CERT_SIGN: usize = 5;
/// That a CRL's issuer needs.
pub(super) const CRL_SIGN: usize = 6;

/// Whether basicConstraints (RFC 5280 §4.2.1.9) say cA.
fn says_ca(constraints: &Node) -> bool {
    constraints.children().iter().any(|child| child.tag == BOOLEAN && child.value() != [0])
}

/// Whether a bit of a named bit list is set; the first is the highest of the first byte.
pub(super) fn has_bit(value: &Node, bit: usize) -> bool {
    value.value().get(1 + bit / 8).is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0)
}

fn check_extensions(seen: &mut Seen, extensions: &[Extension], file: &File<'_>, sheet: &mut Sheet) {
    let find = |oid| extensions.iter().find(|extension| extension.oid == oid);
    let name = seen.name.clone();
    let constraints = find(ID_CE_BASIC_CONSTRAINTS);
    seen.subject_key_identifier =
        find(ID_CE_SUBJECT_KEY_IDENTIFIER).map(|extension| extension.value.value().to_vec());
    let authority = find(ID_CE_AUTHORITY_KEY_IDENTIFIER);
    let identifier =
        authority.and_then(|extension| extension.value.children().iter().find(|child| child.tag == 0x80));
    seen.authority_key_identifier = identifier.map(|identifier| identifier.value().to_vec());
    for extension in
        extensions.iter().filter(|extension| extension.critical && !KNOWN.contains(&extension.oid))
    {
        let words = oid_in_words(extension.oid);
        sheet.findings.push(
            Finding::error(
                code::CERT_CRITICAL,
                format!("{name}: a critical extension that hardly any program knows: {words}"),
                "Whoever does not know a critical extension has to refuse the certificate (RFC 5280 §4.2).",
                "Have it issued again with this extension not critical, or without it.",
            )
            .with_at("extension", words, extension.value.place()),
        );
    }
    check_constraints(seen, constraints, find(ID_CE_KEY_USAGE), sheet);
    let names = find(ID_CE_SUBJECT_ALT_NAME).map(|names| (names, alternative_names(&names.value, sheet)));
    if !seen.is_ca {
        check_purpose(seen, find(ID_CE_EXT_KEY_USAGE), file.purpose, sheet);
        check_names(
            seen,
            names.as_ref().map(|(_, names)| &names[..]),
            find(ID_CE_EXT_KEY_USAGE),
            file,
            sheet,
        );
    } else if let Some(purpose) = file.purpose.filter(|_| seen.path.is_empty()) {
        sheet.findings.push(Finding::error(
            code::CERT_CONSTRAINTS,
            format!("{name}: it is a CA's certificate, not one for {}", in_words(purpose)),
            "Its basicConstraints say cA. rustls and others refuse a CA's certificate for a client or server.",
            "Have a certificate issued by this CA, and use that.",
        ));
    }
    let empty = seen.find("tbsCertificate.subject").is_some_and(|subject| subject.children().is_empty());
    if empty && !names.as_ref().is_some_and(|(names, _)| names.critical) {
        sheet.findings.push(
            Finding::warning(
                code::CERT_NO_NAMES,
                format!("{name}: its subject is empty, and its alternative names are not critical"),
                "With an empty subject the subjectAltName extension has to be there and critical (RFC 5280 §4.2.1.6).",
                "Have it issued with a subject, or with the extension critical.",
            )
            .with_at("subject", "empty", seen.place("tbsCertificate.subject")),
        );
    }
}

fn check_constraints(
    seen: &Seen,
    constraints: Option<&Extension>,
    usage: Option<&Extension>,
    sheet: &mut Sheet,
) {
    let name = &seen.name;
    let signs = usage.map(|usage| has_bit(&usage.value, KEY_CERT_SIGN));
    let mut add = |title: String, why: &str, severity, place: Place| {
        let finding = Finding::error(code::CERT_CONSTRAINTS, title, why, "Have it issued again.");
        sheet.findings.push(Finding { severity, ..finding }.with_at("found", "", place));
    };
    let here = || seen.place("tbsCertificate.extensions");
    if seen.is_ca {
        if signs == Some(false) {
            let why = "A CA's key usage has to include keyCertSign (RFC 5280 §4.2.1.3); without it, whatever it issued is refused.";
            let title = format!("{name}: it is a CA's, and its key usage does not let it sign certificates");
            add(title, why, crate::Severity::Error, here());
        }
        if constraints.is_some_and(|constraints| !constraints.critical) {
            let why =
                "RFC 5280 §4.2.1.9 has basicConstraints critical in a CA's certificate. Few programs insist.";
            add(
                format!("{name}: its basicConstraints are not critical"),
                why,
                crate::Severity::Warning,
                here(),
            );
        }
        return;
    }
    if signs == Some(true) {
        let why = "Its key usage says keyCertSign, and no basicConstraints say cA: whatever it signs is refused, and some refuse \
                   itself.";
        add(
            format!("{name}: it may sign certificates, and is not a CA's"),
            why,
            crate::Severity::Error,
            here(),
        );
    }
    if constraints
        .is_some_and(|constraints| constraints.value.children().iter().any(|child| child.tag == INTEGER))
    {
        let why = "pathLenConstraint is for CAs alone (RFC 5280 §4.2.1.9).";
        add(format!("{name}: it has a path length, and is not a CA's"), why, crate::Severity::Error, here());
    }
    let digital = usage.map(|usage| has_bit(&usage.value, DIGITAL_SIGNATURE));
    if digital == Some(false) {
        let finding = Finding::error(
            code::CERT_KEY_USAGE,
            format!("{name}: its key usage does not include digitalSignature"),
            "In TLS 1.3, and in TLS 1.2 but for RSA key exchange, a client or server signs the handshake. Peers refuse a certificate \
             whose key usage does not allow that.",
            "Have it issued with the key usage digitalSignature.",
        );
        let place = usage.map_or_else(here, |usage| usage.value.place());
        sheet.findings.push(finding.with_at("found", "digitalSignature is not set", place));
    }
}

fn usages_of(extension: &Extension) -> Vec<ObjectIdentifier> {
    let oids = extension.value.children().iter().filter(|child| child.tag == OID);
    oids.filter_map(|oid| ObjectIdentifier::from_bytes(oid.value()).ok()).collect()
}

fn in_words(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Client => "a client",
        Purpose::Server => "a server",
    }
}

fn check_purpose(seen: &Seen, usages: Option<&Extension>, purpose: Option<Purpose>, sheet: &mut Sheet) {
    let Some(extension) = usages else { return };
    let usages = usages_of(extension);
    let has = |oid| usages.contains(&oid) || usages.contains(&ANY_EXTENDED_KEY_USAGE);
    let good = match purpose {
        Some(Purpose::Client) => has(ID_KP_CLIENT_AUTH),
        Some(Purpose::Server) => has(ID_KP_SERVER_AUTH),
        None => has(ID_KP_CLIENT_AUTH) || has(ID_KP_SERVER_AUTH),
    };
    if good {
        return;
    }
    let found: Vec<String> = usages.iter().map(|oid| oid_in_words(*oid)).collect();
    let (what, profile) = match purpose {
        Some(Purpose::Client) => ("a TLS client", "clientAuth"),
        Some(Purpose::Server) => ("a TLS server", "serverAuth"),
        None => ("TLS", "clientAuth or serverAuth"),
    };
    sheet.findings.push(
        Finding::error(
            code::CERT_PURPOSE,
            format!("{}: it is not for {what}", seen.name),
            "Its extended key usage lists what it is for, and TLS peers refuse whatever is not listed (RFC 5280 §4.2.1.12).",
            format!("Have it issued with the extended key usage {profile}."),
        )
        .with_at("found", format!("{}; expected {profile}", found.join(", ")), extension.value.place()),
    );
}

fn check_names(
    seen: &Seen,
    names: Option<&[AlternativeName]>,
    usages: Option<&Extension>,
    file: &File<'_>,
    sheet: &mut Sheet,
) {
    let names = names.unwrap_or_default();
    let serves = file.purpose == Some(Purpose::Server)
        || file.host.is_some()
        || (file.purpose.is_none()
            && usages.is_some_and(|usages| usages_of(usages).contains(&ID_KP_SERVER_AUTH)));
    let hosts = names.iter().any(|name| !matches!(name, AlternativeName::Other));
    if serves && !hosts {
        let only_server = !usages.is_some_and(|usages| usages_of(usages).contains(&ID_KP_CLIENT_AUTH));
        let finding = Finding::error(
            code::CERT_NO_NAMES,
            format!("{}: it is for a server, and names no host in its subject alternative names", seen.name),
            "Clients look for the server's name in the subject alternative names alone; the common name has not counted for years \
             (RFC 9525 §2).",
            "Have it issued with the host's names: `enclasp ca sign … --profile server` takes those of the request.",
        );
        let sure = only_server || file.purpose == Some(Purpose::Server) || file.host.is_some();
        let severity = if sure { finding.severity } else { crate::Severity::Warning };
        sheet.findings.push(Finding { severity, ..finding }.with_at(
            "found",
            "no DNS name or address",
            seen.place("tbsCertificate"),
        ));
        return;
    }
    let Some(host) = file.host else { return };
    let matches = |name: &AlternativeName| match name {
        AlternativeName::Dns(pattern) => covers(pattern, &host.to_ascii_lowercase()),
        AlternativeName::Ip(address) => host.parse() == Ok(*address),
        AlternativeName::Other => false,
    };
    if !names.iter().any(matches) {
        let listed: Vec<String> = names
            .iter()
            .filter_map(|name| match name {
                AlternativeName::Dns(name) => Some(name.clone()),
                AlternativeName::Ip(address) => Some(address.to_string()),
                AlternativeName::Other => None,
            })
            .collect();
        sheet.findings.push(
            Finding::error(
                code::CERT_OTHER_NAME,
                format!("{}: it is not for {host}", seen.name),
                "None of its subject alternative names is the one that the client asks for.",
                "Connect by one of its names, or have it issued for this one.",
            )
            .with_at("names", listed.join(", "), seen.place("tbsCertificate.extensions")),
        );
    }
}

/// Whether a DNS name of a certificate, which may begin with a wildcard, covers `host` (RFC 9525 §6.3).
fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == host,
    }
}
