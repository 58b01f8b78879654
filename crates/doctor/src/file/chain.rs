//! The certificates of a file together: their order, who signed whom, and what is missing.

use std::time::SystemTime;

use enclasp_pki::{Certificate, ChainError, Purpose, order_chain, pem, verify_chain};

use super::File;
use super::armour::{Block, Opened};
use super::certificate::{self, Seen, join};
use super::kind::{self, Content};
use super::node::Node;
use super::public_key::PublicKey;
use super::sheet::Sheet;
use super::signature::{self, Message, Role, Signed};
use crate::{Evidence, Finding, Severity, code};

/// Says what is wrong with the certificates of a file. Returns the file as it should be, if it
/// can be mended.
pub(super) fn examine(opened: &Opened, file: &File<'_>, sheet: &mut Sheet) -> Option<Vec<u8>> {
    let Opened { blocks, is_pem, .. } = opened;
    let contents: Vec<Option<Content>> = blocks.iter().map(|block| kind::recognize(&block.der)).collect();
    let labelled =
        |block: &Block| block.label.as_deref().is_some_and(|label| Content::Certificate.is_labelled(label));
    let is_certificate = |(block, content): &(&Block, &Option<Content>)| match content {
        Some(content) => *content == Content::Certificate,
        None => labelled(block) || blocks.len() == 1,
    };
    let chosen: Vec<&Block> =
        blocks.iter().zip(&contents).filter(is_certificate).map(|(block, _)| block).collect();
    if chosen.is_empty() {
        let found: Vec<Content> = contents.iter().copied().flatten().collect();
        sheet.findings.push(if found.is_empty() {
            super::empty()
        } else {
            super::other_kind(Content::Certificate, &found)
        });
        return None;
    }
    let secret = contents.iter().flatten().any(|content| {
        matches!(content, Content::PrivateKey | Content::EcKey | Content::RsaKey | Content::OpensshKey)
    });
    if secret {
        sheet.findings.push(Finding::warning(
            code::CERT_WITH_KEY,
            "there is a private key in the file",
            "Certificates are given to everybody. Whoever gets this file gets the key as well.",
            "Keep the key in a file of its own that only its owner can read, or better in a keystore.",
        ));
    }
    let mut relabelled = false;
    let mut all = Vec::new();
    for (index, block) in chosen.iter().enumerate() {
        let path = if chosen.len() > 1 { format!("certificates[{index}]") } else { String::new() };
        if let Some(label) = block.label.as_deref().filter(|label| !Content::Certificate.is_labelled(label)) {
            sheet.findings.push(super::wrong_label(Content::Certificate, label));
            relabelled = true;
            sheet.repairs.push(super::RELABELLED.into());
        }
        all.push(certificate::examine(&block.der, &path, file, sheet)?);
    }
    for seen in &all {
        if let Some(parsed) = &seen.parsed {
            sheet.evidence.push(Evidence::new(
                if seen.path.is_empty() { "certificate" } else { &seen.path },
                parsed.describe(),
            ));
        }
    }
    let roots: Vec<Seen> = file
        .roots
        .iter()
        .filter_map(|root| certificate::examine(root.der(), "root", file, &mut Sheet::default()))
        .collect();
    let mut mended = check_signatures(&mut all, &roots, sheet);
    let parsed: Vec<Certificate> = all.iter().filter_map(|seen| seen.parsed.clone()).collect();
    let mut order = None;
    if parsed.len() == all.len() {
        let is_bundle = parsed.len() > 1 && parsed.iter().all(|c| c.is_ca() && c.is_self_issued());
        if !is_bundle {
            order = check_chain(&parsed, file, sheet);
        }
        check_key(&all, &parsed, file, sheet);
    }
    mended |= order.is_some() || relabelled || !opened.mended.is_empty();
    let ders: Vec<Vec<u8>> = match order {
        Some(order) => order.iter().map(|certificate| certificate.der().to_vec()).collect(),
        None => all
            .iter()
            .zip(&chosen)
            .map(|(seen, block)| if seen.is_as_signed() { seen.root.encode() } else { block.der.to_vec() })
            .collect(),
    };
    mended |= chosen.iter().zip(&ders).any(|(block, der)| *block.der != *der);
    if !mended {
        return None;
    }
    let bytes = if *is_pem || ders.len() > 1 {
        ders.iter().map(|der| pem::encode("CERTIFICATE", der)).collect::<String>().into_bytes()
    } else {
        ders.into_iter().next()?
    };
    Some(bytes)
}

/// Checks each signature whose signer is here. Returns whether the encoding of one was mended; a
/// certificate whose signed part would have to be is put back as it was.
fn check_signatures(all: &mut [Seen], roots: &[Seen], sheet: &mut Sheet) -> bool {
    let mut mended = false;
    for index in 0..all.len() {
        let Some(seen) = all.get(index) else { continue };
        let issuer_name = seen.find("tbsCertificate.issuer").map(Node::encode);
        let named: Vec<&Seen> = all
            .iter()
            .chain(roots)
            .filter(|other| other.find("tbsCertificate.subject").map(Node::encode) == issuer_name)
            .collect();
        // Of several with that name, the one that it names by its key.
        let issuer = named.iter().find(|other| seen.names_key_of(other)).or(named.first());
        let Some(key) = issuer.and_then(|issuer| issuer.key.clone()) else {
            same_name_written_differently(seen, all, roots, sheet);
            weak_by_name(seen, sheet);
            continue;
        };
        let names_key = issuer.is_none_or(|issuer| seen.names_key_of(issuer));
        let own = seen.is_self_issued();
        let (signature, broken) = check_signature(seen, &key, own, names_key, sheet);
        let kept = broken || !seen.is_as_signed();
        let path = join(&seen.path, "signatureValue");
        if let Some(right) = signature.filter(|_| !kept)
            && let Some(seen) = all.get_mut(index)
            && let Some(node) = seen.root.find_mut(&path)
        {
            *node = Node { path, ..right };
            sheet.repairs.push("encoded the signature as DER".into());
            mended = true;
        }
    }
    mended
}

fn check_signature(
    seen: &Seen,
    key: &PublicKey,
    own: bool,
    names_key: bool,
    sheet: &mut Sheet,
) -> (Option<Node>, bool) {
    let (Some(algorithm), Some(signature)) = (seen.find("signatureAlgorithm"), seen.find("signatureValue"))
    else {
        return (None, true);
    };
    let contents = seen.find("tbsCertificate").map(Node::contents).unwrap_or_default();
    let other = Role::Other("the contents of the signed part, without its tag and length");
    let signed = Signed {
        what: "certificate",
        algorithm,
        signature,
        messages: vec![
            Message { bytes: seen.signed_part.clone(), role: Role::Due },
            Message { bytes: contents, role: other },
        ],
        key,
    };
    let mut found = Sheet::default();
    let outcome = signature::examine(&signed, &mut found);
    for mut finding in found.findings {
        // A root is trusted as it is; nobody checks what it says of itself.
        if own && finding.code == code::SIGNATURE_WEAK {
            finding.severity = Severity::Note;
        }
        if finding.code == code::SIGNATURE_WRONG && !names_key {
            finding.why = "The certificate of that name that is here has another key: its authority key identifier says so, too. \
                           There are two authorities of this name, or the CA has a new key."
                .into();
            finding.fix = "Use the CA certificate whose key signed this one.".into();
        }
        finding.title = format!("{}: {}", seen.name, finding.title);
        sheet.findings.push(finding);
    }
    let fine = outcome.message == Some(0);
    if fine && !names_key {
        sheet.findings.push(
            Finding::warning(
                code::CERT_KEY_IDENTIFIER,
                format!("{}: it names another key of its issuer than the one that signed it", seen.name),
                "Its authorityKeyIdentifier is not the subjectKeyIdentifier of its issuer. OpenSSL then looks for another issuer, and \
                 finds none.",
                "Have it issued again, or the CA's certificate with the right identifier.",
            )
            .with_at(
                "authorityKeyIdentifier",
                enclasp_pki::hex(seen.authority_key_identifier.as_deref().unwrap_or_default()),
                seen.place("tbsCertificate.extensions"),
            ),
        );
    }
    (outcome.signature.filter(|_| fine), !fine)
}

/// A broken hash, where nobody is here to check the signature by.
fn weak_by_name(seen: &Seen, sheet: &mut Sheet) {
    if let Some(algorithm) = seen.find("signatureAlgorithm")
        && let Some(mut finding) = signature::weak_by_name("certificate", algorithm)
    {
        finding.title = format!("{}: {}", seen.name, finding.title);
        sheet.findings.push(finding);
    }
}

/// Names are compared byte for byte by many: a PrintableString is not a UTF8String.
fn same_name_written_differently(seen: &Seen, all: &[Seen], roots: &[Seen], sheet: &mut Sheet) {
    let Some(parsed) = &seen.parsed else { return };
    let issuer = parsed.issuer().to_string();
    let alike = all
        .iter()
        .chain(roots)
        .filter_map(|other| other.parsed.as_ref())
        .find(|other| other.subject() != parsed.issuer() && other.subject().to_string() == issuer);
    if alike.is_some() {
        sheet.findings.push(
            Finding::error(
                code::CERT_ISSUER_ENCODING,
                format!("{}: its issuer's name is written in other string types than in the issuer's certificate", seen.name),
                "The two names read alike and differ in DER, such as UTF8String and PrintableString. rustls, Go and others compare the \
                 bytes, and find no issuer.",
                "The CA has to copy its own subject, byte for byte, as the issuer.",
            )
            .with_at("issuer", issuer, seen.place("tbsCertificate.issuer")),
        );
    }
}

fn leaf_of(parsed: &[Certificate]) -> Option<&Certificate> {
    parsed.iter().find(|certificate| !certificate.is_ca()).or(parsed.first())
}

fn check_key(all: &[Seen], parsed: &[Certificate], file: &File<'_>, sheet: &mut Sheet) {
    let (Some(wanted), Some(leaf)) = (file.public_key, leaf_of(parsed)) else { return };
    if leaf.spki() == wanted {
        sheet.evidence.push(Evidence::new("key", "the certificate is for the key that was named"));
        return;
    }
    let key = PublicKey::of_spki(wanted).map_or("another key".into(), |key| key.describe());
    let seen = all.iter().find(|seen| seen.parsed.as_ref() == Some(leaf));
    let mut finding = Finding::error(
        code::CERT_OTHER_KEY,
        format!("{}: it is not for the key that was named", leaf.name()),
        "Its public key and that of the key differ. A TLS stack that is given both fails to load them, or signs what nobody can \
         verify.",
        "Find the key that it was issued for (`enclasp key list` shows the keys), or have a certificate issued for this one.",
    )
    .with("the key", key);
    if let Some(seen) = seen {
        let own = seen.key.as_ref().map_or("unknown".into(), PublicKey::describe);
        finding =
            finding.with_at("the certificate's", own, seen.place("tbsCertificate.subjectPublicKeyInfo"));
    }
    sheet.findings.push(finding);
}

/// Checks that the certificates make one chain. Returns it if the file has them in another order.
fn check_chain(parsed: &[Certificate], file: &File<'_>, sheet: &mut Sheet) -> Option<Vec<Certificate>> {
    let leaf = leaf_of(parsed)?;
    let chain = order_chain(leaf, parsed);
    let mut distinct = parsed.to_vec();
    distinct.dedup();
    let unrelated: Vec<&Certificate> =
        distinct.iter().filter(|certificate| !chain.contains(certificate)).collect();
    for certificate in &unrelated {
        sheet.findings.push(Finding::warning(
            code::CERT_UNRELATED,
            format!("{} does not belong to the chain of {}", certificate.name(), leaf.name()),
            "No certificate of the chain was issued by it. Peers mostly pass over it; it costs bytes in every handshake.",
            "Leave it out.",
        ));
    }
    let in_order: Vec<&Certificate> =
        parsed.iter().filter(|certificate| chain.contains(certificate)).collect();
    let wrong_order = !in_order.iter().copied().eq(chain.iter());
    if wrong_order {
        let names: Vec<String> = parsed.iter().map(Certificate::name).collect();
        let right: Vec<String> = chain.iter().map(Certificate::name).collect();
        let first_wrong = parsed.first() != Some(leaf);
        let finding = Finding::error(
            code::CERT_ORDER,
            if first_wrong {
                format!("the first certificate is not that of {}", leaf.name())
            } else {
                "the certificates are not in the order of the chain".to_owned()
            },
            "The certificate comes first, then the one that issued it, and so on. TLS 1.2 demands this order (RFC 5246 §7.4.2); every \
             stack takes the first one for the certificate itself.",
            "Put them in order, which --fix does.",
        );
        sheet.findings.push(finding.with("found", names.join(" | ")).with("expected", right.join(" | ")));
        sheet.repairs.push("put the certificates in the order of the chain".into());
    }
    let top = chain.last().unwrap_or(leaf);
    let has_root = top.is_self_issued();
    if has_root && chain.len() > 1 {
        sheet.findings.push(Finding::note(
            code::CERT_ROOT,
            "the root is in the file",
            "Peers trust a root because they have it already; sending it is of no use.",
            "Leave it out where the file is sent to peers.",
        ));
    }
    let anchors: Vec<Certificate> = match (file.roots, has_root || top.is_ca()) {
        ([], true) => vec![top.clone()],
        (roots, _) => roots.to_vec(),
    };
    if anchors.is_empty() {
        if !leaf.is_self_issued() {
            sheet.findings.push(Finding::note(
                code::CERT_ISSUER_MISSING,
                format!("the certificate of its issuer, {}, is not in the file", top.issuer()),
                "If that is an intermediate CA, peers need its certificate after this one. If it is the root, they have it.",
                "Say --cacert with the root to have the whole chain checked.",
            ));
        }
    } else if leaf.is_ca() || leaf.is_self_issued() {
        // A CA's certificate alone is no chain for a client or server.
    } else {
        let purposes = file.purpose.map_or(vec![Purpose::Client, Purpose::Server], |purpose| vec![purpose]);
        let intermediates: Vec<Certificate> =
            chain.iter().skip(1).filter(|certificate| !anchors.contains(certificate)).cloned().collect();
        check_path(leaf, &intermediates, &anchors, file.now, &purposes, sheet);
    }
    wrong_order.then_some(chain)
}

/// Checks the path to a root; it has to be good for one of `purposes`.
fn check_path(
    leaf: &Certificate,
    intermediates: &[Certificate],
    roots: &[Certificate],
    now: SystemTime,
    purposes: &[Purpose],
    sheet: &mut Sheet,
) {
    let verify = |purpose: &Purpose| verify_chain(leaf, intermediates, roots, now, *purpose).err();
    let errors: Vec<ChainError> = purposes.iter().filter_map(verify).collect();
    if errors.len() < purposes.len() {
        sheet.evidence.push(Evidence::new("chain", "good, up to a root or the last certificate of the file"));
        return;
    }
    let Some(error) = errors.into_iter().next() else { return };
    let (code, why) = match &error {
        // These were said of the certificate itself.
        ChainError::Expired { .. } | ChainError::NotYetValid { .. } | ChainError::WrongPurpose { .. } => {
            return;
        }
        ChainError::UnknownIssuer { .. } => (
            code::CERT_ISSUER_MISSING,
            "The chain of the file ends there, and none of the roots issued that certificate. An intermediate certificate is missing, \
             or it is of another authority.",
        ),
        ChainError::WrongSignature { .. } => (
            code::CERT_OTHER_AUTHORITY,
            "A root of that name is there, and its key did not sign. There are two authorities of this name, or the CA has a new key.",
        ),
        ChainError::Unacceptable { reason, .. } if reason.contains("NameConstraint") => (
            code::CERT_NAME_CONSTRAINTS,
            "A CA above it may issue for certain names only (nameConstraints, RFC 5280 §4.2.1.10), and one of its names is not among them.",
        ),
        ChainError::Unacceptable { reason, .. } if reason.contains("PathLen") => (
            code::CERT_PATH_LENGTH,
            "A CA above it may not have that many CAs below it (pathLenConstraint, RFC 5280 §4.2.1.9).",
        ),
        _ => (code::CERT_CHAIN, "Path validation (RFC 5280 §6) refuses the chain for this reason."),
    };
    // Said already, of the signature itself.
    let said = sheet.findings.iter().any(|finding| {
        finding.severity == Severity::Error
            && [code::SIGNATURE_WRONG, code::SIGNATURE_WEAK, code::CERT_VERSION, code::CERT_CRITICAL]
                .contains(&finding.code)
    });
    if said {
        return;
    }
    let fix = error.hint().unwrap_or_else(|| "Have it issued again.".into());
    sheet.findings.push(Finding::error(code, error.to_string(), why, fix));
}
