//! Key files, right and wrong. Whatever is wrong with one, no byte of the private number is shown.

use std::time::SystemTime;

use enclasp_doctor::file::{Examined, File, Kind, examine, public_key_in};
use enclasp_pki::{Certificate, hex, pem};

use crate::builder::{EC, Key, P256, P384, bits, oid, sequence, tlv};
use crate::certificates::Draft;
use crate::{look, verdict};

const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// ECPrivateKey.
fn sec1(number: &[u8], curve: &[u8], point: &[u8]) -> Vec<u8> {
    let curve = if curve.is_empty() { Vec::new() } else { tlv(0xa0, &[&oid(curve)]) };
    let point = if point.is_empty() { Vec::new() } else { tlv(0xa1, &[&bits(point)]) };
    sequence(&[&[2, 1, 1], &tlv(4, &[number]), &curve, &point])
}

fn pkcs8(algorithm: &[u8], inside: &[u8]) -> Vec<u8> {
    sequence(&[&[2, 1, 0], algorithm, &tlv(4, &[inside])])
}

/// A key whose number does not begin with zeros.
fn key() -> Key {
    std::iter::repeat_with(Key::p256).find(|key| key.scalar()[0] != 0).unwrap()
}

pub(crate) struct Case {
    what: &'static str,
    pub(crate) bytes: Vec<u8>,
    code: &'static str,
    mended: bool,
    /// What must not be shown.
    secret: Vec<u8>,
}

pub(crate) fn cases() -> Vec<Case> {
    let key = key();
    let (number, point) = (key.scalar(), key.point());
    let other = Key::p256().point();
    let algorithm = key.algorithm();
    let good = pkcs8(&algorithm, &sec1(&number, &[], &point));
    let seed = [0x5a; 32];
    let ed = sequence(&[&oid(ED25519)]);
    let mut cases = Vec::new();
    let mut add = |what, bytes: Vec<u8>, code, mended| {
        let secret = if what == "a bare seed" || what == "Ed25519" { seed.to_vec() } else { number.clone() };
        cases.push(Case { what, bytes, code, mended, secret });
    };
    add("PKCS#8", good.clone(), "-", false);
    add("PKCS#8 in PEM", pem::encode("PRIVATE KEY", &good).into_bytes(), "-", false);
    add("without the point", pkcs8(&algorithm, &sec1(&number, &[], &[])), "-", false);
    add("SEC 1", sec1(&number, P256, &point), "-", false);
    let parameters = pem::encode("EC PARAMETERS", &oid(P256));
    let with_parameters = parameters + &pem::encode("EC PRIVATE KEY", &sec1(&number, P256, &point));
    add("SEC 1 after its parameters", with_parameters.into_bytes(), "-", false);
    add("Ed25519", pkcs8(&ed, &tlv(4, &[&seed])), "-", false);
    add("SEC 1 without its curve", sec1(&number, &[], &point), "EN-PUB-0003", false);
    add(
        "PKCS#8 without its curve",
        pkcs8(&sequence(&[&oid(EC)]), &sec1(&number, &[], &point)),
        "EN-PUB-0003",
        false,
    );
    add("two curves", pkcs8(&algorithm, &sec1(&number, P384, &point)), "EN-PUB-0003", false);
    add(
        "a sign byte before the number",
        pkcs8(&algorithm, &sec1(&[&[0], &number[..]].concat(), &[], &point)),
        "EN-PKEY-0007",
        true,
    );
    add("another point", pkcs8(&algorithm, &sec1(&number, &[], &other)), "EN-PKEY-0008", true);
    add("a number of zero", pkcs8(&algorithm, &sec1(&[0; 32], &[], &point)), "EN-PKEY-0007", false);
    add("a number too large", pkcs8(&algorithm, &sec1(&[0xff; 32], &[], &point)), "EN-PKEY-0007", false);
    add("a bare seed", pkcs8(&ed, &seed), "EN-PKEY-0007", true);
    add("a bare number", number.clone(), "EN-PKEY-0002", false);
    add("the public key", key.spki(), "EN-PKEY-0001", false);
    add("another label", pem::encode("RSA PRIVATE KEY", &good).into_bytes(), "EN-FILE-0009", true);
    add(
        "SEC 1 as PKCS#8",
        pem::encode("PRIVATE KEY", &sec1(&number, P256, &point)).into_bytes(),
        "EN-FILE-0009",
        true,
    );
    add("trailing bytes", [&good[..], &[0x0a]].concat(), "EN-FILE-0012", true);
    add("cut short", good[..good.len() - 30].to_vec(), "EN-FILE-0010", false);
    add("a certificate", Draft::new(&key).signed(&key), "EN-FILE-0002", false);
    let mut wrong_tag = good.clone();
    let at = good.windows(32).position(|window| window == number).unwrap();
    wrong_tag[at - 2] = 0x0c;
    add("a string for the number", wrong_tag, "EN-FILE-0013", false);
    let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n-----END EC PRIVATE KEY-----\n";
    add("PEM's old encryption", legacy.into(), "-", false);
    let openssh = [&b"openssh-key-v1\0"[..], &[0, 0, 0, 4], b"none", &[0, 0, 0, 4], b"none"].concat();
    add("OpenSSH's format", pem::encode("OPENSSH PRIVATE KEY", &openssh).into_bytes(), "EN-PKEY-0003", false);
    add(
        "OpenSSH's public key",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA web\n".to_vec(),
        "EN-PKEY-0001",
        false,
    );
    add("PuTTY's format", b"PuTTY-User-Key-File-3: ssh-ed25519\r\n".to_vec(), "EN-PKEY-0002", false);
    cases
}

#[test]
fn the_verdict_is_right() {
    for Case { what, bytes, code, mended, secret } in cases() {
        let examined = look(Kind::Key, &bytes);
        assert_eq!(verdict(&examined), code, "{what}\n{}", examined.report);
        assert_eq!(examined.repair.is_some(), mended, "{what}\n{}", examined.report);
        shows_nothing(&examined, &secret, what);
        if let Some(repair) = examined.repair {
            assert!(examined.unrepaired.is_empty(), "{what}");
            assert!(public_key_in(&repair.bytes, None).is_some(), "{what}");
        }
    }
}

/// No three bytes of the number in a row, in hexadecimal or as they are.
fn shows_nothing(examined: &Examined, secret: &[u8], what: &str) {
    let shown = format!("{}{:?}", examined.report, examined.unrepaired);
    for window in secret.windows(3).filter(|window| window.iter().any(|byte| *byte != window[0])) {
        assert!(!shown.contains(&hex(window)), "{what} shows {}\n{shown}", hex(window));
    }
    assert!(!shown.contains(&hex(&secret[..2]).repeat(8)), "{what}\n{shown}");
}

#[test]
fn a_key_is_compared_with_a_certificate() {
    let key = key();
    let bytes = pkcs8(&key.algorithm(), &sec1(&key.scalar(), &[], &[]));
    assert_eq!(public_key_in(&bytes, None), Some(key.spki()));
    let own = Certificate::from_der(&Draft::new(&key).signed(&key)).unwrap();
    let file = File::new("web.key", &bytes, SystemTime::now());
    assert_eq!(verdict(&examine(Kind::Key, &File { certificate: Some(&own), ..file })), "-");
    let other = Key::p256();
    let other = Certificate::from_der(&Draft::new(&other).signed(&other)).unwrap();
    assert_eq!(verdict(&examine(Kind::Key, &File { certificate: Some(&other), ..file })), "EN-PKEY-0010");
}
