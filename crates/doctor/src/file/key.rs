//! Private keys in files: PKCS#8, SEC 1, PKCS#1, encrypted, OpenSSH's, TPM key files. Nothing here shows
//! a byte of one.

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ECDH_P521};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION};
use const_oid::db::rfc8410::ID_ED_25519;
use enclasp_pki::oid_in_words;
use num_bigint::BigUint;
use pkcs8::EncryptedPrivateKeyInfoRef;
use zeroize::Zeroizing;

use super::armour::Block;
use super::kind::{self, Content};
use super::node::{Body, INTEGER, Node, OCTET_STRING, OID};
use super::public_key::{PublicKey, algorithm_of, bit_string, bits_of, magnitude};
use super::shape::{self, Shape};
use super::shapes::{EC_KEY, ENCRYPTED_KEY, PRIVATE_KEY, RSA_KEY, TPM_KEY};
use super::sheet::Sheet;
use super::{File, rules};
use crate::ecdsa::Curve;
use crate::{Evidence, Finding, code};

/// What a key file turned out to be.
pub(super) struct Seen {
    /// The public half, if the private one could be read.
    pub(super) public: Option<PublicKey>,
    /// The mended DER, if something was mended.
    pub(super) mended: Option<Zeroizing<Vec<u8>>>,
}

/// Picks the key among the blocks of a file; the curve's parameters may stand before it.
pub(super) fn choose(blocks: &[Block]) -> Option<(&Block, Option<Content>)> {
    let recognized = |block: &Block| kind::recognize(&block.der);
    let is_key = |content: Content| content.command() == Some("key");
    let mut candidates = blocks
        .iter()
        .filter(|block| block.label.as_deref() != Some("EC PARAMETERS"))
        .map(|block| (block, recognized(block)));
    let all: Vec<_> = candidates.by_ref().collect();
    let private = |(_, content): &&(&Block, Option<Content>)| {
        content.is_some_and(|content| is_key(content) && !is_public(content))
    };
    all.iter().find(private).or(all.first()).map(|(block, content)| (*block, *content))
}

fn is_public(content: Content) -> bool {
    matches!(content, Content::PublicKey | Content::RsaPublicKey | Content::OpensshPublicKey)
}

/// Says what is wrong with a private key.
pub(super) fn examine(block: &Block, content: Option<Content>, file: &File<'_>, sheet: &mut Sheet) -> Seen {
    let nothing = Seen { public: None, mended: None };
    let label = block.label.as_deref();
    if let Some(header) = block.headers.iter().find(|header| header.starts_with("DEK-Info")) {
        let cipher = header.trim_start_matches("DEK-Info:").trim().split(',').next().unwrap_or_default();
        sheet.findings.push(
            Finding::warning(
                code::KEY_FILE_LEGACY_ENCRYPTION,
                "the key is encrypted in PEM's old way",
                "Its key comes from the passphrase by one round of MD5 (RFC 1421's headers, as OpenSSL has them), which is guessed fast. \
                 Java, Go's x509 and rustls do not read it.",
                "Write it anew: `openssl pkcs8 -topk8 -in FILE`. The contents cannot be looked at here.",
            )
            .with("DEK-Info", cipher),
        );
        return nothing;
    }
    match content {
        Some(content) if is_public(content) => {
            sheet.findings.push(Finding::error(
                code::KEY_FILE_PUBLIC,
                format!("the file holds {}, not the private one", content.describe()),
                "A public key proves nothing: nobody can sign with it.",
                "Give the file that the private key is in. If there is none, the key may live in a keystore, where it stays: name it by \
                 its URI.",
            ));
            nothing
        }
        Some(Content::OpensshKey) => {
            openssh(&block.der, sheet);
            nothing
        }
        Some(Content::PuttyKey | Content::JavaKeystore) => {
            let what = content.map_or("", Content::describe);
            sheet.findings.push(Finding::error(
                code::KEY_FILE_OTHER_FORMAT,
                format!("the file is {what}"),
                "TLS programs do not read this format.",
                "PuTTYgen exports OpenSSH's format, which `ssh-keygen -p -m PKCS8 -f FILE` makes PKCS#8 of; for a Java keystore: \
                 `keytool -importkeystore -deststoretype PKCS12`.",
            ));
            nothing
        }
        Some(content) if content.command() != Some("key") => {
            sheet.findings.push(super::other_kind(Content::PrivateKey, &[content]));
            nothing
        }
        None if [32, 48, 66].contains(&block.der.len()) && label.is_none() => {
            sheet.findings.push(Finding::error(
                code::KEY_FILE_OTHER_FORMAT,
                format!(
                    "the file has {} bytes that are no DER: as many as a bare private key",
                    block.der.len()
                ),
                "A bare number says neither what type of key it is nor on which curve.",
                "Encode it as PKCS#8, with its algorithm.",
            ));
            nothing
        }
        content => {
            let content = content.or_else(|| labelled(label)).unwrap_or(Content::PrivateKey);
            if let Some(label) = label.filter(|label| !content.is_labelled(label)) {
                sheet.findings.push(super::wrong_label(content, label));
            }
            structure(&block.der, content, file, sheet)
        }
    }
}

fn labelled(label: Option<&str>) -> Option<Content> {
    let label = label?;
    [Content::EcKey, Content::RsaKey, Content::EncryptedKey, Content::TpmKey]
        .into_iter()
        .find(|content| content.is_labelled(label))
}

/// A key in DER.
fn structure(der: &[u8], content: Content, file: &File<'_>, sheet: &mut Sheet) -> Seen {
    let nothing = Seen { public: None, mended: None };
    let shape: &'static Shape = match content {
        Content::EncryptedKey => &ENCRYPTED_KEY,
        Content::EcKey => &EC_KEY,
        Content::RsaKey => &RSA_KEY,
        Content::TpmKey => &TPM_KEY,
        _ => &PRIVATE_KEY,
    };
    let reading = match shape::read(der, shape, 0, "") {
        Ok(reading) => reading,
        Err(unreadable) => {
            sheet.unreadable(der, &unreadable);
            return nothing;
        }
    };
    sheet.outlines(&reading);
    if !reading.misfits.is_empty() {
        return nothing;
    }
    let mut root = reading.root;
    sheet.evidence.push(Evidence::new("format", content.describe()));
    // TPM key files have a BOOLEAN of 01, which their readers expect.
    if content != Content::TpmKey {
        rules::check(&mut root, sheet);
    }
    let public = match content {
        Content::TpmKey => {
            tpm(&root, sheet);
            return Seen { public: None, mended: mended(&root, der) };
        }
        Content::EncryptedKey => return encrypted(&root, der, file, sheet),
        Content::EcKey => ec(&mut root, None, sheet),
        Content::RsaKey => rsa(&root, sheet),
        _ => pkcs8(&mut root, sheet),
    };
    if let Some(public) = &public {
        sheet.evidence.push(Evidence::new("key", public.describe()));
    }
    Seen { public, mended: mended(&root, der) }
}

/// The DER of `root`, if that is not `der` already.
fn mended(root: &Node, der: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mended = Zeroizing::new(root.encode());
    (*mended != der).then_some(mended)
}

fn pkcs8(root: &mut Node, sheet: &mut Sheet) -> Option<PublicKey> {
    let (oid, parameters) = algorithm_of(root.find("privateKeyAlgorithm")?)?;
    let curve = parameters
        .filter(|node| node.tag == OID)
        .and_then(|node| ObjectIdentifier::from_bytes(node.value()).ok());
    let octets = root.find_mut("privateKey")?;
    let (inside, at) = (Zeroizing::new(octets.value().to_vec()), octets.contents_offset());
    match oid {
        ID_EC_PUBLIC_KEY => {
            let mut inner = inner(&inside, &EC_KEY, at, "privateKey", sheet)?;
            let Some(named) = curve else {
                let message = "the header of the key names no curve";
                sheet.findings.push(no_curve(message, root.find("privateKeyAlgorithm")?));
                return None;
            };
            let public = ec(&mut inner, Some(named), sheet);
            if let Some(mut mended) = mended(&inner, &inside) {
                root.find_mut("privateKey")?.body = Body::primitive(std::mem::take(&mut *mended));
            }
            public
        }
        RSA_ENCRYPTION => rsa(&inner(&inside, &RSA_KEY, at, "privateKey", sheet)?, sheet),
        ID_ED_25519 => ed25519(root, &inside, sheet),
        other => {
            sheet.findings.push(
                Finding::error(
                    code::PUBLIC_KEY_UNSUPPORTED,
                    format!("the key is of a type that is not known here: {}", oid_in_words(other)),
                    "P-256, P-384, Ed25519 and RSA keys are what TLS stacks take.",
                    "Make a key of one of these types.",
                )
                .with_at(
                    "found",
                    oid_in_words(other),
                    root.find("privateKeyAlgorithm")?.place(),
                ),
            );
            None
        }
    }
}

/// What an OCTET STRING holds.
fn inner(bytes: &[u8], shape: &'static Shape, at: usize, path: &str, sheet: &mut Sheet) -> Option<Node> {
    match shape::read(bytes, shape, at, path) {
        Ok(reading) => {
            sheet.outlines(&reading);
            let fits = reading.misfits.is_empty();
            let mut root = reading.root;
            rules::check(&mut root, sheet);
            fits.then_some(root)
        }
        Err(unreadable) => {
            sheet.unreadable(bytes, &unreadable);
            None
        }
    }
}

fn no_curve(title: &str, place: &Node) -> Finding {
    Finding::error(
        code::PUBLIC_KEY_CURVE,
        title,
        "An EC private key is a number, and means nothing without its curve.",
        "Name the curve by its OID: P-256 is 1.2.840.10045.3.1.7.",
    )
    .with_at("found", "no curve", place.place())
}

/// ECPrivateKey: the number, the curve if it is named, and the point if it is there.
fn ec(root: &mut Node, outside: Option<ObjectIdentifier>, sheet: &mut Sheet) -> Option<PublicKey> {
    let prefix = root.path.clone();
    let at = |name: &str| super::certificate::join(&prefix, name);
    let inside = root.find(&at("parameters")).and_then(|tagged| tagged.children().first());
    let inside = inside
        .filter(|node| node.tag == OID)
        .and_then(|node| ObjectIdentifier::from_bytes(node.value()).ok());
    let point = root.find(&at("publicKey")).and_then(|tagged| tagged.children().first());
    let point = point.and_then(|bits| bits.value().get(1..)).map(<[u8]>::to_vec);
    if let (Some(outside), Some(inside)) = (outside, inside)
        && outside != inside
    {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_CURVE,
                format!("the header of the key names {}, and the key itself {}", oid_in_words(outside), oid_in_words(inside)),
                "PKCS#8 names the curve once, in its header; if ECPrivateKey names it again, it has to be the same (RFC 5915 §3).",
                "Export the key again from where it came.",
            )
            .with_at("found", oid_in_words(inside), root.place()),
        );
        return None;
    }
    let Some(named) =
        outside.or(inside).or_else(|| point.as_deref().and_then(Curve::of_point).map(Curve::oid))
    else {
        sheet.findings.push(no_curve("the key names no curve", root));
        return None;
    };
    if outside.is_none() && inside.is_none() {
        sheet.findings.push(no_curve("the key names no curve", root));
    }
    let Some(curve) = Curve::of_oid(named) else {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_UNSUPPORTED,
                format!("the key is on a curve that is not known here: {}", oid_in_words(named)),
                "P-256 and P-384 are the curves that TLS stacks take.",
                "Make a key on P-256.",
            )
            .with_at("found", oid_in_words(named), root.place()),
        );
        return None;
    };
    let number = root.find_mut(&at("privateKey"))?;
    let (length, width) = (number.value().len(), curve.width());
    if length != width {
        let significant = magnitude(number.value()).len();
        let mendable = significant <= width;
        sheet.findings.push(
            Finding::error(
                code::KEY_FILE_NUMBER,
                format!("the private key has {length} bytes, and {} has {width}", curve.name()),
                "ECPrivateKey has the number in exactly as many bytes as the curve's order, leading zeros included (RFC 5915 §3). Code \
                 that takes it from a big integer loses a leading zero, or gains one for the sign.",
                "Write it in that many bytes.",
            )
            .with_at("found", format!("{length} bytes; expected {width}"), number.place()),
        );
        if !mendable {
            return None;
        }
        let mut exact = vec![0; width - significant];
        exact.extend_from_slice(magnitude(number.value()));
        number.body = Body::primitive(exact);
        sheet.repairs.push("wrote the private number in as many bytes as the curve has".into());
    }
    let place = number.place();
    let Some(computed) = public_of(curve, number.value()) else {
        // secp256k1 is not computed with here.
        if curve == Curve::Secp256k1 {
            return point.map(|point| PublicKey::Ec { curve, point });
        }
        sheet.findings.push(
            Finding::error(
                code::KEY_FILE_NUMBER,
                format!("the private key is no number of {}", curve.name()),
                "It is zero, or not below the order of the curve.",
                "Export the key again from where it came.",
            )
            .with_at("found", "a number out of range", place),
        );
        return None;
    };
    if point.as_ref().is_some_and(|point| *point != computed) {
        let path = at("publicKey");
        sheet.findings.push(halves_differ().with_at(
            "found",
            "another point than the private key gives",
            root.find(&path)?.place(),
        ));
        if let Some(bits) = root.find_mut(&path).and_then(|tagged| tagged.children_mut().first_mut()) {
            bits.body = bit_string(&computed).body;
            sheet.repairs.push("wrote the public key that belongs to the private one".into());
        }
    }
    Some(PublicKey::Ec { curve, point: computed })
}

fn halves_differ() -> Finding {
    Finding::error(
        code::KEY_FILE_HALVES,
        "the public key in the file is not that of the private key",
        "Two keys were mixed up when the file was made, or bytes were changed. Programs that believe the public half announce a key that \
         they cannot sign with.",
        "Find out which half is the right one: the certificate has the public key. If it is the private half, --fix writes the public key \
         that belongs to it.",
    )
}

/// The point of a private number.
fn public_of(curve: Curve, number: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match curve {
        Curve::P256 => &ECDH_P256,
        Curve::P384 => &ECDH_P384,
        Curve::P521 => &ECDH_P521,
        Curve::Secp256k1 => return None,
    };
    let key = agreement::PrivateKey::from_private_key(algorithm, number).ok()?;
    Some(key.compute_public_key().ok()?.as_ref().to_vec())
}

/// No modulus is worked with that has more bytes.
const MAX_MODULUS: usize = 2048;

fn rsa(root: &Node, sheet: &mut Sheet) -> Option<PublicKey> {
    let values: Vec<&Node> = root.children().iter().collect();
    let [version, numbers @ ..] = &values[..] else { return None };
    if version.value() != [0] {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_UNSUPPORTED,
                "the RSA key has more than two primes",
                "Its version is not 0. Hardly any program takes multi-prime keys.",
                "Make a key with two primes.",
            )
            .with_at("found", "a version other than 0", version.place()),
        );
        return None;
    }
    if numbers.iter().any(|number| {
        number.value().len() > MAX_MODULUS || number.value().first().is_some_and(|first| *first >= 0x80)
    }) {
        let node = numbers
            .iter()
            .find(|number| number.value().first().is_some_and(|first| *first >= 0x80))
            .unwrap_or(&numbers[0]);
        sheet.findings.push(
            Finding::error(
                code::KEY_FILE_NUMBER,
                "a number of the RSA key is negative, or larger than any key's",
                "Its first bit is set, which in an INTEGER means a negative number: the byte 00 before it is missing.",
                "Export the key again from where it came.",
            )
            .with_at("found", "a number out of range", node.place()),
        );
        return None;
    }
    let big = |index: usize| numbers.get(index).map(|number| BigUint::from_bytes_be(number.value()));
    let (n, e, d) = (big(0)?, big(1)?, big(2)?);
    let (p, q, dp, dq, inverse) = (big(3)?, big(4)?, big(5)?, big(6)?, big(7)?);
    let one = BigUint::from(1u8);
    let zero = BigUint::ZERO;
    let below = |prime: &BigUint| prime - &one;
    let fits = p > one
        && q > one
        && &p * &q == n
        && [&p, &q].iter().all(|prime| (&e * &d) % below(prime) == &one % below(prime))
        && dp == &d % below(&p)
        && dq == &d % below(&q)
        && (&inverse * &q) % &p == one
        && n > zero;
    if !fits {
        sheet.findings.push(
            Finding::error(
                code::KEY_FILE_HALVES,
                "the numbers of the RSA key do not belong together",
                "The modulus has to be the product of the primes, and the exponents have to fit them (RFC 8017 §3.2). Bytes were changed, or \
                 two keys mixed up.",
                "Export the key again from where it came.",
            )
            .with_at("found", "numbers that do not fit each other", root.place()),
        );
        return None;
    }
    let public = PublicKey::Rsa {
        modulus: magnitude(numbers.first()?.value()).to_vec(),
        exponent: magnitude(numbers.get(1)?.value()).to_vec(),
    };
    let bits = bits_of(numbers.first()?.value());
    if bits < 2048 {
        sheet.findings.push(
            Finding::error(
                code::PUBLIC_KEY_WEAK,
                format!("the RSA key has {bits} bits, which is too weak"),
                "Fewer than 2048 bits are no longer accepted.",
                "Make an EC key on P-256, or an RSA key of 2048 bits or more.",
            )
            .with_at("found", format!("{bits} bits; expected 2048 at least"), root.place()),
        );
    }
    Some(public)
}

fn ed25519(root: &mut Node, inside: &[u8], sheet: &mut Sheet) -> Option<PublicKey> {
    let place = root.find("privateKey")?.place();
    let seed = match inside {
        [0x04, 32, seed @ ..] if seed.len() == 32 => seed,
        seed if seed.len() == 32 => {
            sheet.findings.push(
                Finding::error(
                    code::KEY_FILE_NUMBER,
                    "the 32 bytes of the Ed25519 key are not wrapped in their own OCTET STRING",
                    "In PKCS#8 an Ed25519 key is an OCTET STRING of 32 bytes inside of the OCTET STRING privateKey (RFC 8410 §7).",
                    "Put 04 20 before the 32 bytes.",
                )
                .with_at("found", "32 bytes; expected 34", place),
            );
            sheet.repairs.push("wrapped the Ed25519 key in its OCTET STRING".into());
            root.find_mut("privateKey")?.body = Body::primitive(Node::primitive(OCTET_STRING, seed).encode());
            seed
        }
        other => {
            sheet.findings.push(
                Finding::error(
                    code::KEY_FILE_NUMBER,
                    format!("the Ed25519 key has {} bytes, not 34", other.len()),
                    "In PKCS#8 an Ed25519 key is 04 20 and 32 bytes (RFC 8410 §7).",
                    "Export the key again from where it came.",
                )
                .with_at("found", format!("{} bytes; expected 34", other.len()), place),
            );
            return None;
        }
    };
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let computed = pair.public_key().as_ref().to_vec();
    let stated = root.find("publicKey").and_then(|bits| bits.value().get(1..));
    if stated.is_some_and(|stated| stated != computed) {
        sheet.findings.push(halves_differ().with_at(
            "found",
            "another key than the private one gives",
            root.find("publicKey")?.place(),
        ));
        root.find_mut("publicKey")?.body = bit_string(&computed).body;
        sheet.repairs.push("wrote the public key that belongs to the private one".into());
    }
    Some(PublicKey::Ed25519(computed))
}

/// PBES2 (RFC 8018 §6.2).
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
/// No derivation of a key that takes more steps is begun.
const MAX_STEPS: u64 = 1 << 32;

fn encrypted(root: &Node, der: &[u8], file: &File<'_>, sheet: &mut Sheet) -> Seen {
    let nothing = Seen { public: None, mended: mended(root, der) };
    let Some(algorithm) = root.find("encryptionAlgorithm") else { return nothing };
    let Some((oid, _)) = algorithm_of(algorithm) else { return nothing };
    if oid != PBES2 {
        sheet.findings.push(
            Finding::warning(
                code::KEY_FILE_LEGACY_ENCRYPTION,
                format!("the key is encrypted in an old way: {}", oid_in_words(oid)),
                "PKCS#5 v1.5 and the ciphers of PKCS#12's first edition are weak, and few programs read them.",
                "Write it anew: `openssl pkcs8 -topk8 -v2 aes256 -in FILE`.",
            )
            .with_at("found", oid_in_words(oid), algorithm.place()),
        );
        return nothing;
    }
    let Some(password) = file.password else {
        sheet.findings.push(Finding::note(
            code::KEY_FILE_ENCRYPTED,
            "the key is encrypted, and no passphrase was given",
            "What is inside cannot be looked at.",
            "Give the passphrase: --password-file FILE, or ENCLASP_KEY_PASSWORD.",
        ));
        return nothing;
    };
    let mut steps = 1_u64;
    algorithm.walk(&mut |node| {
        if node.tag == INTEGER {
            let number = node
                .value()
                .iter()
                .fold(0_u64, |n, byte| n.saturating_mul(256).saturating_add(u64::from(*byte)));
            steps = steps.saturating_mul(number.max(1));
        }
    });
    if steps > MAX_STEPS {
        sheet.findings.push(Finding::error(
            code::KEY_FILE_ENCRYPTED,
            "deriving the key of its encryption would take unreasonably long",
            "The counts in the file ask for more steps than anybody uses; they may be damaged, or meant to keep the reader busy.",
            "Get the file from where it came.",
        ));
        return nothing;
    }
    let clear =
        EncryptedPrivateKeyInfoRef::try_from(&root.encode()[..]).ok().map(|info| info.decrypt(password));
    match clear {
        Some(Ok(clear)) => {
            sheet.evidence.push(Evidence::new("encryption", "PBES2; the passphrase opens it"));
            // Offsets inside are those of what was decrypted, and nothing inside is mended: it would have to be
            // encrypted anew.
            let inside = structure(clear.as_bytes(), Content::PrivateKey, file, sheet);
            sheet.repairs.clear();
            Seen { public: inside.public, ..nothing }
        }
        _ => {
            sheet.findings.push(
                Finding::error(
                    code::KEY_FILE_PASSWORD,
                    "the passphrase does not open the key",
                    "Either it is another one, or the file was damaged. A line break at the end of a passphrase counts for some programs.",
                    "Try the passphrase with `openssl pkey -in FILE -noout`.",
                )
                .with_at("found", oid_in_words(oid), algorithm.place()),
            );
            nothing
        }
    }
}

fn tpm(root: &Node, sheet: &mut Sheet) {
    let kind = root.find("type").and_then(|oid| ObjectIdentifier::from_bytes(oid.value()).ok());
    let kind = kind.map(|oid| oid.to_string());
    let (is_key, what) = match kind.as_deref() {
        Some("2.23.133.10.1.3") => (true, "a loadable key"),
        Some("2.23.133.10.1.4") => (true, "a key to import"),
        Some("2.23.133.10.1.5") => (false, "sealed data"),
        _ => (false, "something of an unknown type"),
    };
    sheet.evidence.push(Evidence::new("holds", what));
    if is_key {
        sheet.findings.push(Finding::note(
            code::KEY_FILE_TPM,
            "the key is encrypted for one TPM",
            "A TPM key file is of use on the machine whose TPM made it, with that TPM's hierarchy as it was.",
            "`openssl pkey -provider tpm2 -in FILE -noout` tries it on this machine.",
        ));
    } else {
        sheet.findings.push(Finding::error(
            code::KEY_FILE_OTHER_FORMAT,
            format!("the TPM file holds {what}, not a key"),
            "Its type says so.",
            "Give the file of a loadable key.",
        ));
    }
}

/// OpenSSH's own format (PROTOCOL.key in its sources).
fn openssh(der: &[u8], sheet: &mut Sheet) {
    let mut rest = der.strip_prefix(b"openssh-key-v1\0").unwrap_or_default();
    let mut text = || -> Option<Vec<u8>> {
        let (length, after) = rest.split_at_checked(4)?;
        let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
        let (field, after) = after.split_at_checked(length)?;
        rest = after;
        Some(field.to_vec())
    };
    let cipher = text().map(|name| String::from_utf8_lossy(&name).into_owned());
    let encrypted = cipher.as_deref().is_some_and(|cipher| cipher != "none");
    sheet.findings.push(
        Finding::error(
            code::KEY_FILE_OPENSSH,
            "the key is in OpenSSH's own format",
            "ssh-keygen writes it, and TLS programs do not read it: OpenSSL, Java and rustls want PKCS#8.",
            "Make PKCS#8 of a copy, in place: `ssh-keygen -p -m PKCS8 -f COPY`.",
        )
        .with("encrypted", if encrypted { "yes" } else { "no" }),
    );
}

/// Whether a private key belongs to a certificate.
pub(super) fn check_certificate(seen: &Seen, file: &File<'_>, sheet: &mut Sheet) {
    let (Some(public), Some(certificate)) = (&seen.public, file.certificate) else { return };
    if public.spki() == certificate.spki() {
        sheet.evidence.push(Evidence::new("certificate", format!("it is the key of {}", certificate.name())));
        return;
    }
    let other = PublicKey::of_spki(certificate.spki()).map_or("another key".into(), |key| key.describe());
    sheet.findings.push(
        Finding::error(
            code::KEY_FILE_OTHER_CERTIFICATE,
            format!("it is not the key of {}", certificate.name()),
            "The certificate has another public key. A TLS stack that is given both refuses to start, or signs what nobody can verify.",
            "Find the key that the certificate was issued for, or have a certificate issued for this one.",
        )
        .with("the key", public.describe())
        .with("the certificate's", other),
    );
}

/// The public key of DER PKCS#8.
pub(super) fn public_key(pkcs8: &[u8]) -> Option<PublicKey> {
    let mut reading = shape::read(pkcs8, &PRIVATE_KEY, 0, "").ok()?;
    self::pkcs8(&mut reading.root, &mut Sheet::default())
}
