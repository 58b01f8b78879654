//! Certificates and revocation lists that no program would make.

use aws_lc_rs::digest::SHA384;
use enclasp_doctor::file::{File, Kind, examine};
use enclasp_pki::{Certificate, Purpose};
use std::time::SystemTime;

use crate::builder::{
    COMMON_NAME, ECDSA_SHA256, ECDSA_SHA384, Key, bits, contents, name, oid, pair, sequence,
    signature_with_signs, stating, tlv,
};
use crate::{look, verdict};

/// What a certificate says, as DER, in the order of its fields.
pub(crate) struct Draft {
    pub(crate) version: Vec<u8>,
    serial: Vec<u8>,
    inner_algorithm: Vec<u8>,
    issuer: Vec<u8>,
    validity: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    extensions: Vec<Vec<u8>>,
    outer_algorithm: Vec<u8>,
    outer_off_by: isize,
}

const NOT_BEFORE: &[u8] = b"200101000000Z";
const NOT_AFTER: &[u8] = b"491231235959Z";
const CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXT_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];

fn extension(kind: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&oid(kind), critical, &tlv(4, &[value])])
}

fn usages(oids: &[&[u8]]) -> Vec<u8> {
    let oids: Vec<Vec<u8>> = oids.iter().map(|bytes| oid(bytes)).collect();
    extension(EXT_KEY_USAGE, false, &sequence(&[&oids.concat()]))
}

fn dns(host: &[u8]) -> Vec<u8> {
    extension(ALT_NAME, false, &sequence(&[&tlv(0x82, &[host])]))
}

fn validity(from: &[u8], to: &[u8]) -> Vec<u8> {
    sequence(&[&tlv(0x17, &[from]), &tlv(0x17, &[to])])
}

impl Draft {
    /// A client's certificate, issued to a key by itself.
    pub(crate) fn new(key: &Key) -> Self {
        let own = name(&[(COMMON_NAME, 0x0c, b"web")]);
        let algorithm = sequence(&[&oid(ECDSA_SHA256)]);
        Self {
            version: vec![0xa0, 3, 2, 1, 2],
            serial: vec![2, 2, 0x12, 0x34],
            inner_algorithm: algorithm.clone(),
            issuer: own.clone(),
            validity: validity(NOT_BEFORE, NOT_AFTER),
            subject: own,
            spki: key.spki(),
            extensions: vec![
                extension(CONSTRAINTS, true, &sequence(&[])),
                extension(KEY_USAGE, true, &[3, 2, 7, 0x80]),
                usages(&[CLIENT]),
            ],
            outer_algorithm: algorithm,
            outer_off_by: 0,
        }
    }

    fn info(&self) -> Vec<u8> {
        let extensions = match &self.extensions[..] {
            [] => Vec::new(),
            list => tlv(0xa3, &[&sequence(&[&list.concat()])]),
        };
        sequence(&[
            &self.version,
            &self.serial,
            &self.inner_algorithm,
            &self.issuer,
            &self.validity,
            &self.subject,
            &self.spki,
            &extensions,
        ])
    }

    fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 3] = [&self.info(), &self.outer_algorithm, &bits(signature)];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        stating(length.checked_add_signed(self.outer_off_by).unwrap(), 0x30, &parts)
    }

    pub(crate) fn signed(&self, key: &Key) -> Vec<u8> {
        self.with_signature(&key.sign_well(&self.info()))
    }
}

/// Every certificate that is wrong, with the code of its verdict, and whether `--fix` mends it.
pub(crate) fn wrong() -> Vec<(&'static str, Vec<u8>, &'static str, bool)> {
    let key = Key::p256();
    let good = Draft::new(&key);
    let info = good.info();
    let changed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new(&key);
        change(&mut draft);
        draft.signed(&key)
    };
    let with = |extensions: &[Vec<u8>]| changed(&|d| d.extensions = extensions.to_vec());
    let ca = Key::p256();
    let by_other = |d: &mut Draft| d.issuer = name(&[(COMMON_NAME, 0x0c, b"Acme")]);
    let issued = {
        let mut draft = Draft::new(&key);
        by_other(&mut draft);
        draft
    };
    let mut other_hash = Draft::new(&key);
    other_hash.inner_algorithm = sequence(&[&oid(ECDSA_SHA384)]);
    other_hash.outer_algorithm = other_hash.inner_algorithm.clone();
    let other_hash = other_hash.signed(&key);
    let signature = signature_with_signs(&key, &info);
    vec![
        (
            "outer length",
            {
                let mut d = Draft::new(&key);
                d.outer_off_by = 2;
                d.signed(&key)
            },
            "EN-FILE-0011",
            true,
        ),
        ("trailing bytes", [good.signed(&key), vec![0x0a]].concat(), "EN-FILE-0012", true),
        ("r ‖ s", good.with_signature(&pair(&signature)), "EN-SIG-0001", true),
        ("a negative serial number", changed(&|d| d.serial = vec![2, 1, 0x80]), "EN-CERT-0004", false),
        (
            "a serial number of 21 bytes",
            changed(&|d| d.serial = tlv(2, &[&[0x7f; 21]])),
            "EN-CERT-0004",
            false,
        ),
        ("version 1 with extensions", changed(&|d| d.version.clear()), "EN-CERT-0003", false),
        (
            "version 1",
            {
                let mut d = Draft::new(&key);
                by_other(&mut d);
                d.version.clear();
                d.extensions.clear();
                d.signed(&key)
            },
            "EN-CERT-0003",
            false,
        ),
        ("version 4", changed(&|d| d.version = vec![0xa0, 3, 2, 1, 3]), "EN-CERT-0003", false),
        (
            "algorithms differ",
            changed(&|d| d.inner_algorithm = sequence(&[&oid(ECDSA_SHA384)])),
            "EN-CERT-0005",
            false,
        ),
        ("another hash", other_hash, "EN-SIG-0004", false),
        (
            "expired",
            changed(&|d| d.validity = validity(b"200101000000Z", b"210101000000Z")),
            "EN-CERT-0007",
            false,
        ),
        (
            "expired, of a CA",
            {
                let mut d = Draft::new(&key);
                by_other(&mut d);
                d.validity = validity(b"200101000000Z", b"210101000000Z");
                d.signed(&key)
            },
            "EN-CERT-0007",
            false,
        ),
        (
            "of next century",
            changed(&|d| {
                d.validity = sequence(&[&tlv(0x17, &[b"491201000000Z"]), &tlv(0x18, &[b"20600101000000Z"])]);
            }),
            "EN-CERT-0008",
            false,
        ),
        ("upside down", changed(&|d| d.validity = validity(NOT_AFTER, NOT_BEFORE)), "EN-CERT-0006", false),
        ("no seconds", changed(&|d| d.validity = validity(b"2001010000Z", NOT_AFTER)), "EN-FILE-0022", false),
        (
            "a month of 13",
            changed(&|d| d.validity = validity(b"201301000000Z", NOT_AFTER)),
            "EN-FILE-0022",
            false,
        ),
        (
            "a GeneralizedTime too early",
            changed(&|d| {
                d.validity = sequence(&[&tlv(0x18, &[b"20200101000000Z"]), &tlv(0x17, &[NOT_AFTER])]);
            }),
            "EN-FILE-0022",
            false,
        ),
        ("code signing", with(&[usages(&[CODE_SIGNING])]), "EN-CERT-0012", false),
        (
            "a key for encipherment only",
            with(&[extension(KEY_USAGE, true, &[3, 2, 5, 0x20])]),
            "EN-CERT-0011",
            false,
        ),
        (
            "signs certificates, is no CA",
            with(&[extension(KEY_USAGE, true, &[3, 2, 2, 0x84])]),
            "EN-CERT-0010",
            false,
        ),
        (
            "a path length, is no CA",
            with(&[extension(CONSTRAINTS, true, &sequence(&[&[2, 1, 0]]))]),
            "EN-CERT-0010",
            false,
        ),
        (
            "a CA that may not sign",
            with(&[
                extension(CONSTRAINTS, true, &sequence(&[&[1, 1, 0xff]])),
                extension(KEY_USAGE, true, &[3, 2, 7, 0x80]),
            ]),
            "EN-CERT-0010",
            false,
        ),
        ("a server without names", with(&[usages(&[SERVER])]), "EN-CERT-0013", false),
        ("an address as a DNS name", with(&[usages(&[SERVER]), dns(b"10.0.0.1")]), "EN-CERT-0002", false),
        (
            "a URL as a DNS name",
            with(&[usages(&[SERVER]), dns(b"https://web.example")]),
            "EN-CERT-0002",
            false,
        ),
        (
            "a wildcard in the middle",
            with(&[usages(&[SERVER]), dns(b"web.*.example")]),
            "EN-CERT-0002",
            false,
        ),
        (
            "an address as text",
            with(&[extension(ALT_NAME, false, &sequence(&[&tlv(0x87, &[b"10.0.0.1"])]))]),
            "EN-CERT-0002",
            false,
        ),
        (
            "a name without its kind",
            with(&[extension(ALT_NAME, false, &sequence(&[&tlv(0x0c, &[b"web.example"])]))]),
            "EN-CERT-0002",
            false,
        ),
        ("the same extension twice", with(&[usages(&[CLIENT]), usages(&[CLIENT])]), "EN-CERT-0001", false),
        (
            "an extension that is no DER",
            with(&[extension(ALT_NAME, false, b"web.example")]),
            "EN-CERT-0001",
            false,
        ),
        (
            "an unknown critical extension",
            with(&[extension(&[0x2a, 3, 4], true, &[5, 0])]),
            "EN-CERT-0009",
            false,
        ),
        ("signed by another key", issued.with_signature(&ca.sign_well(b"something else")), "-", false),
        ("self-signed with another key", good.with_signature(&ca.sign_well(&info)), "EN-SIG-0007", false),
        (
            "signed without its header",
            good.with_signature(&key.sign_well(contents(&info))),
            "EN-SIG-0005",
            false,
        ),
    ]
}

/// Revocation lists, likewise.
pub(crate) fn wrong_lists() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let key = Key::p256();
    let algorithm = sequence(&[&oid(ECDSA_SHA256)]);
    let issuer = name(&[(COMMON_NAME, 0x0c, b"Acme")]);
    let time = |text: &[u8]| tlv(0x17, &[text]);
    let list = |version: &[u8], this: &[u8], next: &[u8], revoked: &[u8], extensions: &[Vec<u8>]| {
        let extensions = match extensions {
            [] => Vec::new(),
            list => tlv(0xa0, &[&sequence(&[&list.concat()])]),
        };
        let info = sequence(&[version, &algorithm, &issuer, this, next, revoked, &extensions]);
        sequence(&[&info, &algorithm, &bits(&key.sign_well(&info))])
    };
    let v2 = &[2, 1, 1][..];
    let (this, next) = (time(NOT_BEFORE), time(NOT_AFTER));
    let number = || extension(&[0x55, 0x1d, 0x14], false, &[2, 1, 7]);
    let point = |flags: &[u8]| extension(&[0x55, 0x1d, 0x1c], true, &sequence(&[flags]));
    let entry = |serial: &[u8]| sequence(&[serial, &time(NOT_BEFORE)]);
    vec![
        ("a good one", list(v2, &this, &next, &[], &[number()]), "-"),
        ("too old", list(v2, &this, &time(b"210101000000Z"), &[], &[number()]), "EN-CRL-0006"),
        ("from the future", list(v2, &time(b"491201000000Z"), &next, &[], &[number()]), "EN-CRL-0004"),
        ("version 1", list(&[], &this, &next, &[], &[]), "EN-CRL-0001"),
        ("version 1 with extensions", list(&[], &this, &next, &[], &[number()]), "EN-CRL-0001"),
        (
            "a delta",
            list(v2, &this, &next, &[], &[extension(&[0x55, 0x1d, 0x1b], true, &[2, 1, 6])]),
            "EN-CRL-0007",
        ),
        ("an indirect one", list(v2, &this, &next, &[], &[point(&[0x84, 1, 0xff])]), "EN-CRL-0008"),
        ("for CAs only", list(v2, &this, &next, &[], &[number(), point(&[0x82, 1, 0xff])]), "-"),
        ("without an end", list(v2, &this, &[], &[], &[number()]), "-"),
        (
            "a serial twice",
            list(v2, &this, &next, &sequence(&[&entry(&[2, 1, 5]), &entry(&[2, 1, 5])]), &[number()]),
            "-",
        ),
    ]
}

#[test]
fn the_verdict_is_right() {
    for (what, bytes, code, mended) in wrong() {
        let examined = look(Kind::Certificate, &bytes);
        assert_eq!(verdict(&examined), code, "{what}\n{}", examined.report);
        assert_eq!(examined.repair.is_some(), mended, "{what}\n{}", examined.report);
        if let Some(repair) = examined.repair {
            assert!(examined.unrepaired.is_empty(), "{what}");
            let certificate = Certificate::from_der(&repair.bytes).expect(what);
            certificate.verify_signed_by(&certificate).expect(what);
        }
    }
}

#[test]
fn lists_have_their_verdicts() {
    for (what, bytes, code) in wrong_lists() {
        let examined = look(Kind::RevocationList, &bytes);
        assert_eq!(verdict(&examined), code, "{what}\n{}", examined.report);
    }
    // What is no error is still said.
    let said = |wanted: &str, code: &str| {
        let (_, bytes, _) = wrong_lists().into_iter().find(|(what, ..)| *what == wanted).unwrap();
        let report = look(Kind::RevocationList, &bytes).report;
        assert!(report.findings.iter().any(|finding| finding.code.id == code), "{wanted}\n{report}");
    };
    said("for CAs only", "EN-CRL-0009");
    said("without an end", "EN-CRL-0005");
    said("a serial twice", "EN-CRL-0011");
    said("a delta", "EN-CRL-0002");
    said("a good one", "EN-CRL-0003");
}

#[test]
fn what_is_known_besides_is_compared() {
    let key = Key::p256();
    let mut draft = Draft::new(&key);
    draft.extensions = vec![usages(&[SERVER]), dns(b"*.web.example")];
    let bytes = draft.signed(&key);
    let file = File::new("srv", &bytes, SystemTime::now());
    let code = |file: &File<'_>| verdict(&examine(Kind::Certificate, file));
    assert_eq!(code(&File { host: Some("a.web.example"), ..file }), "-");
    assert_eq!(code(&File { host: Some("WEB.example"), ..file }), "EN-CERT-0014");
    assert_eq!(code(&File { host: Some("a.b.web.example"), ..file }), "EN-CERT-0014");
    assert_eq!(code(&File { purpose: Some(Purpose::Client), ..file }), "EN-CERT-0012");
    assert_eq!(code(&File { public_key: Some(&key.spki()), ..file }), "-");
    assert_eq!(code(&File { public_key: Some(&Key::p256().spki()), ..file }), "EN-CERT-0015");
    let p384 = Key::p384();
    let mut other = Draft::new(&p384);
    other.outer_algorithm = sequence(&[&oid(ECDSA_SHA384)]);
    other.inner_algorithm = other.outer_algorithm.clone();
    let root = Certificate::from_der(&other.with_signature(&p384.sign(&SHA384, &other.info()))).unwrap();
    assert_eq!(code(&File { roots: &[root], ..file }), "-", "it is its own root");
    let expired = Draft { validity: validity(NOT_BEFORE, b"210101000000Z"), ..Draft::new(&key) }.signed(&key);
    let then = enclasp_pki::Certificate::from_der(&expired).unwrap().not_after();
    assert_eq!(code(&File::new("old", &expired, then)), "-", "by the clock of then");
}
