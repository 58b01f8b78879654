//! Certificate revocation lists (RFC 5280 §5).

use std::collections::BTreeSet;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS,
    ID_CE_DELTA_CRL_INDICATOR, ID_CE_ISSUING_DISTRIBUTION_POINT, ID_CE_KEY_USAGE,
};
use enclasp_pki::{DistinguishedName, rfc3339};

use super::certificate::{self, CRL_SIGN, has_bit};
use super::extension::{Extension, read_all};
use super::node::{ENUMERATED, Node};
use super::shapes::{CERTIFICATE, REVOCATION_LIST};
use super::sheet::Sheet;
use super::signature::{self, Message, Role, Signed};
use super::{File, rules, shape, time};
use crate::{Evidence, Finding, Place, Severity, code};

/// Says what is wrong with a revocation list. Returns the mended one, if it can be mended.
pub(super) fn examine(der: &[u8], file: &File<'_>, sheet: &mut Sheet) -> Option<Vec<u8>> {
    let reading = match shape::read(der, &REVOCATION_LIST, 0, "") {
        Ok(reading) => reading,
        Err(unreadable) => {
            sheet.unreadable(der, &unreadable);
            return None;
        }
    };
    let tbs = reading.root.find("tbsCertList");
    let signed_part =
        tbs.and_then(|tbs| der.get(tbs.offset..tbs.offset + tbs.size)).unwrap_or_default().to_vec();
    sheet.outlines(&reading);
    if !reading.misfits.is_empty() {
        return None;
    }
    let mut root = reading.root;
    rules::check(&mut root, sheet);
    let extensions = root.find("tbsCertList.crlExtensions").and_then(|explicit| explicit.children().first());
    let extensions = extensions.map_or(Vec::new(), |list| read_all(list, sheet));
    let list = List { root: &root, extensions: &extensions };
    let issuer =
        root.find("tbsCertList.issuer").and_then(|name| DistinguishedName::from_der(&name.encode()).ok());
    let entries = root.find("tbsCertList.revokedCertificates").map_or(0, |entries| entries.children().len());
    if let Some(issuer) = &issuer {
        sheet.evidence.push(Evidence::new("issuer", issuer));
    }
    sheet.evidence.push(Evidence::new("revoked", format!("{entries} certificates")));
    check_version(&list, sheet);
    check_times(&list, file, sheet);
    check_scope(&list, file, sheet);
    check_entries(&list, file, sheet);
    let right = check_signature(&list, &signed_part, issuer.as_ref(), file, sheet);
    if root.find("tbsCertList").map(Node::encode).as_ref() != Some(&signed_part) {
        sheet.repairs.clear();
        return None;
    }
    if let Some(right) = right
        && let Some(node) = root.find_mut("signatureValue")
    {
        *node = right;
        sheet.repairs.push("encoded the signature as DER".into());
    }
    let mended = root.encode();
    (mended != der).then_some(mended)
}

struct List<'a> {
    root: &'a Node,
    extensions: &'a [Extension],
}

impl List<'_> {
    fn extension(&self, oid: ObjectIdentifier) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.oid == oid)
    }

    fn place(&self, path: &str) -> Place {
        self.root.find(path).map_or_else(|| self.root.place(), Node::place)
    }
}

fn check_version(list: &List<'_>, sheet: &mut Sheet) {
    let version = list.root.find("tbsCertList.version").map(Node::value);
    let wrong = match version {
        Some([1]) => None,
        None if list.extensions.is_empty() => Some("it is of version 1, without extensions"),
        None => Some("it has extensions, and says that it is of version 1"),
        Some(_) => Some("its version is not 2, whose number is 1"),
    };
    if let Some(wrong) = wrong {
        sheet.findings.push(
            Finding::error(
                code::CRL_VERSION,
                wrong,
                "Revocation lists are of version 2 (RFC 5280 §5.1.2.1). rustls and others refuse version 1.",
                "Have the CA write version 2: in OpenSSL's configuration, `crl_extensions` does it.",
            )
            .with_at(
                "found",
                version.map_or("no version".into(), enclasp_pki::hex),
                list.place("tbsCertList.version"),
            ),
        );
    }
    for (oid, code, name, why) in [
        (
            ID_CE_CRL_NUMBER,
            code::CRL_NO_NUMBER,
            "cRLNumber",
            "It tells newer lists from older ones; without it rustls refuses the list, and nobody sees that an old one is served.",
        ),
        (
            ID_CE_AUTHORITY_KEY_IDENTIFIER,
            code::CRL_NO_KEY_IDENTIFIER,
            "authorityKeyIdentifier",
            "It says which of its issuer's keys signed it, which is not clear after the CA has changed its key.",
        ),
    ] {
        if version == Some(&[1]) && list.extension(oid).is_none() {
            sheet.findings.push(Finding::warning(
                code,
                format!("it has no {name}"),
                format!("RFC 5280 (§5.2) demands this extension. {why}"),
                format!("Have the CA put {name} into its lists."),
            ));
        }
    }
}

fn check_times(list: &List<'_>, file: &File<'_>, sheet: &mut Sheet) {
    let read = |path: &str| list.root.find(path).and_then(|node| time::read(node).ok()).map(|time| time.at);
    let (this, next) = ("tbsCertList.thisUpdate", "tbsCertList.nextUpdate");
    let now = file.now;
    if let Some(at) = read(this)
        && at > now
    {
        sheet.findings.push(
            Finding::error(
                code::CRL_NOT_YET,
                format!("it is from the future: {}", rfc3339(at)),
                "thisUpdate is later than this clock, or this clock is behind.",
                "Check this machine's clock, then that of the CA.",
            )
            .with("this clock", rfc3339(now))
            .with_at("thisUpdate", rfc3339(at), list.place(this)),
        );
    }
    match (list.root.find(next), read(next)) {
        (None, _) => sheet.findings.push(
            Finding::warning(
                code::CRL_NO_NEXT_UPDATE,
                "it does not say when the next one comes",
                "RFC 5280 §5.1.2.5 demands nextUpdate. Without it nobody knows when the list is too old, and rustls refuses it.",
                "Have the CA put nextUpdate into its lists.",
            )
            .with_at("thisUpdate", read(this).map_or("?".into(), rfc3339), list.place(this)),
        ),
        (Some(_), Some(at)) if at < now => sheet.findings.push(
            Finding::error(
                code::CRL_EXPIRED,
                format!("it is too old: the next one was due at {}", rfc3339(at)),
                "Whoever insists on fresh lists refuses every certificate of this CA until there is a new one.",
                "Fetch the list again. If the CA serves this one, it has stopped making new ones: `enclasp ca crl`, or `openssl ca -gencrl`.",
            )
            .with("this clock", rfc3339(now))
            .with_at("nextUpdate", rfc3339(at), list.place(next)),
        ),
        _ => {}
    }
}

fn check_scope(list: &List<'_>, file: &File<'_>, sheet: &mut Sheet) {
    if let Some(delta) = list.extension(ID_CE_DELTA_CRL_INDICATOR) {
        sheet.findings.push(
            Finding::error(
                code::CRL_DELTA,
                "it is a delta: it lists only what changed since another list",
                "A delta list (RFC 5280 §5.2.4) is of use with its base list only, and hardly any TLS stack combines the two.",
                "Use the whole list, which the CA has at its distribution point.",
            )
            .with_at("base", format!("number {}", enclasp_pki::hex(delta.value.value())), delta.value.place()),
        );
    }
    let Some(point) = list.extension(ID_CE_ISSUING_DISTRIBUTION_POINT) else { return };
    let flag =
        |tag: u8| point.value.children().iter().any(|child| child.tag == tag && child.value() == [0xff]);
    let place = || point.value.place();
    if flag(0x84) {
        sheet.findings.push(
            Finding::error(
                code::CRL_INDIRECT,
                "it is indirect: it may list certificates of other issuers",
                "An indirect list (RFC 5280 §5.2.5) is signed by another authority than the certificates. rustls, Go and OpenSSL without \
                 -extended_crl do not take it.",
                "Use the list of the certificates' own issuer.",
            )
            .with_at("found", "indirectCRL", place()),
        );
    }
    let scope = [
        (0x81, "certificates of end entities"),
        (0x82, "certificates of CAs"),
        (0x85, "attribute certificates"),
    ];
    if let Some((tag, scope)) = scope.into_iter().find(|(tag, _)| flag(*tag)) {
        let is_ca = file.certificate.map(enclasp_pki::Certificate::is_ca);
        let excluded = matches!((tag, is_ca), (0x81, Some(true)) | (0x82, Some(false)) | (0x85, Some(_)));
        let finding = Finding::error(
            code::CRL_SCOPE,
            if excluded {
                format!("it is for {scope} only, and says nothing of this certificate")
            } else {
                format!("it is for {scope} only")
            },
            "Its issuingDistributionPoint limits what it speaks of (RFC 5280 §5.2.5). A certificate that it does not speak of is not known to \
             be good.",
            "Use the list for the other certificates as well.",
        );
        let severity = if excluded { Severity::Error } else { Severity::Note };
        sheet.findings.push(Finding { severity, ..finding }.with_at("found", scope, place()));
    }
    let Some(certificate) = file.certificate else { return };
    let mut here = Vec::new();
    uris(&point.value, &mut here);
    let mut there = Vec::new();
    if let Ok(reading) = shape::read(certificate.der(), &CERTIFICATE, 0, "")
        && let Some(extensions) =
            reading.root.find("tbsCertificate.extensions").and_then(|e| e.children().first())
    {
        let all = read_all(extensions, &mut Sheet::default());
        let points = all.iter().find(|extension| extension.oid == ID_CE_CRL_DISTRIBUTION_POINTS);
        points.inspect(|points| uris(&points.value, &mut there));
    }
    if !here.is_empty() && !there.is_empty() && !here.iter().any(|uri| there.contains(uri)) {
        sheet.findings.push(
            Finding::error(
                code::CRL_OTHER_POINT,
                "it is the list of another distribution point than the certificate's",
                "Where a list names its distribution point, it has to be one of those that the certificate names (RFC 5280 §6.3.3); a CA with \
                 several lists puts each certificate on one.",
                "Fetch the list from where the certificate says.",
            )
            .with_at("the list's", here.join(", "), place())
            .with("the certificate's", there.join(", ")),
        );
    }
}

/// The URIs of a distribution point's name.
fn uris(node: &Node, found: &mut Vec<String>) {
    node.walk(&mut |node| {
        if node.tag == 0x86 {
            found.push(node.value().escape_ascii().to_string());
        }
    });
}

fn check_entries(list: &List<'_>, file: &File<'_>, sheet: &mut Sheet) {
    let Some(entries) = list.root.find("tbsCertList.revokedCertificates") else { return };
    let mut wrong: Vec<(String, Place)> = Vec::new();
    if entries.children().is_empty() {
        wrong.push((
            "the list of revoked certificates is there and empty; it has to be left out".into(),
            entries.place(),
        ));
    }
    let mut serials = BTreeSet::new();
    for entry in entries.children() {
        let [serial, date, more @ ..] = entry.children() else { continue };
        let shown = || enclasp_pki::hex(serial.value().get(..24).unwrap_or(serial.value()));
        if !serials.insert(serial.value()) {
            wrong.push((format!("the serial number {} is there twice", shown()), serial.place()));
        }
        if serial.value().first().is_some_and(|first| *first >= 0x80) {
            wrong.push((format!("the serial number {} is negative", shown()), serial.place()));
        }
        if let Ok(date) = time::read(date)
            && date.at > file.now
        {
            wrong.push((
                format!("{} is revoked in the future, at {}", shown(), rfc3339(date.at)),
                serial.place(),
            ));
        }
        for extension in more.iter().flat_map(|list| read_all(list, &mut Sheet::default())) {
            let is_reason = extension.oid == ID_CE_CRL_REASONS && extension.value.tag == ENUMERATED;
            if is_reason && !matches!(extension.value.value(), [1..=6 | 8..=10]) {
                let reason =
                    enclasp_pki::hex(extension.value.value().get(..4).unwrap_or(extension.value.value()));
                wrong.push((
                    format!("the reason of {} is 0x{reason}, which is not to be used", shown()),
                    extension.value.place(),
                ));
            }
        }
    }
    if let Some(certificate) = file.certificate {
        let listed = serials.iter().any(|serial| {
            let zeros = serial.iter().take_while(|byte| **byte == 0).count();
            enclasp_pki::hex(serial.get(zeros..).unwrap_or_default()) == certificate.serial()
        });
        let verdict = if listed { "revoked by this list" } else { "not on this list" };
        sheet.evidence.push(Evidence::new("certificate", format!("{}: {verdict}", certificate.name())));
    }
    if let Some((first, _)) = wrong.first() {
        let mut finding = Finding::warning(
            code::CRL_ENTRY,
            first.clone(),
            "RFC 5280 (§5.1.2.6, §5.3) has each certificate once, with a reason that is not 0 (leave it out instead) or 7.",
            "Have the CA write the list anew.",
        );
        for (what, place) in wrong.iter().take(5) {
            finding = finding.with_at("found", what, place.clone());
        }
        sheet.findings.push(finding);
    }
}

fn check_signature(
    list: &List<'_>,
    signed_part: &[u8],
    issuer: Option<&DistinguishedName>,
    file: &File<'_>,
    sheet: &mut Sheet,
) -> Option<Node> {
    let algorithm = list.root.find("signatureAlgorithm")?;
    let inner = list.root.find("tbsCertList.signature")?;
    if inner.contents() != algorithm.contents() {
        sheet.findings.push(
            Finding::error(
                code::CERT_ALGORITHMS,
                "it names its signature algorithm twice, differently",
                "signatureAlgorithm and tbsCertList.signature have to be the same (RFC 5280 §5.1.1.2).",
                "Have the CA write the list anew.",
            )
            .with_at("inside", inner.describe(), inner.place()),
        );
    }
    let named: Vec<_> = file.roots.iter().filter(|root| Some(root.subject()) == issuer).collect();
    if named.is_empty() {
        sheet.findings.extend(signature::weak_by_name("list", algorithm));
        if file.roots.is_empty() {
            sheet.findings.push(Finding::note(
                code::CRL_UNCHECKED,
                "its signature was not checked: its issuer's certificate was not given",
                "A list that its issuer did not sign says nothing.",
                "Give the issuer's certificate: --cacert FILE.",
            ));
        } else {
            let given: Vec<String> = file.roots.iter().map(enclasp_pki::Certificate::name).collect();
            sheet.findings.push(
                Finding::error(
                    code::CRL_OTHER_ISSUER,
                    "it is the list of another issuer than the one that was given",
                    "A list speaks of the certificates of its own issuer. The issuer's name has to be the same, byte for byte.",
                    "Give the certificate of its issuer, or fetch the list of the right one.",
                )
                .with_at("issuer", issuer.map_or("?".into(), ToString::to_string), list.place("tbsCertList.issuer"))
                .with("given", given.join(", ")),
            );
        }
        return None;
    }
    let mut best: Option<(Sheet, Option<Node>)> = None;
    for root in named {
        let mut quiet = Sheet::default();
        let Some(seen) = certificate::examine(root.der(), "issuer", file, &mut quiet) else { continue };
        let Some(key) = &seen.key else { continue };
        let mut found = Sheet::default();
        let signed = Signed {
            what: "list",
            algorithm,
            signature: list.root.find("signatureValue")?,
            messages: vec![Message { bytes: signed_part.to_vec(), role: Role::Due }],
            key,
        };
        let outcome = signature::examine(&signed, &mut found);
        let good = outcome.message == Some(0);
        let usage = seen
            .find("tbsCertificate.extensions")
            .and_then(|e| e.children().first())
            .map(|l| read_all(l, &mut quiet));
        let usage = usage.unwrap_or_default().into_iter().find(|extension| extension.oid == ID_CE_KEY_USAGE);
        if let Some(usage) = usage.filter(|usage| !has_bit(&usage.value, CRL_SIGN)) {
            found.findings.push(
                Finding::error(
                    code::CRL_ISSUER_MAY_NOT,
                    "its issuer may not sign lists",
                    "The key usage of its issuer's certificate does not include cRLSign (RFC 5280 §4.2.1.3), so nobody takes the list.",
                    "Have the CA's certificate issued with cRLSign.",
                )
                .with_at("issuer's keyUsage", "cRLSign is not set", usage.value.place()),
            );
        }
        if good {
            found.evidence.push(Evidence::new("signature", "good"));
        }
        let better = good || best.is_none();
        if better {
            best = Some((found, outcome.signature.filter(|_| good)));
        }
        if good {
            break;
        }
    }
    let (mut found, signature) = best?;
    sheet.findings.append(&mut found.findings);
    sheet.evidence.append(&mut found.evidence);
    signature
}
