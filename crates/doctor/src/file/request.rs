//! Certification requests (PKCS#10, RFC 2986), above all those that were assembled by hand.

use enclasp_pki::DistinguishedName;

use super::node::{BIT_STRING, Body, Header, Node, OCTET_STRING, OID, SEQUENCE, SET, describe, with_article};
use super::public_key::{self, PublicKey, ec_spki, rsa_spki};
use super::shape::{self, Reading};
use super::shapes::{REQUEST, RSA_PUBLIC_KEY};
use super::sheet::Sheet;
use super::signature::{self, Message, Role, Signed};
use super::{File, extension, rules};
use crate::ecdsa::Curve;
use crate::{Evidence, Finding, Place, code};

const INFO: &str = "certificationRequestInfo";
const PUBLIC_KEY: &str = "certificationRequestInfo.subjectPKInfo";
const ATTRIBUTES: &str = "certificationRequestInfo.attributes";

/// Says what is wrong with a request. Returns the mended one if there is something to mend that
/// leaves its signature good.
pub(super) fn examine(der: &[u8], file: &File<'_>, sheet: &mut Sheet) -> Option<Vec<u8>> {
    let bare = key_without_header(der);
    let read = match &bare {
        Some(bare) => bare.read(der),
        None => shape::read(der, &REQUEST, 0, ""),
    };
    let mut reading = match read {
        Ok(reading) => reading,
        Err(unreadable) => {
            sheet.unreadable(der, &unreadable);
            return None;
        }
    };
    if let Some(bare) = &bare {
        sheet.findings.push(bare.finding());
        sheet.repairs.push("put the header of a SubjectPublicKeyInfo before the key".into());
    }
    check_attributes(&mut reading, sheet);
    // What was signed, as it stands in the file.
    let raw = match &bare {
        Some(_) => info_by_length(der),
        None => reading.root.find(INFO).and_then(|info| der.get(info.offset..info.offset + info.size)),
    };
    let raw = raw.unwrap_or_default().to_vec();
    let before = reading.root.find(INFO).map(Node::encode);

    let mut about_key = Sheet::default();
    let key = reading.root.find_mut(PUBLIC_KEY).and_then(|node| public_key::examine(node, &mut about_key));
    // A point that lacks its first byte makes the lengths around it wrong: the cause comes first.
    sheet.findings.append(&mut about_key.findings);
    sheet.repairs.append(&mut about_key.repairs);
    sheet.outlines(&reading);
    let misfits = !reading.misfits.is_empty();
    let mut root = reading.root;
    rules::check(&mut root, sheet);
    if misfits {
        return None;
    }
    check_version(&mut root, sheet);
    check_names(&root, sheet);
    if let (Some(key), Some(wanted)) = (&key, file.public_key)
        && key.spki() != wanted
    {
        sheet.findings.push(other_key(&root, key));
    }
    let key = key?;
    sheet.evidence.push(Evidence::new("key", key.describe()));
    let mended = root.find(INFO)?.encode();
    let changed = mended != raw;
    let header = mended.len() - root.find(INFO)?.contents().len();
    let message = |bytes: &[u8], role| Message { bytes: bytes.to_vec(), role };
    let mut messages = vec![message(&mended, Role::Due)];
    if changed && !raw.is_empty() {
        messages.push(message(&raw, Role::AsItStands));
    }
    if let Some(before) = before.filter(|before| *before != raw && *before != mended) {
        messages.push(message(&before, Role::AsItStands));
    }
    let contents = mended.get(header..).unwrap_or_default();
    messages
        .push(message(contents, Role::Other("the contents of the signed part, without its tag and length")));
    let signed = Signed {
        what: "request",
        algorithm: root.find("signatureAlgorithm")?,
        signature: root.find("signature")?,
        messages,
        key: &key,
    };
    let outcome = signature::examine(&signed, sheet);
    let holds = outcome.message == Some(0);
    let over = match outcome.message {
        Some(0) => "good",
        Some(_) => "good over the signed part as it stands, with its faults",
        None => "not good",
    };
    sheet.evidence.push(Evidence::new("signature", over));
    if changed && !holds {
        // Only a new signature would make a request of it.
        sheet.repairs.clear();
        return None;
    }
    if let Some(algorithm) = outcome.algorithm {
        sheet.repairs.push("named the algorithm that the signature was made with".into());
        replace(&mut root, "signatureAlgorithm", algorithm);
    }
    if let Some(signature) = outcome.signature {
        sheet.repairs.push("encoded the signature as DER".into());
        replace(&mut root, "signature", signature);
    }
    let repaired = root.encode();
    (repaired != der).then_some(repaired)
}

fn replace(root: &mut Node, path: &str, right: Node) {
    if let Some(node) = root.find_mut(path) {
        *node = Node { path: path.to_owned(), ..right };
    }
}

/// The attributes, which may be empty and never missing: the commonest fault of hand-made requests.
fn check_attributes(reading: &mut Reading, sheet: &mut Sheet) {
    let position = reading.misfits.iter().position(|misfit| misfit.place.path.starts_with(ATTRIBUTES));
    let Some(misfit) = position.map(|position| reading.misfits[position].clone()) else { return };
    let Some(info) = reading.root.find_mut(INFO) else { return };
    let Body::Constructed(fields) = &mut info.body else { return };
    let empty = || Node { path: ATTRIBUTES.into(), ..Node::constructed(0xa0, Vec::new()) };
    let (title, fix) = match (misfit.found, misfit.place.path.as_str()) {
        (None, ATTRIBUTES) => {
            fields.push(empty());
            (
                "the attributes are missing".to_owned(),
                "Add the empty attributes: A0 00, inside the certificationRequestInfo.",
            )
        }
        (Some(tag @ (SET | SEQUENCE)), ATTRIBUTES) => {
            let Some(attributes) = fields.last_mut() else { return };
            attributes.tag = 0xa0;
            (
                format!("the attributes have the tag of {}, not [0] (0xa0)", with_article(&describe(tag))),
                "Write A0 in place of the tag: it is an implicit [0].",
            )
        }
        (Some(SET), _) => {
            let Some(attributes) = fields.last_mut().filter(|attributes| attributes.children().len() == 1)
            else {
                return;
            };
            let inner = attributes.children().first().map(|set| set.body.clone());
            let Some(inner) = inner else { return };
            attributes.body = inner;
            (
                "the attributes have a SET inside their [0]".to_owned(),
                "Leave the SET's own tag and length out: the [0] is implicit and stands in their place.",
            )
        }
        _ => return,
    };
    let place = misfit.place.clone();
    reading.misfits.retain(|other| !other.place.path.starts_with(ATTRIBUTES));
    sheet.findings.push(
        Finding::error(
            code::REQUEST_ATTRIBUTES,
            title,
            "certificationRequestInfo ends with attributes [0] IMPLICIT SET OF Attribute (RFC 2986 §4.1). The field is not \
             optional: without any attributes it is A0 00, and OpenSSL and Java refuse a request without it.",
            fix,
        )
        .with_at("found", misfit.found.map_or("nothing".into(), describe) + "; expected [0] (0xa0)", place),
    );
    sheet.repairs.push("wrote the attributes as they are due".into());
}

fn check_version(root: &mut Node, sheet: &mut Sheet) {
    let Some(version) = root.find_mut("certificationRequestInfo.version") else { return };
    if version.value() == [0] {
        return;
    }
    let found = enclasp_pki::hex(version.value().get(..4).unwrap_or(version.value()));
    sheet.findings.push(
        Finding::error(
            code::REQUEST_VERSION,
            format!("the version is 0x{found}, not 0"),
            "PKCS#10 has one version, whose number is 0 (RFC 2986 §4.1). Many programs refuse others.",
            "Write the version 0: 02 01 00.",
        )
        .with_at("found", format!("0x{found}; expected 00"), version.place()),
    );
    sheet.repairs.push("wrote the version 0".into());
    version.body = Body::primitive([0]);
}

/// Whom the request is for: its subject, and the names in its extensionRequest.
fn check_names(root: &Node, sheet: &mut Sheet) {
    let subject = root.find("certificationRequestInfo.subject");
    let name = subject.and_then(|subject| DistinguishedName::from_der(&subject.encode()).ok());
    if let Some(name) = &name {
        sheet.evidence.push(Evidence::new(
            "subject",
            if name.is_empty() { "(empty)".into() } else { name.to_string() },
        ));
    }
    let mut requested = Vec::new();
    for attribute in root.find(ATTRIBUTES).map_or(&[][..], Node::children) {
        let [oid, values] = attribute.children() else { continue };
        if oid.value() == EXTENSION_REQUEST {
            requested.push(values);
        }
    }
    if let [values, more @ ..] = &requested[..]
        && (!more.is_empty() || values.children().len() != 1)
    {
        let place = more.first().map_or_else(|| values.place(), |values| values.place());
        sheet.findings.push(
            Finding::error(
                code::REQUEST_EXTENSIONS,
                "the requested extensions are not in one extensionRequest with one value",
                "A request has at most one extensionRequest attribute, whose SET holds one Extensions (RFC 2985 §5.4.2).",
                "Put all extensions into one list.",
            )
            .with_at("found", format!("{} of them", requested.len()), place),
        );
        return;
    }
    let list = requested.first().and_then(|values| values.children().first());
    let sans = list.map_or(0, |list| extension::requested(list, sheet));
    if sans == 0 {
        let empty = name.is_none_or(|name| name.is_empty());
        sheet.findings.push(if empty {
            Finding::warning(
                code::REQUEST_NAMES,
                "the request asks for no name at all",
                "Its subject is empty, and it has no subject alternative names. A CA has nothing to certify, unless it takes the \
                 names from elsewhere.",
                "Ask for a name: `enclasp csr create --subject CN=… --san dns:…`.",
            )
        } else {
            Finding::note(
                code::REQUEST_NAMES,
                "the request asks for no subject alternative names",
                "TLS clients look for a server's name in the subject alternative names alone (RFC 9525); for a client's \
                 certificate the subject may be all that is needed.",
                "For a server, ask for its names: `enclasp csr create --san dns:…`.",
            )
        });
    }
}

/// extensionRequest (RFC 2985 §5.4.2).
const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

fn other_key(root: &Node, key: &PublicKey) -> Finding {
    let place =
        root.find(PUBLIC_KEY).map_or(Place { offset: 0, length: 0, path: PUBLIC_KEY.into() }, Node::place);
    Finding::error(
        code::REQUEST_OTHER_KEY,
        "the request is for another key than the one that was named",
        "Its public key is not that of the key. A certificate for it would be of no use with that key.",
        "Make the request with that key: `enclasp csr create --key URI`.",
    )
    .with_at("found", key.describe(), place)
}

/// The certificationRequestInfo by its own length.
fn info_by_length(der: &[u8]) -> Option<&[u8]> {
    let at = Header::read(der, 0, 0).ok()?.size;
    let info = Header::read(der, at, 0).ok()?;
    der.get(at..at.checked_add(info.size)?.checked_add(info.length?)?)
}

/// A key that stands in a request without the header that makes a SubjectPublicKeyInfo of it.
struct Bare {
    /// Where it begins, and how many bytes it takes.
    at: usize,
    length: usize,
    /// As it should be.
    spki: Vec<u8>,
    what: &'static str,
}

impl Bare {
    /// The request with the header in its place, at the offsets that the file has.
    fn read(&self, der: &[u8]) -> Result<Reading, shape::Unreadable> {
        let (before, rest) = der.split_at(self.at);
        let patched = [before, &self.spki, rest.get(self.length..).unwrap_or_default()].concat();
        let mut reading = shape::read(&patched, &REQUEST, 0, "")?;
        // The lengths around it cannot be right.
        reading.lengths.clear();
        let added = self.spki.len() - self.length.min(self.spki.len());
        reading.root.walk_mut(&mut |node| {
            if node.offset >= self.at + self.spki.len() {
                node.offset -= added;
            } else if node.offset > self.at {
                node.offset = self.at;
            }
        });
        Ok(reading)
    }

    fn finding(&self) -> Finding {
        Finding::error(
            code::PUBLIC_KEY_HEADER,
            format!("the header of the public key is missing: there is {} alone", self.what),
            "subjectPKInfo is SEQUENCE { AlgorithmIdentifier, BIT STRING } (RFC 5280 §4.1.2.7). APIs such as the keychain's give the \
             bare key, and the header, 26 bytes for P-256, has to be put before it.",
            "Write the header, and the lengths around it anew.",
        )
        .with_at(
            "found",
            format!("{}, {} bytes; expected a SEQUENCE (0x30)", self.what, self.length),
            Place { offset: self.at, length: self.length, path: PUBLIC_KEY.into() },
        )
    }
}

/// Finds a key without its header where subjectPKInfo is due.
fn key_without_header(der: &[u8]) -> Option<Bare> {
    let mut at = 0;
    for _ in 0..2 {
        let header = Header::read(der, at, 0).ok().filter(|header| header.tag == SEQUENCE)?;
        at += header.size;
    }
    // Version and subject.
    for _ in 0..2 {
        at = Node::read(der, at, der.len(), 0).ok()?.1;
    }
    let rest = der.get(at..)?;
    let point = |bytes: &[u8]| Curve::of_point(bytes).map(|curve| ec_spki(curve, bytes).encode());
    let rsa = |bytes: &[u8]| {
        let reading = shape::read(bytes, &RSA_PUBLIC_KEY, 0, "").ok()?;
        (reading.misfits.is_empty() && reading.trailing == 0).then(|| rsa_spki(bytes).encode())
    };
    let found = |length: usize, spki: Vec<u8>, what: &'static str| Some(Bare { at, length, spki, what });
    for length in [65, 97, 133] {
        if let Some(spki) = rest.get(..length).and_then(point) {
            return found(length, spki, "the point 04 ‖ X ‖ Y");
        }
        let bare = rest.get(..length - 1).map(|pair| [&[4], pair].concat());
        if let Some(spki) = bare.as_deref().and_then(point) {
            return found(length - 1, spki, "X ‖ Y");
        }
    }
    let (first, end) = Node::read(rest, 0, rest.len(), 0).ok()?;
    let inside = |bits: &Node| {
        let bytes = bits.value().get(1..).unwrap_or_default();
        point(bits.value()).or_else(|| point(bytes)).or_else(|| rsa(bytes))
    };
    match first.tag {
        BIT_STRING => found(end, inside(&first)?, "the BIT STRING of the key"),
        OCTET_STRING => found(end, point(first.value())?, "an OCTET STRING of the key"),
        SEQUENCE if first.children().first().is_some_and(|child| child.tag == OID) => {
            let (bits, end) =
                Node::read(rest, end, rest.len(), 0).ok().filter(|(bits, _)| bits.tag == BIT_STRING)?;
            found(
                end,
                inside(&bits)?,
                "an AlgorithmIdentifier and a BIT STRING, without a SEQUENCE around them,",
            )
        }
        SEQUENCE => found(end, rsa(rest.get(..end)?)?, "an RSAPublicKey"),
        _ => None,
    }
}
