//! Requests, right and wrong. Each wrong one has one fault, and the verdict names it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};
use enclasp_doctor::file::Kind;
use enclasp_pki::{CertificationRequest, pem};

use crate::builder::{
    COMMON_NAME, COUNTRY, Draft, EC, ECDSA_SHA1, ECDSA_SHA384, Key, P256, P384, RSA, RSA_SHA256, bits,
    contents, name, oid, pair, sequence, signature_with_signs, stating, tlv,
};
use crate::{look, verdict};

/// What `--fix` can do for a file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fix {
    /// All: the mended request is one that a CA takes.
    All,
    /// Nothing, or not all: it takes the key.
    No,
}

pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// The code of the verdict.
    pub(crate) code: &'static str,
    /// Where in ASN.1 terms the verdict's first place is.
    path: &'static str,
    fix: Fix,
}

/// Every request that is wrong.
pub(crate) fn wrong() -> Vec<Case> {
    let key = Key::p256();
    let point = key.point();
    let good = Draft::new(&key);
    let info = good.info();
    let mut cases = Vec::new();
    let mut add = |what, bytes, code, path, fix| cases.push(Case { what, bytes, code, path, fix });
    // A draft with something changed, signed as it stands.
    let changed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new(&key);
        change(&mut draft);
        draft.signed(&key)
    };
    // The same, signed as it should have been: only what is outside of the signature is wrong.
    let bungled = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new(&key);
        change(&mut draft);
        draft.with_signature(&key.sign_well(&info))
    };
    const INFO: &str = "certificationRequestInfo";
    const KEY: &str = "certificationRequestInfo.subjectPKInfo";
    const KEY_BITS: &str = "certificationRequestInfo.subjectPKInfo.subjectPublicKey";
    const KEY_ALGORITHM: &str = "certificationRequestInfo.subjectPKInfo.algorithm";
    const ATTRIBUTES: &str = "certificationRequestInfo.attributes";

    // Lengths.
    add("outer length short", bungled(&|d| d.outer_off_by = -1), "EN-FILE-0011", "", Fix::All);
    add("outer length long", bungled(&|d| d.outer_off_by = 3), "EN-FILE-0011", "", Fix::All);
    add(
        "inner length short, signed rightly",
        bungled(&|d| d.info_off_by = -2),
        "EN-FILE-0011",
        INFO,
        Fix::All,
    );
    add("inner length short, signed so", changed(&|d| d.info_off_by = -2), "EN-FILE-0011", INFO, Fix::No);
    add("inner length long, signed so", changed(&|d| d.info_off_by = 7), "EN-FILE-0011", INFO, Fix::No);
    let umlauts = "Zürich".as_bytes();
    let counted = |d: &mut Draft| {
        let value = stating(umlauts.len() - 1, 0x0c, &[umlauts]);
        d.subject = sequence(&[&tlv(0x31, &[&sequence(&[&oid(COMMON_NAME), &value])])]);
    };
    let path = "certificationRequestInfo.subject[0][0].value";
    add("characters counted, not bytes", changed(&counted), "EN-FILE-0011", path, Fix::No);
    let trailing = [&good.signed(&key)[..], &[0; 20]].concat();
    add("a buffer written to its capacity", trailing, "EN-FILE-0012", "", Fix::All);
    let whole = good.signed(&key);
    add("cut short", whole[..whole.len() - 20].to_vec(), "EN-FILE-0010", "", Fix::No);
    let inside = contents(&whole);
    let long_form = [&[0x30, 0x83, 0, 0, inside.len() as u8], inside].concat();
    add("a length in too many bytes", long_form, "EN-FILE-0016", "", Fix::All);
    let indefinite = [&[0x30, 0x80], inside, &[0, 0]].concat();
    add("an indefinite length", indefinite, "EN-FILE-0016", "", Fix::All);

    // The public key.
    add("the bare point", changed(&|d| d.spki = point.clone()), "EN-PUB-0001", KEY, Fix::No);
    add("the bare point in a BIT STRING", changed(&|d| d.spki = bits(&point)), "EN-PUB-0001", KEY, Fix::No);
    add("X and Y alone", changed(&|d| d.spki = point[1..].to_vec()), "EN-PUB-0001", KEY, Fix::No);
    let without_sequence = [key.algorithm(), bits(&point)].concat();
    add(
        "no SEQUENCE around the key",
        changed(&|d| d.spki = without_sequence.clone()),
        "EN-PUB-0001",
        KEY,
        Fix::No,
    );
    add("the point, signed rightly", bungled(&|d| d.spki = point.clone()), "EN-PUB-0001", KEY, Fix::All);
    let short = sequence(&[&key.algorithm(), &bits(&point[1..])]);
    add("64 bytes where 65 are due", changed(&|d| d.spki = short.clone()), "EN-PUB-0002", KEY_BITS, Fix::No);
    // The seed's fixed 26-byte header, before 64 bytes.
    let header = &key.spki()[..26];
    let fixed = [header, &point[1..]].concat();
    add(
        "64 bytes after a fixed header",
        changed(&|d| d.spki = fixed.clone()),
        "EN-PUB-0002",
        KEY_BITS,
        Fix::No,
    );
    let little: Vec<u8> = [&[4], &reversed(&point[1..33])[..], &reversed(&point[33..])].concat();
    let little = sequence(&[&key.algorithm(), &bits(&little)]);
    add("little-endian coordinates", changed(&|d| d.spki = little.clone()), "EN-PUB-0002", KEY_BITS, Fix::No);
    let mut off = point.clone();
    off[40] ^= 1;
    let off = sequence(&[&key.algorithm(), &bits(&off)]);
    add("a point off its curve", changed(&|d| d.spki = off.clone()), "EN-PUB-0002", KEY_BITS, Fix::No);
    let unused = sequence(&[&key.algorithm(), &tlv(3, &[&point])]);
    add("unused bits not counted", changed(&|d| d.spki = unused.clone()), "EN-FILE-0018", KEY_BITS, Fix::No);
    let wrapped = sequence(&[&key.algorithm(), &bits(&tlv(4, &[&point]))]);
    add("CKA_EC_POINT as it is", changed(&|d| d.spki = wrapped.clone()), "EN-PUB-0005", KEY_BITS, Fix::No);
    let nested = sequence(&[&key.algorithm(), &bits(&key.spki())]);
    add("a key in a key", changed(&|d| d.spki = nested.clone()), "EN-PUB-0005", KEY_BITS, Fix::No);
    let as_rsa = sequence(&[&sequence(&[&oid(RSA), &[5, 0]]), &bits(&point)]);
    add(
        "rsaEncryption around a point",
        changed(&|d| d.spki = as_rsa.clone()),
        "EN-PUB-0004",
        KEY_ALGORITHM,
        Fix::No,
    );
    let p384 = sequence(&[&sequence(&[&oid(EC), &oid(P384)]), &bits(&point)]);
    let path = "certificationRequestInfo.subjectPKInfo.algorithm.parameters";
    add("another curve is named", changed(&|d| d.spki = p384.clone()), "EN-PUB-0003", path, Fix::No);
    let none = sequence(&[&sequence(&[&oid(EC)]), &bits(&point)]);
    add("no curve is named", changed(&|d| d.spki = none.clone()), "EN-PUB-0003", KEY_ALGORITHM, Fix::No);
    let swapped = sequence(&[&sequence(&[&oid(P256), &oid(EC)]), &bits(&point)]);
    add(
        "the OIDs are swapped",
        changed(&|d| d.spki = swapped.clone()),
        "EN-PUB-0004",
        KEY_ALGORITHM,
        Fix::No,
    );

    // The other fields.
    add("no attributes", changed(&|d| d.attributes.clear()), "EN-CSR-0001", ATTRIBUTES, Fix::No);
    add(
        "no attributes, signed rightly",
        bungled(&|d| d.attributes.clear()),
        "EN-CSR-0001",
        ATTRIBUTES,
        Fix::All,
    );
    add(
        "attributes as a SET",
        changed(&|d| d.attributes = vec![0x31, 0]),
        "EN-CSR-0001",
        ATTRIBUTES,
        Fix::No,
    );
    let explicit = "certificationRequestInfo.attributes[0]";
    add(
        "an explicit tag",
        changed(&|d| d.attributes = vec![0xa0, 2, 0x31, 0]),
        "EN-CSR-0001",
        explicit,
        Fix::No,
    );
    let version = "certificationRequestInfo.version";
    add("version 1", changed(&|d| d.version = vec![2, 1, 1]), "EN-CSR-0002", version, Fix::No);
    add("no version", changed(&|d| d.version.clear()), "EN-FILE-0014", version, Fix::No);
    add(
        "a version of two bytes",
        changed(&|d| d.version = vec![2, 2, 0, 0]),
        "EN-FILE-0017",
        version,
        Fix::No,
    );
    let latin = |d: &mut Draft| d.subject = name(&[(COMMON_NAME, 0x0c, b"Z\xfcrich")]);
    let value = "certificationRequestInfo.subject[0][0].value";
    add("Latin-1 in a UTF8String", changed(&latin), "EN-FILE-0021", value, Fix::No);

    // The signature.
    let digest256 = digest(&SHA256, &info);
    let signature = signature_with_signs(&key, &info);
    let raw = good.with_signature(&pair(&signature));
    add("r ‖ s", raw, "EN-SIG-0001", "signature", Fix::All);
    let negative = [&[0x30, 68, 2, 32], &signature[5..37], &[2, 32], &signature[40..]].concat();
    add("negative numbers", good.with_signature(&negative), "EN-SIG-0002", "signature", Fix::All);
    let padded = [&[0x30, 72, 2, 34, 0], &signature[4..37], &signature[37..]].concat();
    let padded = [&[0x30, padded.len() as u8 - 2], &padded[2..]].concat();
    add("padded numbers", good.with_signature(&padded), "EN-SIG-0002", "signature", Fix::All);
    add(
        "an OCTET STRING in it",
        good.with_signature(&tlv(4, &[&signature])),
        "EN-SIG-0002",
        "signature",
        Fix::All,
    );
    add(
        "unused bits forgotten",
        good.with_bits(&tlv(3, &[&signature])),
        "EN-FILE-0018",
        "signature",
        Fix::All,
    );
    let named = |algorithm: &[u8]| Draft { algorithm: algorithm.to_vec(), ..Draft::new(&key) };
    let rsa = named(&sequence(&[&oid(RSA_SHA256), &[5, 0]])).with_signature(&signature);
    add("SHA256withRSA by an EC key", rsa, "EN-SIG-0003", "signatureAlgorithm", Fix::All);
    let key_oid = named(&sequence(&[&oid(EC), &oid(P256)])).with_signature(&signature);
    add("the key's OID for the signature's", key_oid, "EN-SIG-0003", "signatureAlgorithm", Fix::All);
    let other_hash = named(&sequence(&[&oid(ECDSA_SHA384)])).with_signature(&signature);
    add("SHA-384 is named, SHA-256 signed", other_hash, "EN-SIG-0004", "signatureAlgorithm", Fix::All);
    let sha1 = key.sign(&SHA1_FOR_LEGACY_USE_ONLY, &info);
    let weak = named(&sequence(&[&oid(ECDSA_SHA1)])).with_signature(&sha1);
    add("SHA-1, as the seed has it", weak, "EN-SIG-0006", "signatureAlgorithm", Fix::No);
    let twice = good.with_signature(&key.sign_well(digest256.as_ref()));
    add("a digest of the digest", twice, "EN-SIG-0005", "signature", Fix::No);
    let sha1_twice = key.sign_well(digest(&SHA1_FOR_LEGACY_USE_ONLY, &info).as_ref());
    add("SHA-256 of the SHA-1 digest", good.with_signature(&sha1_twice), "EN-SIG-0005", "signature", Fix::No);
    let hex = good.with_signature(&key.sign_well(enclasp_pki::hex(digest256.as_ref()).as_bytes()));
    add("the digest in hexadecimal", hex, "EN-SIG-0005", "signature", Fix::No);
    let unhashed = good.with_signature(&key.sign_digest(&info));
    add("nothing hashed", unhashed, "EN-SIG-0005", "signature", Fix::No);
    let headless = good.with_signature(&key.sign_well(contents(&info)));
    add("the signed part without its header", headless, "EN-SIG-0005", "signature", Fix::No);
    let other = good.with_signature(&Key::p256().sign_well(&info));
    add("another key signed", other, "EN-SIG-0007", "signatureAlgorithm", Fix::No);
    add("no signature at all", good.with_signature(&[]), "EN-SIG-0009", "signature", Fix::No);
    add(
        "a digest for a signature",
        good.with_signature(digest256.as_ref()),
        "EN-SIG-0009",
        "signature",
        Fix::No,
    );

    // The file.
    let pem_text = pem::encode("CERTIFICATE REQUEST", &whole);
    let binary =
        [b"-----BEGIN CERTIFICATE REQUEST-----\n", &whole[..], b"\n-----END CERTIFICATE REQUEST-----\n"];
    let text = "the file's text";
    add("DER in a PEM frame", binary.concat(), "EN-FILE-0005", text, Fix::All);
    let base64: String = pem_text.lines().filter(|line| !line.starts_with('-')).collect();
    add("base64 alone", base64.into_bytes(), "EN-FILE-0004", "", Fix::All);
    let twice = pem::encode("CERTIFICATE REQUEST", pem_text.as_bytes());
    add("PEM in PEM", twice.into_bytes(), "EN-FILE-0006", "", Fix::All);
    let label = pem::encode("CERTIFICATE", &whole);
    add("a certificate's label", label.into_bytes(), "EN-FILE-0009", "", Fix::All);
    add("an error page", b"<html>404 not found</html>\n".to_vec(), "EN-FILE-0001", "", Fix::No);
    add("nothing", Vec::new(), "EN-FILE-0001", "", Fix::No);
    add("a public key", key.spki(), "EN-FILE-0002", "", Fix::No);
    cases
}

/// Every request that is right.
pub(crate) fn right() -> Vec<(&'static str, Vec<u8>)> {
    let key = Key::p256();
    let p384 = Key::p384();
    let good = Draft::new(&key);
    let mut on_p384 = Draft::new(&p384);
    on_p384.algorithm = sequence(&[&oid(ECDSA_SHA384)]);
    let p384_signed = on_p384.with_signature(&p384.sign(&SHA384, &on_p384.info()));
    // ecdsa-with-SHA256 by a P-384 key is legal.
    let mixed = Draft::new(&p384).signed(&p384);
    let long = Draft { subject: name(&[(COMMON_NAME, 0x0c, &[b'x'; 64])]), ..Draft::new(&key) };
    let pem_text = pem::encode("NEW CERTIFICATE REQUEST", &good.signed(&key)).replace('\n', "\r\n");
    vec![
        ("P-256", good.signed(&key)),
        ("P-384", p384_signed),
        ("P-384 with SHA-256", mixed),
        ("a long name", long.signed(&key)),
        ("a name that is printable", {
            let subject = name(&[(COUNTRY, 0x13, b"CH"), (COMMON_NAME, 0x13, b"web")]);
            Draft { subject, ..Draft::new(&key) }.signed(&key)
        }),
        ("PEM with text around it", [b"Certificate Request:\n", pem_text.as_bytes()].concat()),
    ]
}

#[test]
fn the_verdict_is_right() {
    for Case { what, bytes, code, path, fix } in wrong() {
        let examined = look(Kind::Request, &bytes);
        let shown = &examined.report;
        assert_eq!(verdict(&examined), code, "{what}\n{shown}");
        let places = shown.findings[0].evidence.iter().filter_map(|evidence| evidence.place.as_ref());
        let first = places.map(|place| place.path.as_str()).next().unwrap_or_default();
        assert_eq!(first, path, "{what}\n{shown}");
        assert_eq!(examined.unrepaired.is_empty(), fix == Fix::All, "{what}\n{shown}");
        if fix == Fix::All {
            let mended = examined.repair.unwrap_or_else(|| panic!("{what} is not mended\n{shown}"));
            assert!(!mended.done.is_empty(), "{what}");
            let request = CertificationRequest::from_pem_or_der(&mended.bytes).expect(what);
            request.verify().unwrap_or_else(|e| panic!("{what}: {e}\n{shown}"));
        }
    }
}

#[test]
fn nothing_is_wrong_with_right_ones() {
    for (what, bytes) in right() {
        CertificationRequest::from_pem_or_der(&bytes).and_then(|request| request.verify()).expect(what);
        let examined = look(Kind::Request, &bytes);
        assert_eq!(verdict(&examined), "-", "{what}\n{}", examined.report);
        assert!(examined.repair.is_none(), "{what}");
        let warnings = examined
            .report
            .findings
            .iter()
            .filter(|finding| finding.severity != enclasp_doctor::Severity::Note);
        assert_eq!(warnings.count(), 0, "{what}\n{}", examined.report);
    }
}

/// Offsets are those of the file.
#[test]
fn offsets_lead_to_the_bytes() {
    let key = Key::p256();
    let mut draft = Draft::new(&key);
    draft.spki = key.point();
    let der = draft.signed(&key);
    let examined = look(Kind::Request, &der);
    let place = examined.report.findings[0].evidence[0].place.clone().unwrap();
    assert_eq!(&der[place.offset..place.offset + place.length], key.point());
    // What comes after the header that is missing keeps its place.
    draft.algorithm = sequence(&[&oid(RSA_SHA256), &[5, 0]]);
    let der = draft.signed(&key);
    let examined = look(Kind::Request, &der);
    let finding = examined.report.findings.iter().find(|finding| finding.code.id == "EN-SIG-0003").unwrap();
    let place = finding.evidence[0].place.clone().unwrap();
    assert_eq!(&der[place.offset..place.offset + place.length], draft.algorithm);
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}
