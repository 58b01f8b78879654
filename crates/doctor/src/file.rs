//! What is wrong with a file: a request, a certificate, a key, a PKCS#12 file, a revocation list.
//!
//! Each is read as far as it can be: by its lengths, or where these contradict each other by its tags
//! (`shape`). What is found has an offset and an ASN.1 path. Whatever is certain to have been meant
//! is mended on the way, and what can be written without the key is [`Examined::repair`].

mod armour;
mod certificate;
mod chain;
mod extension;
mod key;
mod kind;
mod node;
mod pkcs12;
mod public_key;
mod request;
mod revocation;
mod rules;
mod shape;
mod shapes;
mod sheet;
mod signature;
mod time;

use std::time::SystemTime;

use enclasp_pki::{Certificate, Purpose, pem};
use zeroize::Zeroizing;

use self::armour::Block;
use self::kind::Content;
use self::public_key::PublicKey;
use self::sheet::Sheet;
use crate::{Evidence, Finding, Report, Severity, code};

/// What a file is said to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A certification request (PKCS#10).
    Request,
    /// A certificate, or a chain of them.
    Certificate,
    /// A private key.
    Key,
    /// A PKCS#12 file.
    Pkcs12,
    /// A certificate revocation list.
    RevocationList,
}

/// A file, and what is known besides.
#[derive(Clone, Copy)]
pub struct File<'a> {
    /// What a person calls it.
    pub name: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
    /// The present, which validity is judged by.
    pub now: SystemTime,
    /// The DER SubjectPublicKeyInfo of the key that a request or certificate should be for.
    pub public_key: Option<&'a [u8]>,
    /// The certificate that a key or revocation list should be for.
    pub certificate: Option<&'a Certificate>,
    /// What chains end at; the issuers of revocation lists.
    pub roots: &'a [Certificate],
    /// What a certificate should be good for; `None` if for clients or servers.
    pub purpose: Option<Purpose>,
    /// The host name or address that a certificate should be for.
    pub host: Option<&'a str>,
    /// What opens a PKCS#12 file or an encrypted key.
    pub password: Option<&'a str>,
}

impl<'a> File<'a> {
    /// A file of which nothing else is known.
    pub fn new(name: &'a str, bytes: &'a [u8], now: SystemTime) -> Self {
        Self {
            name,
            bytes,
            now,
            public_key: None,
            certificate: None,
            roots: &[],
            purpose: None,
            host: None,
            password: None,
        }
    }
}

/// What came of looking at a file.
pub struct Examined {
    /// What is wrong with it.
    pub report: Report,
    /// The file as it should be, as far as that takes no key. `None` if there is nothing to mend, or
    /// nothing that can be.
    pub repair: Option<Repair>,
    /// What only the key's owner, or whoever signed, can put right: one line each.
    pub unrepaired: Vec<String>,
}

/// A mended file.
pub struct Repair {
    /// All of it, in the encoding (PEM or DER) of what was given. It may be a private key.
    pub bytes: Zeroizing<Vec<u8>>,
    /// What was done: one line each.
    pub done: Vec<String>,
}

/// Looks at a file.
pub fn examine(kind: Kind, file: &File<'_>) -> Examined {
    let (report, repair) = look(kind, file);
    // What the mended file still has wrong is what could not be mended.
    let after = repair.as_ref().map(|repair| look(kind, &File { bytes: &repair.bytes, ..*file }).0);
    let left = after.as_ref().unwrap_or(&report);
    let errors = left.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let unrepaired = errors.map(|finding| format!("{}: {}", finding.code, finding.title)).collect();
    Examined { report, repair, unrepaired }
}

/// The DER SubjectPublicKeyInfo of the private or public key in a file. `None` if it cannot be made out.
pub fn public_key_in(bytes: &[u8], password: Option<&str>) -> Option<Vec<u8>> {
    let opened = armour::open(bytes);
    let (block, content) = key::choose(&opened.blocks)?;
    if content == Some(Content::PublicKey) {
        return Some(PublicKey::of_spki(&block.der)?.spki());
    }
    let file = File { password, ..File::new("", bytes, SystemTime::UNIX_EPOCH) };
    let seen = key::examine(block, content, &file, &mut Sheet::default());
    Some(seen.public?.spki())
}

fn look(kind: Kind, file: &File<'_>) -> (Report, Option<Repair>) {
    let mut opened = armour::open(file.bytes);
    let findings = std::mem::take(&mut opened.findings);
    let mut sheet = Sheet { findings, is_secret: kind == Kind::Key, ..Sheet::default() };
    let (blocks, is_pem) = (&opened.blocks, opened.is_pem);
    let mut one = |wanted, examine: fn(&[u8], &File<'_>, &mut Sheet) -> Option<Vec<u8>>| {
        let block = one_object(blocks, wanted, &mut sheet)?;
        let mended = examine(&block.der, file, &mut sheet);
        Some((block, wanted, mended.map(Zeroizing::new)))
    };
    let looked = match kind {
        Kind::Request => one(Content::Request, request::examine),
        Kind::RevocationList => one(Content::RevocationList, revocation::examine),
        Kind::Pkcs12 => one(Content::Pkcs12, pkcs12::examine),
        Kind::Key => private_key(blocks, file, &mut sheet),
        Kind::Certificate => {
            let bytes = chain::examine(&opened, file, &mut sheet);
            let done = opened.mended.iter().cloned().chain(std::mem::take(&mut sheet.repairs)).collect();
            let repair = bytes.map(|bytes| Repair { bytes: Zeroizing::new(bytes), done });
            return (Report::new(file.name, sheet.findings, sheet.evidence), repair);
        }
    };
    let repair = looked.and_then(|(block, content, mended)| {
        let relabelled = block.label.as_deref().is_some_and(|label| !content.is_labelled(label));
        if opened.mended.is_empty() && !relabelled && mended.is_none() {
            return None;
        }
        let der = mended.unwrap_or_else(|| block.der.clone());
        let bytes = match content.label().filter(|_| is_pem) {
            Some(label) => Zeroizing::new(pem::encode(label, &der).into_bytes()),
            None => der,
        };
        let relabel = relabelled.then(|| RELABELLED.to_owned());
        let done =
            opened.mended.iter().cloned().chain(relabel).chain(std::mem::take(&mut sheet.repairs)).collect();
        Some(Repair { bytes, done })
    });
    (Report::new(file.name, sheet.findings, sheet.evidence), repair)
}

/// What is done to a label.
const RELABELLED: &str = "put the right label into the PEM frame";

/// A block of a file, what it holds, and its DER as it should be.
type Looked<'a> = (&'a Block, Content, Option<Zeroizing<Vec<u8>>>);

fn private_key<'a>(blocks: &'a [Block], file: &File<'_>, sheet: &mut Sheet) -> Option<Looked<'a>> {
    let Some((block, content)) = key::choose(blocks) else {
        sheet.findings.push(empty());
        return None;
    };
    let seen = key::examine(block, content, file, sheet);
    key::check_certificate(&seen, file, sheet);
    Some((block, content?, seen.mended))
}

/// The one object of `blocks` that is `wanted`, or may have been meant to be; says so if there is none.
fn one_object<'a>(blocks: &'a [Block], wanted: Content, sheet: &mut Sheet) -> Option<&'a Block> {
    let recognized: Vec<Option<Content>> = blocks.iter().map(|block| kind::recognize(&block.der)).collect();
    let labelled = |block: &Block| block.label.as_deref().is_some_and(|label| wanted.is_labelled(label));
    let index = recognized
        .iter()
        .position(|content| *content == Some(wanted))
        .or_else(|| blocks.iter().zip(&recognized).position(|(block, c)| c.is_none() && labelled(block)))
        .or_else(|| recognized.iter().position(Option::is_none))
        .unwrap_or(0);
    let (Some(block), Some(content)) = (blocks.get(index), recognized.get(index)) else {
        sheet.findings.push(empty());
        return None;
    };
    sheet.evidence.push(Evidence::new("size", format!("{} bytes of DER", block.der.len())));
    if content.is_some_and(|content| content != wanted) {
        let contents: Vec<Content> = recognized.iter().copied().flatten().collect();
        sheet.findings.push(other_kind(wanted, &contents));
        return None;
    }
    if let Some(label) = block.label.as_deref().filter(|label| !wanted.is_labelled(label)) {
        sheet.findings.push(wrong_label(wanted, label));
    }
    Some(block)
}

fn wrong_label(content: Content, label: &str) -> Finding {
    let fix = match content.label() {
        Some(right) => format!("Write {right} in both lines of the frame."),
        None => "Write it as it is, without PEM: this kind of file is binary.".into(),
    };
    Finding::error(
        code::FILE_LABEL,
        format!("the PEM frame says {label}, but inside is {}", content.describe()),
        "Programs look for the label of what they want, and pass over others.",
        fix,
    )
    .with("found", format!("{label}; expected {}", content.label().unwrap_or("none")))
}

fn empty() -> Finding {
    Finding::error(
        code::FILE_UNKNOWN,
        "there is nothing in the file that could be read",
        "It has neither PEM nor DER in it.",
        "Check that it is the right file, and that it was written to its end.",
    )
}

fn other_kind(wanted: Content, contents: &[Content]) -> Finding {
    let mut words: Vec<&str> = contents.iter().map(|content| content.describe()).collect();
    words.dedup();
    let found = words.join(", ");
    let fix = match contents.iter().find_map(|content| content.command()) {
        Some(command) => {
            format!("`enclasp doctor {command} FILE` looks at it; give this command {}.", wanted.describe())
        }
        None => format!("Give this command {}.", wanted.describe()),
    };
    Finding::error(
        code::FILE_OTHER_KIND,
        format!("the file is {found}, not {}", wanted.describe()),
        "It was recognized by its structure, whatever its name or its PEM frame says.",
        fix,
    )
    .with("found", format!("{found}; expected {}", wanted.describe()))
}
