//! Public keys as requests, certificates and key files hold them: is the key what its header says?

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_DSA, ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_224_R_1};
use const_oid::db::rfc8410::{ID_ED_448, ID_ED_25519, ID_X_448, ID_X_25519};
use enclasp_pki::oid_in_words;

use super::node::{BIT_STRING, Body, INTEGER, NULL, Node, OCTET_STRING, OID, SEQUENCE};
use super::shape;
use super::shapes::{PUBLIC_KEY, RSA_PUBLIC_KEY};
use super::sheet::Sheet;
use crate::ecdsa::Curve;
use crate::{Confidence, Finding, code};

/// secp192r1 (NIST P-192).
const SECP_192_R_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.1");
/// rsassaPss (RFC 4055 §1.2), as the type of a key.
const RSASSA_PSS: ObjectIdentifier = const_oid::db::rfc5912::ID_RSASSA_PSS;

/// What is known of a key, after what could be mended was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PublicKey {
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519(Vec<u8>),
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

impl PublicKey {
    /// Its DER SubjectPublicKeyInfo.
    pub(super) fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ec { curve, point } => spki(ec_algorithm(*curve), point).encode(),
            Self::Ed25519(key) => {
                let algorithm =
                    Node::constructed(SEQUENCE, vec![Node::primitive(OID, ID_ED_25519.as_bytes())]);
                spki(algorithm, key).encode()
            }
            Self::Rsa { modulus, exponent } => {
                let key = Node::constructed(SEQUENCE, vec![unsigned(modulus), unsigned(exponent)]).encode();
                spki(rsa_algorithm(), &key).encode()
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Ec { curve, .. } => format!("an EC key on {}", curve.name()),
            Self::Ed25519(_) => "an Ed25519 key".into(),
            Self::Rsa { modulus, .. } => format!("an RSA key of {} bits", bits_of(modulus)),
        }
    }

    /// Reads a SubjectPublicKeyInfo that is as it should be.
    pub(super) fn of_spki(der: &[u8]) -> Option<Self> {
        let mut reading = shape::read(der, &PUBLIC_KEY, 0, "").ok()?;
        examine(&mut reading.root, &mut Sheet::default())
    }
}

/// AlgorithmIdentifier of an EC key on a named curve (RFC 5480 §2.1.1).
fn ec_algorithm(curve: Curve) -> Node {
    let oids = [ID_EC_PUBLIC_KEY, curve.oid()].map(|oid| Node::primitive(OID, oid.as_bytes()));
    Node::constructed(SEQUENCE, oids.into())
}

fn rsa_algorithm() -> Node {
    let oid = Node::primitive(OID, RSA_ENCRYPTION.as_bytes());
    Node::constructed(SEQUENCE, vec![oid, Node::primitive(NULL, [])])
}

/// SubjectPublicKeyInfo.
pub(super) fn spki(algorithm: Node, key: &[u8]) -> Node {
    Node::constructed(SEQUENCE, vec![algorithm, bit_string(key)])
}

/// SubjectPublicKeyInfo of a point.
pub(super) fn ec_spki(curve: Curve, point: &[u8]) -> Node {
    spki(ec_algorithm(curve), point)
}

pub(super) fn rsa_spki(key: &[u8]) -> Node {
    spki(rsa_algorithm(), key)
}

/// A BIT STRING of whole bytes.
pub(super) fn bit_string(bytes: &[u8]) -> Node {
    Node::primitive(BIT_STRING, [&[0], bytes].concat())
}

/// The INTEGER of a big-endian number that is not negative.
pub(super) fn unsigned(bytes: &[u8]) -> Node {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let number = bytes.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if number.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    Node::primitive(INTEGER, [sign, number].concat())
}

/// The big-endian number of an INTEGER, without leading zeros.
pub(super) fn magnitude(value: &[u8]) -> &[u8] {
    let zeros = value.iter().take_while(|byte| **byte == 0).count();
    value.get(zeros..).unwrap_or_default()
}

pub(super) fn bits_of(number: &[u8]) -> usize {
    let number = magnitude(number);
    number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize)
}

/// What is under an AlgorithmIdentifier: its OID, and its parameters.
pub(super) fn algorithm_of(node: &Node) -> Option<(ObjectIdentifier, Option<&Node>)> {
    let oid = node.children().first().filter(|oid| oid.tag == OID)?;
    Some((ObjectIdentifier::from_bytes(oid.value()).ok()?, node.children().get(1)))
}

/// The RSAPublicKey in these bytes.
fn rsa_numbers(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let reading = shape::read(der, &RSA_PUBLIC_KEY, 0, "").ok()?;
    let fits = reading.misfits.is_empty() && reading.trailing == 0;
    let [modulus, exponent] = reading.root.children() else { return None };
    fits.then(|| (modulus.value().to_vec(), exponent.value().to_vec()))
}

/// Says what is wrong with a SubjectPublicKeyInfo, whose paths are set, and mends it where it is
/// certain what was meant. `None` if no key is left that can be worked with.
pub(super) fn examine(node: &mut Node, sheet: &mut Sheet) -> Option<PublicKey> {
    let [algorithm, bits] = node.children() else { return None };
    let (oid, parameters) = algorithm_of(algorithm)?;
    let (algorithm_place, bits_place) = (algorithm.place(), bits.place());
    let whole = bits.value();
    // The count of unused bits may be forgotten; the first byte of a point, 04, looks like one.
    if let Some(curve) = Curve::of_point(whole) {
        sheet.findings.push(
            Finding::error(
                code::FILE_BIT_STRING,
                "the BIT STRING of the public key begins with the point, without the count of unused bits",
                "A BIT STRING begins with a byte that counts the unused bits of its last byte: 00 for a key. Here the 04 of \
                 the point stands in its place.",
                "Put the byte 00 before the point, which makes the lengths around it one more.",
            )
            .with_at("found", "04, the first byte of the point; expected 00", bits_place.clone())
            .with("curve", curve.name()),
        );
        sheet.repairs.push("put the count of unused bits before the point".into());
        let point = whole.to_vec();
        return Some(mend_ec(node, curve, point));
    }
    let key = whole.get(1..).unwrap_or_default().to_vec();
    // A key that is wrapped once more.
    if let Some((inner, wrapper)) = unwrapped(&key) {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_NESTED,
                format!("the public key is wrapped twice: inside the BIT STRING is {wrapper}"),
                "subjectPublicKey holds the key itself: for EC the point 04 ‖ X ‖ Y, for RSA the RSAPublicKey. A program \
                 put in what another had wrapped already (PKCS#11's CKA_EC_POINT is an OCTET STRING).",
                "Take the inner wrapping off.",
            )
            .with_at("found", wrapper, bits_place.clone()),
        );
        sheet.repairs.push("took the second wrapping off the public key".into());
        if let Some(curve) = Curve::of_point(&inner) {
            return Some(mend_ec(node, curve, inner));
        }
        return mend_rsa(node, &inner);
    }
    let as_rsa = rsa_numbers(&key);
    let as_point = point_in(&key);
    match oid {
        ID_EC_PUBLIC_KEY => {
            if as_rsa.is_some() {
                other_algorithm(
                    sheet,
                    &algorithm_place,
                    "ecPublicKey",
                    "an RSA key (RSAPublicKey)",
                    "rsaEncryption",
                );
                return mend_rsa(node, &key);
            }
            let named = parameters.filter(|p| p.tag == OID);
            let named = named.and_then(|p| ObjectIdentifier::from_bytes(p.value()).ok());
            let parameters = parameters.map(|p| (p.tag, p.place()));
            examine_ec(node, sheet, named, parameters, &key, as_point, &bits_place, &algorithm_place)
        }
        RSA_ENCRYPTION | RSASSA_PSS => {
            if let Some((curve, point, _)) = as_point {
                other_algorithm(
                    sheet,
                    &algorithm_place,
                    &oid_in_words(oid),
                    &format!("an EC key: a point on {}", curve.name()),
                    &format!("ecPublicKey with the curve {}", curve.name()),
                );
                return Some(mend_ec(node, curve, point));
            }
            let has_null = parameters.is_some_and(|p| p.tag == NULL);
            if oid == RSA_ENCRYPTION && !has_null {
                parameters_wrong(
                    sheet,
                    &algorithm_place,
                    "rsaEncryption has no NULL as its parameters",
                    "NULL",
                );
                if let Some(algorithm) = node.children_mut().first_mut() {
                    mend_algorithm(algorithm, rsa_algorithm());
                }
            }
            let Some((modulus, exponent)) = as_rsa else {
                sheet.findings.push(
                    Finding::error(
                        code::PUBLIC_KEY_MALFORMED,
                        "the RSA public key is no RSAPublicKey",
                        "Inside the BIT STRING has to be a SEQUENCE of two INTEGERs, the modulus and the exponent (RFC 8017 \
                         appendix A.1.1).",
                        "Encode the key as RSAPublicKey.",
                    )
                    .with_at("found", first_bytes(&key), bits_place),
                );
                return None;
            };
            examine_rsa(sheet, modulus, exponent, &bits_place)
        }
        ID_ED_25519 => {
            if parameters.is_some() {
                parameters_wrong(sheet, &algorithm_place, "Ed25519 has parameters", "none (RFC 8410 §3)");
                if let Some(algorithm) = node.children_mut().first_mut() {
                    let oid = Node::primitive(OID, ID_ED_25519.as_bytes());
                    mend_algorithm(algorithm, Node::constructed(SEQUENCE, vec![oid]));
                }
            }
            if key.len() != 32 {
                sheet.findings.push(
                    Finding::error(
                        code::PUBLIC_KEY_MALFORMED,
                        format!("the Ed25519 public key has {} bytes, not 32", key.len()),
                        "An Ed25519 public key is 32 bytes as they are, without any encoding (RFC 8410 §4).",
                        "Put the 32 bytes of the key into the BIT STRING.",
                    )
                    .with_at("found", format!("{} bytes", key.len()), bits_place),
                );
                return None;
            }
            Some(PublicKey::Ed25519(key))
        }
        ID_X_25519 | ID_X_448 => {
            unsupported(sheet, &algorithm_place, "is for key agreement and cannot sign", oid);
            None
        }
        ID_DSA => {
            unsupported(sheet, &algorithm_place, "is DSA, which TLS has given up", oid);
            None
        }
        ID_ED_448 => {
            unsupported(sheet, &algorithm_place, "is Ed448, which hardly any TLS stack has", oid);
            None
        }
        other => {
            if let Some((curve, point, _)) = as_point {
                let words = oid_in_words(other);
                let right = format!("ecPublicKey with the curve {}", curve.name());
                other_algorithm(sheet, &algorithm_place, &words, "a point of an EC key", &right);
                return Some(mend_ec(node, curve, point));
            }
            unsupported(sheet, &algorithm_place, "is of a type that is not known here", other);
            None
        }
    }
}

/// A point in bytes that should be one: as it should be, or without its 04, or with its coordinates
/// in the wrong byte order. The words say what is wrong.
fn point_in(key: &[u8]) -> Option<(Curve, Vec<u8>, Option<&'static str>)> {
    if let Some(curve) = Curve::of_point(key) {
        return Some((curve, key.to_vec(), None));
    }
    let bare = [&[4], key].concat();
    if let Some(curve) = Curve::of_point(&bare) {
        return Some((curve, bare, Some("the byte 04 before X ‖ Y is missing")));
    }
    let coordinates = key.strip_prefix(&[4]).unwrap_or(key);
    if coordinates.len().is_multiple_of(2) {
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        let reversed = |half: &[u8]| half.iter().rev().copied().collect::<Vec<u8>>();
        let little_endian = [&[4], &reversed(x)[..], &reversed(y)].concat();
        if let Some(curve) = Curve::of_point(&little_endian) {
            return Some((curve, little_endian, Some("X and Y are in little-endian byte order")));
        }
        let swapped = [&[4], y, x].concat();
        if let Some(curve) = Curve::of_point(&swapped) {
            return Some((curve, swapped, Some("Y comes before X")));
        }
    }
    None
}

#[expect(clippy::too_many_arguments, reason = "what `examine` has found out of one key")]
fn examine_ec(
    node: &mut Node,
    sheet: &mut Sheet,
    named: Option<ObjectIdentifier>,
    parameters: Option<(u8, crate::Place)>,
    key: &[u8],
    as_point: Option<(Curve, Vec<u8>, Option<&'static str>)>,
    bits_place: &crate::Place,
    algorithm_place: &crate::Place,
) -> Option<PublicKey> {
    let named_curve = named.and_then(Curve::of_oid);
    if let Some((curve, point, fault)) = as_point {
        if let Some(fault) = fault {
            let count = key.len();
            sheet.findings.push(
                Finding::error(
                    code::PUBLIC_KEY_POINT,
                    format!("the public key has {count} bytes where X9.62 wants {}: {fault}", curve.point_length()),
                    "The public key of an EC key is the uncompressed point 04 ‖ X ‖ Y, each coordinate big-endian and as \
                     wide as the curve (RFC 5480 §2.2, SEC 1 §2.3.3).",
                    "Write the point in that form.",
                )
                .with_at("found", format!("{count} bytes, beginning {}", first_bytes(key)), bits_place.clone())
                .with("checked", format!("with that mended, the point is on {}", curve.name())),
            );
            sheet.repairs.push(format!("wrote the point as 04 ‖ X ‖ Y: {fault}"));
        }
        if named_curve != Some(curve) {
            let found = match (named, &parameters) {
                (Some(oid), _) => format!("the curve {}", oid_in_words(oid)),
                (None, None) => "no curve".into(),
                (None, Some((NULL, _))) => "NULL in place of a curve".into(),
                (None, Some((SEQUENCE, _))) => "a curve spelled out in numbers".into(),
                (None, Some((tag, _))) => format!("a {} in place of a curve", super::node::describe(*tag)),
            };
            let place = parameters.map_or_else(|| algorithm_place.clone(), |(_, place)| place);
            sheet.findings.push(
                Finding::error(
                    code::PUBLIC_KEY_CURVE,
                    format!("the key's header names {found}, but the point is on {}", curve.name()),
                    "The parameters of ecPublicKey name the curve by its OID (RFC 5480 §2.1.1). With another curve, or none, \
                     the point cannot be used.",
                    format!("Name the curve {} ({}).", curve.name(), curve.oid()),
                )
                .with_at("found", found, place),
            );
            sheet.repairs.push(format!("named the curve {}", curve.name()));
        }
        if curve == Curve::P521 || curve == Curve::Secp256k1 {
            sheet.findings.push(Finding::warning(
                code::PUBLIC_KEY_UNSUPPORTED,
                format!("the key is on {}", curve.name()),
                "Few TLS stacks and CAs take keys on this curve.",
                "Use P-256 or P-384 where it shall work everywhere.",
            ));
        }
        let mended = fault.is_some() || named_curve != Some(curve);
        return Some(if mended { mend_ec(node, curve, point) } else { PublicKey::Ec { curve, point } });
    }
    let (title, why) = match (named, named_curve, key.first()) {
        (Some(SECP_192_R_1 | SECP_224_R_1), ..) => {
            let name = if named == Some(SECP_192_R_1) { "P-192" } else { "P-224" };
            sheet.findings.push(
                Finding::error(
                    code::PUBLIC_KEY_WEAK,
                    format!("the key is on {name}, which is too weak"),
                    "Curves below 256 bits are no longer accepted.",
                    "Make a key on P-256.",
                )
                .with_at("found", name, bits_place.clone()),
            );
            return None;
        }
        (Some(oid), None, _) => {
            unsupported(sheet, algorithm_place, "is on a curve that is not known here", oid);
            return None;
        }
        (_, Some(curve), Some(2 | 3)) if key.len() == 1 + curve.width() => (
            format!("the point is compressed ({} bytes, beginning {})", key.len(), first_bytes(key)),
            "RFC 5480 allows it, and hardly any TLS stack reads it.",
        ),
        (_, Some(curve), _) if key.len() != curve.point_length() => (
            format!(
                "the public key has {} bytes; a point on {} has {}",
                key.len(),
                curve.name(),
                curve.point_length()
            ),
            "The length fits neither the curve that the header names nor another one.",
        ),
        _ => (
            "the point is not on the curve".into(),
            "It has the right length, but X and Y do not satisfy the curve's equation: bytes were changed, or it is no point.",
        ),
    };
    sheet.findings.push(
        Finding::error(
            code::PUBLIC_KEY_POINT,
            title,
            why,
            "Write the point as 04 ‖ X ‖ Y from the key itself.",
        )
        .with_at(
            "found",
            format!("{} bytes, beginning {}", key.len(), first_bytes(key)),
            bits_place.clone(),
        ),
    );
    None
}

/// No modulus is worked with that has more: it would take too long.
const MAX_MODULUS_BITS: usize = 16_384;

fn examine_rsa(
    sheet: &mut Sheet,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    place: &crate::Place,
) -> Option<PublicKey> {
    let negative = modulus.first().is_some_and(|first| *first >= 0x80);
    let bits = bits_of(&modulus);
    if negative {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_MALFORMED,
                "the RSA modulus is negative",
                "Its first bit is set, which in an INTEGER means a negative number: the byte 00 before it is missing.",
                "Put the byte 00 before the modulus.",
            )
            .with_at("found", format!("{bits} bits, the first of them set"), place.clone()),
        );
    }
    let too_large = bits > MAX_MODULUS_BITS;
    let even = |number: &[u8]| number.last().is_none_or(|last| last & 1 == 0);
    if even(&modulus)
        || even(&exponent)
        || magnitude(&exponent) == [1]
        || magnitude(&exponent).len() > 8
        || too_large
    {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_MALFORMED,
                "the numbers are not those of an RSA key",
                "The modulus and the exponent of an RSA key are odd, and the exponent is a small number above 1, mostly 65537.",
                "Export the public key again from the private one.",
            )
            .with_at("found", format!("a modulus of {bits} bits, an exponent of {} bits", bits_of(&exponent)), place.clone()),
        );
        return None;
    }
    if bits < 2048 {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_WEAK,
                format!("the RSA key has {bits} bits, which is too weak"),
                "Fewer than 2048 bits are no longer accepted.",
                "Make an EC key on P-256, or an RSA key of 2048 bits or more.",
            )
            .with_at("found", format!("{bits} bits; expected 2048 at least"), place.clone()),
        );
    }
    let (modulus, exponent) = (magnitude(&modulus).to_vec(), magnitude(&exponent).to_vec());
    Some(PublicKey::Rsa { modulus, exponent })
}

/// What is inside a key that was wrapped once more: a point or an RSAPublicKey.
fn unwrapped(key: &[u8]) -> Option<(Vec<u8>, &'static str)> {
    let (node, end) = Node::read(key, 0, key.len(), 0).ok()?;
    if end != key.len() {
        return None;
    }
    let is_key = |bytes: &[u8]| Curve::of_point(bytes).is_some() || rsa_numbers(bytes).is_some();
    match node.tag {
        OCTET_STRING if is_key(node.value()) => {
            Some((node.value().to_vec(), "an OCTET STRING around the key"))
        }
        BIT_STRING => {
            let inner = node.value().get(1..)?;
            is_key(inner).then(|| (inner.to_vec(), "another BIT STRING around the key"))
        }
        SEQUENCE => {
            let [_, bits] = node.children() else { return None };
            let inner = bits.value().get(1..).filter(|_| bits.tag == BIT_STRING)?;
            is_key(inner).then(|| (inner.to_vec(), "a whole SubjectPublicKeyInfo"))
        }
        _ => None,
    }
}

fn other_algorithm(sheet: &mut Sheet, place: &crate::Place, claimed: &str, actual: &str, right: &str) {
    sheet.findings.push(
        Finding::error(
            code::PUBLIC_KEY_OTHER_ALGORITHM,
            format!("the header of the public key says {claimed}, but the key is {actual}"),
            "The AlgorithmIdentifier says how to read the key, and every program believes it. Code that was written for \
             one type of key and changed to another leaves the old OID behind.",
            format!("Say {right}."),
        )
        .with_at("found", format!("{claimed} around {actual}; expected {right}"), place.clone()),
    );
    sheet.repairs.push(format!("wrote the key's header as {right}"));
}

fn parameters_wrong(sheet: &mut Sheet, place: &crate::Place, found: &str, expected: &str) {
    sheet.findings.push(
        Finding::warning(
            code::PUBLIC_KEY_PARAMETERS,
            found,
            "Each algorithm has its parameters or has none, and strict programs refuse anything else.",
            "Write the parameters as the algorithm has them.",
        )
        .with_at("found", format!("{found}; expected {expected}"), place.clone()),
    );
    sheet.repairs.push("wrote the parameters of the key's algorithm".into());
}

fn unsupported(sheet: &mut Sheet, place: &crate::Place, what: &str, oid: ObjectIdentifier) {
    sheet.findings.push(
        Finding::error(
            code::PUBLIC_KEY_UNSUPPORTED,
            format!("the key {what}: {}", oid_in_words(oid)),
            "P-256, P-384, Ed25519 and RSA keys are what TLS stacks and CAs take.",
            "Make a key of one of these types.",
        )
        .confidence(Confidence::Likely)
        .with_at("found", oid_in_words(oid), place.clone()),
    );
}

/// Replaces what `node` holds by the right header and the point.
fn mend_ec(node: &mut Node, curve: Curve, point: Vec<u8>) -> PublicKey {
    mend(node, ec_spki(curve, &point));
    PublicKey::Ec { curve, point }
}

fn mend_rsa(node: &mut Node, key: &[u8]) -> Option<PublicKey> {
    let (modulus, exponent) = rsa_numbers(key)?;
    mend(node, rsa_spki(key));
    Some(PublicKey::Rsa { modulus: magnitude(&modulus).to_vec(), exponent: magnitude(&exponent).to_vec() })
}

/// Replaces the contents, keeping the places of what was there.
fn mend(node: &mut Node, right: Node) {
    for (old, new) in node.children_mut().iter_mut().zip(right.children()) {
        mend_algorithm(old, new.clone());
    }
}

fn mend_algorithm(old: &mut Node, right: Node) {
    old.body = match right.body {
        Body::Constructed(mut children) => {
            for child in &mut children {
                child.offset = old.offset;
            }
            Body::Constructed(children)
        }
        primitive @ Body::Primitive(_) => primitive,
    };
}

/// The first bytes of a public value.
pub(super) fn first_bytes(bytes: &[u8]) -> String {
    let shown = enclasp_pki::hex(bytes.get(..bytes.len().min(4)).unwrap_or_default());
    if bytes.len() > 4 { format!("{shown}…") } else { shown }
}
