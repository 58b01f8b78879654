//! Signatures on requests, certificates and revocation lists: does it verify, and if not, what was
//! signed, how, and how is the result written?

use const_oid::ObjectIdentifier;
use enclasp_keystore::{Input, Scheme, encoding, verify};
use enclasp_pki::oid_in_words;

use super::node::{BIT_STRING, NULL, Node, OCTET_STRING, OID, SEQUENCE};
use super::public_key::{PublicKey, algorithm_of, bit_string, first_bytes, magnitude};
use super::shape;
use super::shapes::ECDSA_SIGNATURE;
use super::sheet::Sheet;
use crate::ecdsa::{self, Curve};
use crate::hash::Hash;
use crate::rsa;
use crate::{Confidence, Finding, code};

/// A signature, and what it should be over.
pub(super) struct Signed<'a> {
    /// What it is on: "request".
    pub(super) what: &'static str,
    /// The AlgorithmIdentifier beside it.
    pub(super) algorithm: &'a Node,
    /// The BIT STRING.
    pub(super) signature: &'a Node,
    /// What may have been signed: what should have been comes first.
    pub(super) messages: Vec<Message>,
    /// Whose signature it should be.
    pub(super) key: &'a PublicKey,
}

pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) role: Role,
}

/// What the bytes of a message are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// What should have been signed.
    Due,
    /// The signed part as it stands in the file, with what is wrong in it.
    AsItStands,
    /// Something else, in words.
    Other(&'static str),
}

/// What came of looking at a signature.
#[derive(Default)]
pub(super) struct Outcome {
    /// Which of the messages it was made over, in the way that its algorithm says or another one.
    pub(super) message: Option<usize>,
    /// The algorithm that it was really made with, if that is not what is named and is a good one.
    pub(super) algorithm: Option<Node>,
    /// The signature as it should be written, if it is written in another way.
    pub(super) signature: Option<Node>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Ecdsa,
    RsaPkcs1,
    RsaPss,
    Ed25519,
}

/// The signature algorithms of X.509 (RFC 3279, RFC 4055, RFC 5758, RFC 8410).
const NAMED: [(&str, Family, Option<Hash>); 12] = [
    ("1.2.840.10045.4.1", Family::Ecdsa, Some(Hash::Sha1)),
    ("1.2.840.10045.4.3.1", Family::Ecdsa, Some(Hash::Sha224)),
    ("1.2.840.10045.4.3.2", Family::Ecdsa, Some(Hash::Sha256)),
    ("1.2.840.10045.4.3.3", Family::Ecdsa, Some(Hash::Sha384)),
    ("1.2.840.10045.4.3.4", Family::Ecdsa, Some(Hash::Sha512)),
    ("1.2.840.113549.1.1.4", Family::RsaPkcs1, Some(Hash::Md5)),
    ("1.2.840.113549.1.1.5", Family::RsaPkcs1, Some(Hash::Sha1)),
    ("1.2.840.113549.1.1.14", Family::RsaPkcs1, Some(Hash::Sha224)),
    ("1.2.840.113549.1.1.11", Family::RsaPkcs1, Some(Hash::Sha256)),
    ("1.2.840.113549.1.1.12", Family::RsaPkcs1, Some(Hash::Sha384)),
    ("1.2.840.113549.1.1.13", Family::RsaPkcs1, Some(Hash::Sha512)),
    ("1.3.101.112", Family::Ed25519, None),
];
const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";

fn named(oid: ObjectIdentifier) -> Option<(Family, Option<Hash>)> {
    let text = oid.to_string();
    if text == RSASSA_PSS {
        return Some((Family::RsaPss, None));
    }
    NAMED.iter().find(|(dotted, ..)| *dotted == text).map(|(_, family, hash)| (*family, *hash))
}

/// The AlgorithmIdentifier of X.509 for it.
fn identifier(family: Family, hash: Option<Hash>) -> Option<Node> {
    let (dotted, ..) = NAMED.iter().find(|(_, f, h)| *f == family && *h == hash)?;
    let oid = ObjectIdentifier::new(dotted).ok()?;
    let mut children = vec![Node::primitive(OID, oid.as_bytes())];
    if family == Family::RsaPkcs1 {
        children.push(Node::primitive(NULL, []));
    }
    Some(Node::constructed(SEQUENCE, children))
}

/// How something was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// Hashed once, or as Ed25519 and RSASSA-PSS have it.
    Straight(Option<Hash>),
    /// Its digest was hashed once more.
    Twice(Hash, Hash),
    /// Its digest in hexadecimal was hashed.
    OfHex(Hash, Hash),
    /// The bytes themselves were taken for the digest.
    Unhashed,
    /// RSA over the digest, without the DigestInfo around it.
    Bare(Hash),
}

/// What a signature turned out to be.
struct Explained {
    family: Family,
    message: usize,
    how: How,
}

/// Says what is wrong with a signature.
pub(super) fn examine(signed: &Signed<'_>, sheet: &mut Sheet) -> Outcome {
    let mut outcome = Outcome::default();
    let Some((oid, parameters)) = algorithm_of(signed.algorithm) else { return outcome };
    let claimed = named(oid);
    let bytes = signed.signature.value().get(1..).unwrap_or_default();
    let words = oid_in_words(oid);

    if let Some((family, _)) = claimed {
        let right = match family {
            Family::RsaPkcs1 => parameters.is_some_and(|parameters| parameters.tag == NULL),
            Family::Ecdsa | Family::Ed25519 => parameters.is_none(),
            Family::RsaPss => parameters.is_some_and(|parameters| parameters.tag == SEQUENCE),
        };
        if !right {
            let expected = match family {
                Family::RsaPkcs1 => "NULL",
                Family::RsaPss => "RSASSA-PSS-params",
                _ => "no parameters",
            };
            sheet.findings.push(
                Finding::warning(
                    code::SIGNATURE_PARAMETERS,
                    format!("the signature algorithm {words} does not have {expected}"),
                    "RSA algorithms have NULL as their parameters (RFC 4055 §5), ECDSA and Ed25519 none at all (RFC 5758 §3.2, RFC \
                     8410 §3). Strict programs refuse anything else.",
                    format!("Write {expected}."),
                )
                .with_at("found", parameters.map_or("nothing".into(), Node::describe), signed.algorithm.place()),
            );
            outcome.algorithm = identifier(family, claimed.and_then(|(_, hash)| hash));
        }
    }

    let explained = match signed.key {
        PublicKey::Ec { curve, point } => {
            let Some(form) = EcdsaForm::read(bytes, *curve) else {
                not_a_signature(signed, &format!("no ECDSA signature for {}", curve.name()), bytes, sheet);
                return Outcome::default();
            };
            if let Some(fault) = &form.fault {
                sheet.findings.push(
                    Finding::error(
                        fault.code,
                        fault.title.clone(),
                        "In X.509 an ECDSA signature is the DER of SEQUENCE { r INTEGER, s INTEGER } (RFC 3279 §2.2.3), with \
                         minimal integers. Hardware and many libraries (PKCS#11, CNG, WebCrypto, Java's P1363) give r ‖ s, each as \
                         wide as the curve.",
                        "Encode the two numbers as DER. It takes no key.",
                    )
                    .with_at("found", &fault.title, signed.signature.place()),
                );
                outcome.signature = encoding::ecdsa_der(&form.r, &form.s).map(|der| bit_string(&der));
            }
            let der = encoding::ecdsa_der(&form.r, &form.s);
            let check =
                |digest: &[u8]| der.as_ref().is_some_and(|der| ecdsa::verify(*curve, point, digest, der));
            search(signed, Family::Ecdsa, claimed, &check)
        }
        PublicKey::Rsa { modulus, exponent } => {
            if bytes.len() != modulus.len() {
                let expected = format!("{} bytes, the length of the modulus", modulus.len());
                not_a_signature(
                    signed,
                    &format!("{} bytes where an RSA signature has {expected}", bytes.len()),
                    bytes,
                    sheet,
                );
                return Outcome::default();
            }
            explain_rsa(signed, modulus, exponent, bytes)
        }
        PublicKey::Ed25519(_) => {
            if bytes.len() != 64 {
                let found = format!("{} bytes where an Ed25519 signature has 64", bytes.len());
                not_a_signature(signed, &found, bytes, sheet);
                return Outcome::default();
            }
            explain_ed25519(signed, bytes)
        }
    };
    conclude(signed, &words, claimed, explained, outcome, sheet)
}

/// Says what follows from what the signature turned out to be.
fn conclude(
    signed: &Signed<'_>,
    words: &str,
    claimed: Option<(Family, Option<Hash>)>,
    explained: Option<Explained>,
    mut outcome: Outcome,
    sheet: &mut Sheet,
) -> Outcome {
    let what = signed.what;
    let place = signed.algorithm.place();
    sheet.findings.extend(weak_by_name(what, signed.algorithm));
    let Some(explained) = explained else {
        let cannot_check = matches!(claimed, Some((_, Some(Hash::Md5))));
        if cannot_check {
            return outcome;
        }
        sheet.findings.push(
            Finding::error(
                code::SIGNATURE_WRONG,
                format!("the signature of the {what} does not verify with {}", signed.key.describe()),
                "It was tried with every hash, over the digest once more, over the bytes without their header, and in other \
                 encodings. What is left: another key signed it than the one that is named, or the signed part was changed \
                 after it was signed.",
                "Sign it again with the key whose public key it has.",
            )
            .confidence(Confidence::Likely)
            .with_at("algorithm", words, place)
            .with_at("signature", first_bytes(signed.signature.value().get(1..).unwrap_or_default()), signed.signature.place()),
        );
        return outcome;
    };
    let Explained { family, message, how } = explained;
    let made_with = match how {
        How::Straight(hash) => hash,
        How::Twice(_, hash) | How::OfHex(_, hash) | How::Bare(hash) => Some(hash),
        How::Unhashed => None,
    };
    let right = identifier(family, made_with).filter(|_| made_with.is_none_or(|hash| !hash.is_weak()));
    let in_words = describe(family, made_with);
    if claimed.map(|(family, _)| family) != Some(family) {
        sheet.findings.push(
            Finding::error(
                code::SIGNATURE_OTHER_ALGORITHM,
                format!("the {what} says that it is signed with {words}, but it is {in_words} by {}", signed.key.describe()),
                "Whoever checks the signature believes the algorithm that is named beside it, and fails. The name was taken from \
                 somewhere else than the key that signed.",
                format!("Name the algorithm {in_words}."),
            )
            .with_at("found", format!("{words}; expected {in_words}"), place.clone()),
        );
        outcome.algorithm = right;
    } else if let (Some((_, Some(named))), Some(made)) = (claimed, made_with)
        && named != made
        && matches!(how, How::Straight(_))
    {
        sheet.findings.push(
            Finding::error(
                code::SIGNATURE_OTHER_HASH,
                format!("the {what} says {}, but {} was signed", named.name(), made.name()),
                "The hash that is named beside the signature is not the one that it was made with.",
                format!("Name {in_words}."),
            )
            .with_at("found", format!("{words}; expected {in_words}"), place.clone()),
        );
        outcome.algorithm = right;
    }
    let role = signed.messages.get(message).map(|message| message.role);
    let odd = match how {
        How::Straight(_) => match role {
            Some(Role::Other(over)) => Some(format!("the signature is over {over}")),
            _ => None,
        },
        How::Twice(first, second) => Some(format!(
            "the {} digest was hashed once more with {}: the signature is over a digest of the digest",
            first.name(),
            second.name()
        )),
        How::OfHex(first, second) => Some(format!(
            "the {} digest was written in hexadecimal and hashed with {}: the signature is over that text",
            first.name(),
            second.name()
        )),
        How::Unhashed => {
            Some("the first bytes of the signed part were taken for its digest: nothing was hashed".into())
        }
        How::Bare(hash) => {
            Some(format!("the RSA signature is over the bare {} digest, without the DigestInfo", hash.name()))
        }
    };
    if let Some(odd) = odd {
        sheet.findings.push(
            Finding::error(
                code::SIGNATURE_OVER_OTHER,
                odd.clone(),
                "APIs that sign come in two kinds: those that take the message and hash it, and those that take its digest. Here \
                 one was taken for the other, or the wrong bytes were handed over. The key is the right one.",
                format!("Sign the DER of the signed part, tag and length included, hashed exactly once; that takes the key. \
                         `enclasp csr create` does it for a {what}."),
            )
            .with_at("found", odd, signed.signature.place()),
        );
        return Outcome { message: None, ..outcome };
    }
    outcome.message = Some(message);
    outcome
}

/// A finding if the algorithm that is named has a broken hash.
pub(super) fn weak_by_name(what: &str, algorithm: &Node) -> Option<Finding> {
    let (oid, _) = algorithm_of(algorithm)?;
    let (_, hash) = named(oid)?;
    let hash = hash.filter(|hash| hash.is_weak())?;
    let found = format!("{}; expected SHA-256 or better", oid_in_words(oid));
    Some(
        Finding::error(
            code::SIGNATURE_WEAK,
            format!("the {what} is signed with {}, which is broken", hash.name()),
            "Collisions can be made for MD5 and SHA-1, so CAs, TLS stacks and their libraries refuse signatures over them.",
            "Sign it again with SHA-256; that takes the key.",
        )
        .with_at("found", found, algorithm.place()),
    )
}

fn describe(family: Family, hash: Option<Hash>) -> String {
    let family = match family {
        Family::Ecdsa => "ECDSA",
        Family::RsaPkcs1 => "RSA (PKCS#1 v1.5)",
        Family::RsaPss => "RSASSA-PSS",
        Family::Ed25519 => "Ed25519",
    };
    hash.map_or_else(|| family.to_owned(), |hash| format!("{family} with {}", hash.name()))
}

fn not_a_signature(signed: &Signed<'_>, found: &str, bytes: &[u8], sheet: &mut Sheet) {
    sheet.findings.push(
        Finding::error(
            code::SIGNATURE_MALFORMED,
            format!("what stands for the signature is {found}"),
            "Its length or form fits no signature of the key that is named.",
            "Sign it again; that takes the key.",
        )
        .with_at(
            "found",
            format!("{} bytes, beginning {}, for {}", bytes.len(), first_bytes(bytes), signed.key.describe()),
            signed.signature.place(),
        ),
    );
}

/// Tries every way of making a digest from every message.
fn search(
    signed: &Signed<'_>,
    family: Family,
    claimed: Option<(Family, Option<Hash>)>,
    check: &dyn Fn(&[u8]) -> bool,
) -> Option<Explained> {
    let claimed = claimed.and_then(|(_, hash)| hash);
    let hashes: Vec<Hash> =
        claimed.into_iter().chain(Hash::TRIED.into_iter().filter(|h| Some(*h) != claimed)).collect();
    for (message, Message { bytes, .. }) in signed.messages.iter().enumerate() {
        for hash in &hashes {
            if hash.of(bytes).is_some_and(|digest| check(&digest)) {
                return Some(Explained { family, message, how: How::Straight(Some(*hash)) });
            }
        }
    }
    for (message, Message { bytes, .. }) in signed.messages.iter().enumerate() {
        for first in &hashes {
            let Some(digest) = first.of(bytes) else { continue };
            for second in &hashes {
                if second.of(&digest).is_some_and(|digest| check(&digest)) {
                    return Some(Explained { family, message, how: How::Twice(*first, *second) });
                }
                let hex = enclasp_pki::hex(&digest);
                if second.of(hex.as_bytes()).is_some_and(|digest| check(&digest)) {
                    return Some(Explained { family, message, how: How::OfHex(*first, *second) });
                }
            }
        }
        if check(bytes) {
            return Some(Explained { family, message, how: How::Unhashed });
        }
    }
    None
}

/// r and s, however they were written.
struct EcdsaForm {
    r: Vec<u8>,
    s: Vec<u8>,
    fault: Option<Fault>,
}

struct Fault {
    code: crate::Code,
    title: String,
}

impl EcdsaForm {
    fn read(bytes: &[u8], curve: Curve) -> Option<Self> {
        Self::read_inside(bytes, curve, true)
    }

    fn read_inside(bytes: &[u8], curve: Curve, may_be_wrapped: bool) -> Option<Self> {
        let width = curve.width();
        if let Ok(reading) = shape::read(bytes, &ECDSA_SIGNATURE, 0, "")
            && reading.misfits.is_empty()
            && let [r, s] = reading.root.children()
        {
            let fits = |number: &[u8]| magnitude(number).len() <= width;
            if !fits(r.value()) || !fits(s.value()) {
                return None;
            }
            let negative = [r, s].iter().any(|node| node.value().first().is_some_and(|first| *first >= 0x80));
            let minimal = |node: &Node| super::public_key::unsigned(node.value()).value() == node.value();
            let exact = reading.trailing == 0 && reading.lengths.is_empty() && reading.root.encode() == bytes;
            let title = if negative {
                Some("a number of the ECDSA signature is negative: the byte 00 before it is missing")
            } else if !minimal(r) || !minimal(s) {
                Some("a number of the ECDSA signature has more leading zeros than DER allows")
            } else if !exact {
                Some("the lengths inside the ECDSA signature do not add up")
            } else {
                None
            };
            let fault = title.map(|title| Fault { code: code::SIGNATURE_ENCODING, title: title.into() });
            return Some(Self { r: magnitude(r.value()).to_vec(), s: magnitude(s.value()).to_vec(), fault });
        }
        if bytes.len() == 2 * width {
            let (r, s) = bytes.split_at(width);
            let title =
                format!("the ECDSA signature is the bare numbers r ‖ s ({} bytes), not DER", bytes.len());
            let fault = Some(Fault { code: code::SIGNATURE_RAW_PAIR, title });
            return Some(Self { r: r.to_vec(), s: s.to_vec(), fault });
        }
        let (node, end) = Node::read(bytes, 0, bytes.len(), 0).ok().filter(|_| may_be_wrapped)?;
        let inner = match node.tag {
            OCTET_STRING => node.value(),
            BIT_STRING => node.value().get(1..)?,
            _ => return None,
        };
        let inside = Self::read_inside(inner, curve, false).filter(|_| end == bytes.len())?;
        let title = format!("the ECDSA signature is wrapped once more, in a {}", node.describe());
        Some(Self { fault: Some(Fault { code: code::SIGNATURE_ENCODING, title }), ..inside })
    }
}

/// Applies the public key, and looks at what comes out.
fn explain_rsa(signed: &Signed<'_>, modulus: &[u8], exponent: &[u8], signature: &[u8]) -> Option<Explained> {
    let spki = signed.key.spki();
    let schemes = [
        (Scheme::RsaPssSha256, Hash::Sha256),
        (Scheme::RsaPssSha384, Hash::Sha384),
        (Scheme::RsaPssSha512, Hash::Sha512),
    ];
    for (message, Message { bytes, .. }) in signed.messages.iter().enumerate() {
        for (scheme, _) in schemes {
            if verify(&spki, scheme, Input::Message(bytes), signature).is_ok() {
                return Some(Explained { family: Family::RsaPss, message, how: How::Straight(None) });
            }
        }
    }
    let recovered = rsa::recover(modulus, exponent, signature)?;
    let opened = rsa::pkcs1_content(&recovered)?;
    let (named, digest) = rsa::digest_info(opened).unzip();
    let digest = digest.unwrap_or(opened);
    let explained =
        search(signed, Family::RsaPkcs1, named.map(|hash| (Family::RsaPkcs1, Some(hash))), &|made| {
            made == digest
        })?;
    Some(match (named, explained.how) {
        (None, How::Straight(Some(hash))) => Explained { how: How::Bare(hash), ..explained },
        _ => explained,
    })
}

fn explain_ed25519(signed: &Signed<'_>, signature: &[u8]) -> Option<Explained> {
    let spki = signed.key.spki();
    let check = |message: &[u8]| verify(&spki, Scheme::Ed25519, Input::Message(message), signature).is_ok();
    let family = Family::Ed25519;
    let straight = signed.messages.iter().position(|message| check(&message.bytes));
    if let Some(message) = straight {
        return Some(Explained { family, message, how: How::Straight(None) });
    }
    // A digest that was signed in place of the message.
    let hashed = search(signed, family, None, &check)?;
    Some(match hashed.how {
        How::Straight(Some(hash)) => Explained { how: How::Twice(hash, Hash::Sha512), ..hashed },
        _ => hashed,
    })
}
