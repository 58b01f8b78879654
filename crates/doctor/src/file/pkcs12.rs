//! PKCS#12 files (RFC 7292): what is inside, how it is protected, and whether it makes an identity.

use const_oid::ObjectIdentifier;
use enclasp_pki::{Certificate, oid_in_words, order_chain};
use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;

use super::node::{Form, INTEGER, Node, OCTET_STRING, SEQUENCE};
use super::public_key::{PublicKey, algorithm_of};
use super::shapes::PFX;
use super::sheet::Sheet;
use super::{File, certificate, key, shape};
use crate::{Evidence, Finding, Place, code};

/// Fewer rounds than this are guessed fast.
const FEW_ROUNDS: u64 = 1000;
/// The library derives no keys with more.
const MAX_ROUNDS: u64 = 1_000_000;

/// Says what is wrong with a PKCS#12 file. Returns the mended one, if it can be mended.
pub(super) fn examine(der: &[u8], file: &File<'_>, sheet: &mut Sheet) -> Option<Vec<u8>> {
    let reading = match shape::read(der, &PFX, 0, "") {
        Ok(reading) => reading,
        Err(unreadable) => {
            sheet.unreadable(der, &unreadable);
            return None;
        }
    };
    sheet.outlines(&reading);
    if !reading.misfits.is_empty() {
        return None;
    }
    let root = reading.root;
    let exact = der.get(..der.len() - reading.trailing).unwrap_or(der);
    let whole = if reading.lengths.is_empty() { exact.to_vec() } else { root.encode() };
    if has_indefinite(&root) {
        sheet.findings.push(
            Finding::error(
                code::P12_BER,
                "the file is BER, with indefinite lengths",
                "PKCS#12 allows BER, which Windows and old versions of Java and NSS write. Enclasp, Go and others read DER only, and what is \
                 inside cannot be looked at here.",
                "Write it anew: `openssl pkcs12 -in FILE -nodes | openssl pkcs12 -export -out NEW`, through a pipe that nobody reads.",
            )
            .with_at("found", "an indefinite length", root.place()),
        );
        return None;
    }
    let protection = Protection::read(&root);
    protection.report(&root, sheet);
    if protection.rounds > MAX_ROUNDS {
        sheet.findings.push(
            Finding::error(
                code::P12_ROUNDS,
                format!("opening it would take {} rounds of hashing", protection.rounds),
                "The count in the file is larger than anybody uses; it may be damaged, or meant to keep the reader busy.",
                "Get the file from where it came.",
            )
            .with("rounds", protection.rounds),
        );
        return None;
    }
    open(&whole, file, sheet);
    (whole != der).then_some(whole)
}

fn has_indefinite(root: &Node) -> bool {
    let mut found = false;
    root.walk(&mut |node| found |= node.form == Form::Indefinite || node.tag == OCTET_STRING | 0x20);
    found
}

/// How a file is protected, which can be seen without its passphrase.
struct Protection {
    /// Every encryption that is in use, with its place.
    ciphers: Vec<(ObjectIdentifier, Place)>,
    /// The hash of the MAC.
    mac: Option<ObjectIdentifier>,
    /// The most rounds of any derivation.
    rounds: u64,
    mac_rounds: u64,
}

/// PKCS#12's own encryption, of RFC 7292 appendix C.
const OWN: &str = "1.2.840.113549.1.12.1.";
const PBES2: &str = "1.2.840.113549.1.5.13";

impl Protection {
    fn read(root: &Node) -> Self {
        let mut ciphers = Vec::new();
        let mut rounds = 0;
        // Inside of OCTET STRINGs are elements again.
        visit(root, &mut |node| {
            if node.tag == SEQUENCE
                && let Some((oid, Some(parameters))) = algorithm_of(node)
                && (oid.to_string().starts_with(OWN) || oid.to_string() == PBES2)
            {
                ciphers.push((oid, node.place()));
                parameters.walk(&mut |node| rounds = rounds.max(number(node)));
            }
        });
        let mac = root.find("macData.mac.digestAlgorithm").and_then(algorithm_of).map(|(oid, _)| oid);
        let mac_rounds = root.find("macData.iterations").map_or(1, number);
        let rounds = rounds.max(mac_rounds);
        Self { ciphers, mac, rounds, mac_rounds }
    }

    fn report(&self, root: &Node, sheet: &mut Sheet) {
        let mut names: Vec<String> = self.ciphers.iter().map(|(oid, _)| cipher_name(*oid)).collect();
        names.dedup();
        let shown = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        sheet.evidence.push(Evidence::new("encryption", shown));
        if let Some((oid, place)) = self.ciphers.iter().find(|(oid, _)| oid.to_string().starts_with(OWN)) {
            let broken = cipher_name(*oid).contains("RC");
            let why = if broken {
                "A 40-bit RC2 key is guessed in minutes. OpenSSL 3 reads it with -legacy only, and FIPS builds, Go and others not at all."
            } else {
                "3DES with PKCS#12's own key derivation is from 1996. OpenSSL 3 still reads it; FIPS builds do not. Older Windows, macOS and \
                 Java read nothing newer, which is why files are still written so."
            };
            sheet.findings.push(
                Finding::warning(
                    code::P12_LEGACY,
                    format!("it is encrypted with {}", cipher_name(*oid)),
                    why,
                    "Write it anew with AES: `openssl pkcs12 -export` of OpenSSL 3 does.",
                )
                .with_at("found", cipher_name(*oid), place.clone()),
            );
        }
        match self.mac {
            None => sheet.findings.push(Finding::warning(
                code::P12_MAC,
                "it has no MAC",
                "Nothing shows whether the file was changed, or whether a passphrase is the right one. Java and Windows refuse it.",
                "Write it anew with a MAC, which is the default of all programs.",
            )),
            Some(mac) => {
                sheet.evidence.push(Evidence::new("MAC", format!("{}, {} rounds", oid_in_words(mac), self.mac_rounds)));
                if self.mac_rounds < FEW_ROUNDS {
                    let place = root.find("macData").map_or_else(|| root.place(), Node::place);
                    sheet.findings.push(
                        Finding::warning(
                            code::P12_ROUNDS,
                            format!("its MAC takes {} round{} of hashing", self.mac_rounds, if self.mac_rounds == 1 { "" } else { "s" }),
                            "Each round makes guessing the passphrase slower; so few make it fast.",
                            "Write it anew: current programs take 2048 rounds or more.",
                        )
                        .with_at("found", format!("{}; expected {FEW_ROUNDS} at least", self.mac_rounds), place),
                    );
                }
            }
        }
    }
}

fn number(node: &Node) -> u64 {
    if node.tag != INTEGER {
        return 0;
    }
    node.value().iter().fold(0, |n: u64, byte| n.saturating_mul(256).saturating_add(u64::from(*byte)))
}

/// Visits what is in `node`, in the OCTET STRINGs in it, and so on.
fn visit(node: &Node, see: &mut dyn FnMut(&Node)) {
    see(node);
    for child in node.children() {
        visit(child, see);
    }
    if node.tag == OCTET_STRING
        && let bytes = node.value()
        && bytes.first() == Some(&SEQUENCE)
        && let Ok((inner, end)) = Node::read(bytes, 0, bytes.len(), node.contents_offset())
        && end == bytes.len()
    {
        visit(&inner, see);
    }
}

fn cipher_name(oid: ObjectIdentifier) -> String {
    let dotted = oid.to_string();
    match dotted.strip_prefix(OWN) {
        Some("1") => "RC4 of 128 bits".into(),
        Some("2") => "RC4 of 40 bits".into(),
        Some("3") => "3DES".into(),
        Some("4") => "2-key 3DES".into(),
        Some("5") => "RC2 of 128 bits".into(),
        Some("6") => "RC2 of 40 bits".into(),
        _ if dotted == PBES2 => "PBES2".into(),
        _ => oid_in_words(oid),
    }
}

/// Opens it with the passphrase, or with the empty one, and looks at what is inside.
fn open(der: &[u8], file: &File<'_>, sheet: &mut Sheet) {
    match Pkcs12Archive::from_pkcs12(der, file.password.unwrap_or_default()) {
        Ok(archive) => contents(&archive, file, sheet),
        Err(error) => sheet.findings.push(refusal(der, &error, file.password)),
    }
}

fn refusal(der: &[u8], error: &Error, password: Option<&str>) -> Finding {
    // Without a MAC, a wrong passphrase shows when something is decrypted.
    let wrong = matches!(error, Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_));
    match (wrong, password) {
        (true, None) => Finding::note(
            code::P12_NO_PASSWORD,
            "no passphrase was given, and the empty one does not open it",
            "What is inside cannot be looked at.",
            "Give the passphrase: --password-file FILE, or ENCLASP_P12_PASSWORD.",
        ),
        (true, Some(password)) => {
            let opens = |other: &str| Pkcs12Archive::from_pkcs12(der, other).is_ok();
            let nearly = if opens(&format!("{password}\n")) {
                Some("with a line break at its end it does: the file was made with that as part of it")
            } else if password.trim() != password && opens(password.trim()) {
                Some("without the space around it it does")
            } else if !password.is_empty() && opens("") {
                Some("the empty one does")
            } else {
                None
            };
            let title = match nearly {
                Some(nearly) => format!("the passphrase does not open it; {nearly}"),
                None => "the passphrase does not open it".into(),
            };
            Finding::error(
                code::P12_PASSWORD,
                title,
                "The MAC over the contents does not come out with this passphrase: it is another one, or the file was changed.",
                "Ask whoever made the file. `openssl pkcs12 -in FILE -noout` tries a passphrase.",
            )
        }
        (false, _) => Finding::error(
            code::P12_UNREADABLE,
            format!("what is inside cannot be read: {error}"),
            "The passphrase is right or was not needed, and a part is of a kind or in an encoding that is not known here.",
            "Write the file anew with current software.",
        )
        .confidence(crate::Confidence::Likely),
    }
}

fn contents(archive: &Pkcs12Archive, file: &File<'_>, sheet: &mut Sheet) {
    let certificates: Vec<Certificate> =
        archive.certs.iter().filter_map(|bag| Certificate::from_der(bag.cert.as_der()).ok()).collect();
    for bag in &archive.certs {
        let mut found = Sheet::default();
        let seen = certificate::examine(bag.cert.as_der(), "certificate", file, &mut found);
        sheet.findings.append(&mut found.findings);
        let what = seen
            .and_then(|seen| seen.parsed)
            .map_or("a certificate that cannot be read".into(), |c| c.describe());
        sheet.evidence.push(Evidence::new("certificate", what));
    }
    let keys: Vec<Option<PublicKey>> =
        archive.keys.iter().map(|bag| key::public_key(bag.key.as_der())).collect();
    for (bag, public) in archive.keys.iter().zip(&keys) {
        let kind =
            public.as_ref().map_or("a key of a type that is not known here".into(), PublicKey::describe);
        let name =
            bag.friendly_name.as_ref().map(|name| format!(", `{}`", name.escape_debug())).unwrap_or_default();
        sheet.evidence.push(Evidence::new("private key", format!("{kind}{name}")));
    }
    if keys.is_empty() {
        sheet.findings.push(Finding::error(
            code::P12_NO_KEY,
            "there is no private key in it",
            "It holds certificates alone: a trust store, or an export without the key.",
            "Export it with the key. If the key is in hardware, it cannot be exported: import the certificate alone, `enclasp identity \
             import --cert`.",
        ));
        return;
    }
    if keys.len() > 1 {
        sheet.findings.push(Finding::warning(
            code::P12_SEVERAL_KEYS,
            format!("there are {} private keys in it", keys.len()),
            "Programs take the first, or the one whose alias they are told, or refuse, as `enclasp identity import` does.",
            "Export the one that you mean.",
        ));
    }
    for public in keys.iter().flatten() {
        let spki = public.spki();
        let Some(leaf) = certificates.iter().find(|certificate| certificate.spki() == spki) else {
            sheet.findings.push(
                Finding::error(
                    code::P12_NO_CERTIFICATE,
                    "there is no certificate for a private key in it",
                    "None of the certificates in the file has the public key of the private one.",
                    "Export key and certificate together; `openssl x509 -noout -pubkey` and `openssl pkey -pubout` show whether two belong \
                     together.",
                )
                .with("the key", public.describe()),
            );
            continue;
        };
        let chain = order_chain(leaf, &certificates);
        let top = chain.last().unwrap_or(leaf);
        if chain.len() == 1 && !top.is_self_issued() {
            sheet.findings.push(Finding::warning(
                code::P12_NO_CHAIN,
                format!("the certificate of {}, which issued {}, is not in it", top.issuer(), leaf.name()),
                "If that is an intermediate CA, peers need its certificate, and a program that imports this file has nothing to send.",
                "Export it with its chain: `openssl pkcs12 -export -certfile chain.pem`. If the issuer is the root, all is well.",
            ));
        }
    }
    // A key's local identifier is what programs pair it with its certificate by.
    let unpaired = archive.keys.iter().any(|key| {
        let id = key.local_key_id.as_ref().map(AsRef::as_ref);
        id.is_none() || !archive.certs.iter().any(|cert| cert.local_key_id.as_deref() == id)
    });
    if unpaired && !archive.certs.is_empty() {
        sheet.findings.push(Finding::warning(
            code::P12_NOT_PAIRED,
            "a key has no localKeyId that a certificate has, too",
            "Most programs pair key and certificate by this attribute (RFC 7292 §4.2), and find no certificate for the key without it.",
            "Write the file anew, with the key and its certificate together.",
        ));
    }
}
