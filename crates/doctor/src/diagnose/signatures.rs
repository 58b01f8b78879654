//! Whether signatures are what they claim to be, and if not, what they are.

use enclasp_pki::Certificate;

use super::{is_tls13, list, whose};
use crate::hash::Hash;
use crate::observe::SignatureSeen;
use crate::public_key::PublicKey;
use crate::signature::{Claim, Explanation, Family, Over, Padding, Shape, explain, shape, verifies};
use crate::wire::names::{scheme_name, version_name};
use crate::wire::{Side, version};
use crate::{Confidence, Finding, Observation, code};

pub(super) fn findings(seen: &Observation, findings: &mut Vec<Finding>) {
    let client = seen.client_chain.as_deref().unwrap_or_default();
    for (signature, chain) in
        [(&seen.server_signature, &*seen.server_chain), (&seen.client_signature, client)]
    {
        if let Some(signature) = signature
            && let Some(key) = chain.first().and_then(|der| key_of(der))
        {
            examine(seen, signature, &key, chain, findings);
        }
    }
}

fn key_of(der: &[u8]) -> Option<PublicKey> {
    PublicKey::of_spki(Certificate::from_der(der).ok()?.spki())
}

fn examine(
    seen: &Observation,
    signature: &SignatureSeen,
    key: &PublicKey,
    chain: &[Vec<u8>],
    findings: &mut Vec<Finding>,
) {
    let spoken = seen.version().unwrap_or(version::TLS12);
    let suite = seen.server_hello.as_ref().map_or(0, |hello| hello.suite);
    let claim = signature.scheme.map_or_else(|| Claim::before_tls12(key), Claim::of_scheme);
    let shape = shape(key, &signature.signature);
    let explanation = explain(key, signature, spoken, Hash::of_suite(suite));
    let by = whose(signature.by);
    let count = signature.signature.len();
    let scheme = signature.scheme.map(scheme_name);
    let claimed = scheme.clone().unwrap_or_else(|| format!("{} (no scheme field)", version_name(spoken)));
    let evidence = |finding: Finding| {
        let really = match &explanation {
            Some(explanation) => format!("it verifies: {explanation}"),
            None => "it does not verify in any way that is known here".into(),
        };
        finding
            .with("certificate's key", key)
            .with("claimed", &claimed)
            .with("signature", format!("{count} bytes: {shape}"))
            .with("verification", really)
    };
    let mut fitting = true;
    if !claim.fits(key, spoken) {
        fitting = false;
        findings.push(evidence(does_not_fit(signature.by, &claim, key, spoken, &claimed, count)));
    }
    if let Some(finding) = not_offered(seen, signature, key) {
        findings.push(evidence(finding));
    }
    match &explanation {
        Some(explanation) if claim.is_met_by(explanation) => {
            if matches!(claim.hash, Some(Hash::Sha1)) && spoken == version::TLS12 {
                findings.push(evidence(sha1(signature.by)));
            }
        }
        // What does not fit is explained by that.
        _ if !fitting => {}
        Some(explanation) => findings.push(evidence(otherwise(by, &shape, &claim, explanation))),
        None => {
            let other = chain
                .iter()
                .enumerate()
                .skip(1)
                .find(|(_, der)| key_of(der).is_some_and(|key| verifies(&key, signature)));
            let finding = match other {
                Some((index, _)) => other_key(by, index),
                None if matches!(key, PublicKey::OtherCurve(_) | PublicKey::Ed448 | PublicKey::Other(_)) => {
                    unchecked(by, key)
                }
                None => bad(by, &shape, signature),
            };
            findings.push(evidence(finding));
        }
    }
}

fn does_not_fit(
    by: Side,
    claim: &Claim,
    key: &PublicKey,
    spoken: u16,
    claimed: &str,
    count: usize,
) -> Finding {
    let whose = whose(by);
    let claims_rsa = matches!(claim.family, Family::Pkcs1 | Family::Pss | Family::PssOnly);
    if key.is_ec() && claims_rsa {
        return Finding::error(
            code::EC_KEY_RSA_CLAIM,
            format!("{whose} certificate has an EC key, and its signature claims to be RSA ({claimed})"),
            format!(
                "The certificate's key is {key}, so only an ECDSA signature can prove that the {by} has it. The \
                 message claims {claimed}, with {count} bytes. The TLS stack was given the wrong key type by its key \
                 provider: it asked the provider what kind of key it holds, instead of reading it from the certificate. \
                 Known: Secure Transport on iOS 9 with a key in the Secure Enclave (radar 25978027), believed fixed \
                 since iOS 10, never confirmed in public."
            ),
            "Update the system, and run this test again. To prove that the key's provider is the cause, present the same \
             certificate's twin with a software key (a PKCS#12 file): if that works, it is. Until then another \
             TLS stack over the same key, or a software key, are the ways round.",
        );
    }
    if claim.family == Family::Pkcs1 && matches!(key, PublicKey::Rsa { .. }) && spoken >= version::TLS13 {
        return Finding::error(
            code::SCHEME_DOES_NOT_FIT,
            format!("{whose} signature is {claimed}, which TLS 1.3 does not have"),
            "TLS 1.3 takes RSA signatures with PSS only (RFC 8446 §4.2.3). The key, or its provider, can only do PKCS #1 \
             v1.5 and its TLS stack did not notice.",
            "Use a key or provider that can do RSA-PSS, an EC key, or TLS 1.2.",
        );
    }
    if claim.family == Family::Ecdsa && key.is_ec() {
        return Finding::error(
            code::SCHEME_DOES_NOT_FIT,
            format!("{whose} key is {key}, and its signature claims {claimed}"),
            "In TLS 1.3 an ECDSA scheme names its curve (RFC 8446 §4.2.3), and it must be the certificate's.",
            "The signer must choose the scheme by the curve of the certificate's key; in TLS 1.2 the pair would be legal.",
        );
    }
    Finding::error(
        code::SCHEME_DOES_NOT_FIT,
        format!("{whose} certificate has a key of type {key}, and its signature claims {claimed}"),
        "A signature scheme belongs to the certificate's public key. The signer took it from elsewhere: from metadata, \
         from another certificate, or from the first scheme that it was offered.",
        "Check that the certificate and the key belong together, and where the signer takes the scheme from.",
    )
}

/// The other side has to have offered the scheme: the server in its CertificateRequest, the client
/// in its ClientHello.
fn not_offered(seen: &Observation, signature: &SignatureSeen, key: &PublicKey) -> Option<Finding> {
    let scheme = signature.scheme?;
    let offered = match signature.by {
        Side::Client => &seen.request.as_ref()?.schemes,
        Side::Server => &seen.client_hellos.last()?.schemes,
    };
    if offered.contains(&scheme) || offered.is_empty() {
        return None;
    }
    let version = seen.version().unwrap_or(version::TLS12);
    let alternatives: Vec<u16> =
        offered.iter().copied().filter(|scheme| Claim::of_scheme(*scheme).fits(key, version)).collect();
    let fix = if alternatives.is_empty() {
        "None of the offered schemes fits the key: use a certificate of another key type, or have the other side \
         accept more schemes."
            .to_owned()
    } else {
        format!("Sign with one that was offered and fits the key: {}.", list(&alternatives, scheme_name))
    };
    Some(
        Finding::error(
            code::SCHEME_NOT_OFFERED,
            format!("{} signature uses {}, which was not offered", whose(signature.by), scheme_name(scheme)),
            "The other side lists the schemes that it verifies, and refuses any other (RFC 8446 §4.2.3).",
            fix,
        )
        .with("offered", list(offered, scheme_name)),
    )
}

/// It verifies, but not as it claims to.
fn otherwise(by: &str, shape: &Shape, claim: &Claim, explanation: &Explanation) -> Finding {
    if explanation.over != Over::Input {
        let why = match &explanation.over {
            Over::HashOf(hash) => format!(
                "The right bytes were hashed twice: the key was handed the {hash} digest, and hashed it once more. \
                 Providers differ in whether they take a message or a digest."
            ),
            Over::Shorter { .. } => {
                "The signature is over a handshake that lacks messages: they were sent, but not \
                                     added to the transcript before it was signed."
                    .into()
            }
            other => format!("What was signed is {other}."),
        };
        let fix = match &explanation.over {
            Over::HashOf(_) => {
                "Hand the key the message, or tell its provider that it is given a digest (`NONEwithECDSA`, \
                 `CKM_ECDSA`, a `…Digest…` algorithm)."
            }
            Over::Transcript | Over::Tls13Input | Over::TranscriptHash | Over::OtherContext => {
                "RFC 8446 §4.4.3: 64 spaces, the context string, a zero byte, the transcript's hash. RFC 5246 §7.4.8: the \
                 messages themselves."
            }
            _ => "Sign all messages up to, and without, the CertificateVerify.",
        };
        return Finding::error(
            code::WRONG_INPUT,
            format!("{by} signature is by the right key, over something else"),
            why,
            fix,
        );
    }
    if explanation.reencoded {
        return match shape {
            Shape::Pair => Finding::error(
                code::RAW_ECDSA,
                format!("{by} ECDSA signature is plain r ‖ s where DER is due"),
                "It is by the right key and over the right bytes, in the encoding of PKCS #11, WebCrypto and JOSE (IEEE \
                 P1363). TLS wants a DER Ecdsa-Sig-Value (RFC 8422 §5.4).",
                "Wrap the two halves as INTEGERs in a SEQUENCE, each as short as possible, with a zero byte before one \
                 whose first bit is set.",
            ),
            _ => Finding::error(
                code::LAX_DER,
                format!("{by} ECDSA signature is not quite DER: {}", lax_fault(shape)),
                "The numbers are right and their encoding is not: DER has exactly one form of each INTEGER. Encoders \
                 built by hand pad to a fixed width or forget the zero byte, which goes wrong only with some \
                 signatures: about one in 256 or one in two.",
                "Encode each number in as few bytes as possible, with a zero byte before one whose first bit is set.",
            ),
        };
    }
    if let (Family::Pkcs1 | Family::Pss | Family::PssOnly, Some(padding)) =
        (claim.family, explanation.padding)
    {
        let right_kind = match padding {
            Padding::Pkcs1 => claim.family == Family::Pkcs1,
            Padding::Pkcs1WithoutInfo => false,
            Padding::Pss { .. } => claim.family != Family::Pkcs1,
        };
        let salt_only =
            matches!(padding, Padding::Pss { .. }) && right_kind && claim.hash == Some(explanation.hash);
        if !right_kind || salt_only {
            let why = match padding {
                Padding::Pss { salt } if salt_only => format!(
                    "The salt is {salt} bytes long, and TLS demands one as long as the hash (RFC 8446 §4.2.3). Some TPMs \
                     always use the longest salt that fits."
                ),
                Padding::Pkcs1WithoutInfo => "The digest stands in the padding without a DigestInfo around it: the \
                                              key's primitive was handed a bare digest (`CKM_RSA_PKCS`, \
                                              `NONEwithRSA`, `kSecPaddingPKCS1`), and whoever calls it has to add \
                                              the DigestInfo (RFC 8017 §9.2)."
                    .into(),
                _ => "The message claims one kind of padding, and the key used the other.".into(),
            };
            return Finding::error(
                code::WRONG_PADDING,
                format!("{by} RSA signature is {explanation}, not what it claims"),
                why,
                "Tell the key's provider which padding, hash and salt length to use; if it cannot, offer only the schemes \
                 that it can do, or use an EC key.",
            );
        }
    }
    Finding::error(
        code::WRONG_HASH,
        format!("{by} signature was made with {}, not with the hash that it claims", explanation.hash),
        "It is by the right key and over the right bytes. The scheme that was announced and the one that the key was told \
         to use differ.",
        "Hand the key the scheme that goes into the message, or the other way round.",
    )
}

fn lax_fault(shape: &Shape) -> &str {
    match shape {
        Shape::EcdsaLax(fault) => fault,
        _ => "its form is not the one of DER",
    }
}

fn other_key(by: &str, index: usize) -> Finding {
    Finding::error(
        code::OTHER_KEY,
        format!("{by} signature is by the key of certificate {}, not of the first", index + 1),
        "The signature verifies with the public key of another certificate of the chain: the chain begins with the wrong \
         certificate.",
        "Put the certificate of the key first, then its issuer, and so on.",
    )
}

fn unchecked(by: &str, key: &PublicKey) -> Finding {
    Finding::note(
        code::NOT_UNDERSTOOD,
        format!("{by} signature was not verified: nothing here verifies signatures by {key}"),
        "Keys of this type are rare.",
        "Nothing, if the other side takes them.",
    )
    .confidence(Confidence::Unknown)
}

fn bad(by: &str, shape: &Shape, signature: &SignatureSeen) -> Finding {
    let (why, confidence) = match shape {
        Shape::Empty => (
            "The signature is empty: the key's provider failed, and its answer was not checked.",
            Confidence::Certain,
        ),
        Shape::Half => (
            "Its length is that of a digest, or of half a signature: most likely the digest itself was returned in place of \
             a signature.",
            Confidence::Likely,
        ),
        Shape::RsaUnpadded => (
            "After the public-key operation there is no padding: it was made by another RSA key, or bytes were changed.",
            Confidence::Likely,
        ),
        _ => (
            "It verifies neither as claimed nor with another hash, encoding or transcript. Usually the private key that \
             signed is not the one of the certificate: a renewed certificate with an old key, or two keys of one name.",
            Confidence::Likely,
        ),
    };
    Finding::error(
        code::BAD_SIGNATURE,
        format!("{by} signature does not verify with the certificate's key"),
        why,
        "Compare the public key of the certificate with that of the key: `enclasp key show`, `enclasp doctor cert`.",
    )
    .confidence(confidence)
    .with("first bytes", enclasp_pki::hex(&signature.signature[..signature.signature.len().min(16)]))
}

fn sha1(by: Side) -> Finding {
    Finding::warning(
        code::SHA1_SIGNATURE,
        format!("{} signature uses SHA-1", whose(by)),
        "It is legal in TLS 1.2 and given up (RFC 9155): newer peers refuse it.",
        "Have the other side offer schemes with SHA-256, and the signer prefer them.",
    )
}

/// Whether the client's certificate came with a proof that it has the key.
pub(super) fn lacks_proof(seen: &Observation) -> bool {
    let presented = seen.client_chain.as_ref().is_some_and(|chain| !chain.is_empty());
    let finished = seen.client.finished && (!is_tls13(seen) || !seen.opaque);
    presented && seen.client_signature.is_none() && finished
}
