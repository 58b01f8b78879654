//! What a signature really is: its shape, whether it verifies, and if not as it claims, how else.

use std::fmt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use enclasp_keystore::encoding::{ecdsa_der, ecdsa_der_of_pair};

use crate::ecdsa::{self, Curve};
use crate::hash::Hash;
use crate::observe::{SignatureSeen, tls13_input};
use crate::public_key::PublicKey;
use crate::rsa::{self, element};
use crate::wire::{Reader, Version, version};

/// What the bytes of a signature look like, whatever was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Empty,
    /// A DER `Ecdsa-Sig-Value`.
    EcdsaDer,
    /// One whose integers are padded, negative, or followed by something.
    EcdsaLax(String),
    /// As long as `r ‖ s` on the key's curve.
    Pair,
    /// As long as one number of the key's curve: half a signature, or a digest.
    Half,
    /// As long as the modulus, with PKCS #1 v1.5 padding after the public-key operation.
    Pkcs1 {
        /// From the DigestInfo; `None` if there is none, as in TLS 1.0 and 1.1.
        hash: Option<Hash>,
        digest: Vec<u8>,
    },
    /// The same, with something inside that is neither a DigestInfo nor a digest.
    Pkcs1Other,
    /// As long as the modulus, with the trailer of PSS.
    Pss,
    /// As long as the modulus, with no padding that is known.
    RsaUnpadded,
    /// 64 bytes, by an Ed25519 key.
    Eddsa,
    /// None of these.
    Other,
}

/// How a signature verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) hash: Hash,
    /// RSA only.
    pub(crate) padding: Option<Padding>,
    pub(crate) over: Over,
    /// Whether it had to be brought into DER first.
    pub(crate) reencoded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    Pkcs1,
    /// PKCS #1 v1.5 around a bare digest.
    Pkcs1WithoutInfo,
    Pss {
        salt: usize,
    },
}

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// What has to be signed.
    Input,
    /// The hash of its hash.
    HashOf(Hash),
    /// In TLS 1.3: the hash of the transcript, without spaces and context before it.
    TranscriptHash,
    /// In TLS 1.3: the handshake messages themselves, as in TLS 1.2.
    Transcript,
    /// The context string of the other side.
    OtherContext,
    /// In TLS 1.2: what TLS 1.3 would sign.
    Tls13Input,
    /// The handshake messages without the last ones.
    Shorter { missing: usize },
}

/// What a signature has to be according to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) family: Family,
    pub(crate) hash: Option<Hash>,
    /// In TLS 1.3 an ECDSA scheme names its curve.
    pub(crate) curve: Option<Curve>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Pkcs1,
    Pss,
    /// PSS by a key that is for PSS only.
    PssOnly,
    Ecdsa,
    Ed25519,
    Ed448,
    Dsa,
    Unknown,
}

impl Claim {
    /// What a code point stands for.
    pub(crate) fn of_scheme(scheme: u16) -> Self {
        let hash = |byte: u16| match byte {
            2 => Some(Hash::Sha1),
            3 => Some(Hash::Sha224),
            4 => Some(Hash::Sha256),
            5 => Some(Hash::Sha384),
            6 => Some(Hash::Sha512),
            _ => None,
        };
        let (family, hash, curve) = match scheme {
            0x0804..=0x0806 => (Family::Pss, hash(scheme & 0xff), None),
            0x0809..=0x080b => (Family::PssOnly, hash((scheme & 0xff) - 5), None),
            0x0807 => (Family::Ed25519, None, None),
            0x0808 => (Family::Ed448, None, None),
            _ => match scheme & 0xff {
                1 => (Family::Pkcs1, hash(scheme >> 8), None),
                2 => (Family::Dsa, hash(scheme >> 8), None),
                3 => {
                    let curve = match scheme {
                        0x0403 => Some(Curve::P256),
                        0x0503 => Some(Curve::P384),
                        0x0603 => Some(Curve::P521),
                        _ => None,
                    };
                    (Family::Ecdsa, hash(scheme >> 8), curve)
                }
                _ => (Family::Unknown, None, None),
            },
        };
        Self { family, hash, curve }
    }

    /// What a message without a scheme field means (RFC 4346 §7.4.8, RFC 4492 §5.8).
    pub(crate) fn before_tls12(key: &PublicKey) -> Self {
        let (family, hash) = match key {
            PublicKey::Rsa { .. } => (Family::Pkcs1, Some(Hash::Md5Sha1)),
            _ => (Family::Ecdsa, Some(Hash::Sha1)),
        };
        Self { family, hash, curve: None }
    }

    /// Whether a key of this type can make such signatures at all.
    pub(crate) fn fits(&self, key: &PublicKey, version: Version) -> bool {
        match (self.family, key) {
            (Family::Pkcs1, PublicKey::Rsa { pss_only, .. }) => !pss_only && version < version::TLS13,
            (Family::Pss, PublicKey::Rsa { pss_only, .. }) => !pss_only,
            (Family::PssOnly, PublicKey::Rsa { pss_only, .. }) => *pss_only,
            (Family::Ecdsa, PublicKey::Ec { curve, .. }) => {
                version < version::TLS13 || self.curve == Some(*curve)
            }
            (Family::Ecdsa, PublicKey::OtherCurve(_)) => version < version::TLS13,
            (Family::Ed25519, PublicKey::Ed25519(_)) | (Family::Ed448, PublicKey::Ed448) => true,
            (Family::Dsa, PublicKey::Other(name)) => name == "DSA",
            _ => false,
        }
    }

    /// Whether `explanation` is what was claimed.
    pub(crate) fn is_met_by(&self, explanation: &Explanation) -> bool {
        let padding = match self.family {
            Family::Pkcs1 if self.hash == Some(Hash::Md5Sha1) => Some(Padding::Pkcs1WithoutInfo),
            Family::Pkcs1 => Some(Padding::Pkcs1),
            // RFC 8446 §4.2.3: the salt is as long as the hash.
            Family::Pss | Family::PssOnly => self.hash.map(|hash| Padding::Pss { salt: hash.length() }),
            _ => None,
        };
        explanation.over == Over::Input
            && !explanation.reencoded
            && explanation.padding == padding
            && (self.hash.is_none() || self.hash == Some(explanation.hash))
    }
}

/// Tells what a signature looks like, by a key of that type.
pub(crate) fn shape(key: &PublicKey, signature: &[u8]) -> Shape {
    if signature.is_empty() {
        return Shape::Empty;
    }
    if let Some(recovered) = key.recover(signature) {
        return rsa_shape(&recovered);
    }
    if let Some((r, s, fault)) = lax_ecdsa(signature) {
        return match fault {
            None if ecdsa_der(r, s).is_some_and(|der| der == signature) => Shape::EcdsaDer,
            None => Shape::EcdsaLax("it is not in the shortest form".into()),
            Some(fault) => Shape::EcdsaLax(fault),
        };
    }
    match key {
        PublicKey::Ec { curve, .. } if signature.len() == 2 * curve.width() => Shape::Pair,
        PublicKey::Ec { curve, .. } if signature.len() == curve.width() => Shape::Half,
        PublicKey::Ed25519(_) if signature.len() == 64 => Shape::Eddsa,
        _ => Shape::Other,
    }
}

/// Finds how a signature verifies with `key`: as it has to if it does, else in some other way that
/// programs have been seen to sign.
pub(crate) fn explain(
    key: &PublicKey,
    seen: &SignatureSeen,
    version: Version,
    suite_hash: Hash,
) -> Option<Explanation> {
    let right = try_input(key, &seen.signature, &seen.input, Over::Input);
    right.or_else(|| {
        other_inputs(seen, version, suite_hash)
            .into_iter()
            .find_map(|(over, input)| try_input(key, &seen.signature, &input, over))
    })
}

/// The same for the right input only, with the key of another certificate.
pub(crate) fn verifies(key: &PublicKey, seen: &SignatureSeen) -> bool {
    try_input(key, &seen.signature, &seen.input, Over::Input).is_some()
}

/// What else has been signed by mistake.
fn other_inputs(seen: &SignatureSeen, version: Version, suite_hash: Hash) -> Vec<(Over, Vec<u8>)> {
    let mut inputs: Vec<(Over, Vec<u8>)> =
        Hash::TRIED.iter().filter_map(|hash| Some((Over::HashOf(*hash), hash.of(&seen.input)?))).collect();
    if seen.transcript.is_empty() {
        return inputs;
    }
    let digest = |hash: Hash, bytes: &[u8]| hash.of(bytes).unwrap_or_default();
    if version >= version::TLS13 {
        let hash = digest(suite_hash, &seen.transcript);
        inputs.push((Over::OtherContext, tls13_input(seen.by.other(), &hash)));
        inputs.push((Over::TranscriptHash, hash));
        inputs.push((Over::Transcript, seen.transcript.clone()));
    } else {
        inputs.push((Over::Tls13Input, tls13_input(seen.by, &digest(Hash::Sha256, &seen.transcript))));
        inputs.push((Over::Tls13Input, tls13_input(seen.by, &digest(Hash::Sha384, &seen.transcript))));
    }
    let ends = message_ends(&seen.transcript);
    for (missing, end) in ends.iter().rev().enumerate().skip(1) {
        let shorter = seen.transcript.get(..*end).unwrap_or_default();
        let input = match version {
            version::TLS13.. => tls13_input(seen.by, &digest(suite_hash, shorter)),
            _ => shorter.to_vec(),
        };
        inputs.push((Over::Shorter { missing }, input));
    }
    inputs
}

/// Where the messages of a transcript end.
fn message_ends(transcript: &[u8]) -> Vec<usize> {
    let mut reader = Reader::new(transcript);
    let (mut ends, mut at) = (Vec::new(), 0);
    while let (Some(_), Some(body)) = (reader.u8(), reader.vec24()) {
        at += 4 + body.len();
        ends.push(at);
    }
    ends
}

fn try_input(key: &PublicKey, signature: &[u8], input: &[u8], over: Over) -> Option<Explanation> {
    let found = |hash, padding, reencoded| Some(Explanation { hash, padding, over: over.clone(), reencoded });
    match key {
        PublicKey::Ec { curve, point } => {
            let strict = lax_ecdsa(signature).and_then(|(r, s, _)| ecdsa_der(r, s));
            let pair = (signature.len() == 2 * curve.width()).then(|| ecdsa_der_of_pair(signature)).flatten();
            for der in strict.into_iter().chain(pair) {
                let verifies = |hash: &Hash| {
                    hash.of(input).is_some_and(|digest| ecdsa::verify(*curve, point, &digest, &der))
                };
                if let Some(hash) = Hash::TRIED.into_iter().chain([Hash::Identity]).find(verifies) {
                    return found(hash, None, der != signature);
                }
            }
            None
        }
        PublicKey::Rsa { modulus, .. } => {
            let recovered = key.recover(signature)?;
            match rsa_shape(&recovered) {
                Shape::Pkcs1 { hash: Some(hash), digest }
                    if hash.of(input).is_some_and(|made| made == digest) =>
                {
                    found(hash, Some(Padding::Pkcs1), false)
                }
                // Of MD5 ‖ SHA-1 the second half says enough.
                Shape::Pkcs1 { hash: None, digest } => {
                    let of_legacy = digest.len() == 36 && Hash::Sha1.of(input).as_deref() == digest.get(16..);
                    let hash = of_legacy.then_some(Hash::Md5Sha1);
                    let hash = hash.or_else(|| {
                        Hash::TRIED.into_iter().find(|hash| hash.of(input).is_some_and(|made| made == digest))
                    });
                    found(hash?, Some(Padding::Pkcs1WithoutInfo), false)
                }
                Shape::Pss => {
                    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
                    let pss = |hash: Hash| Some((hash, pss_salt(&recovered, bits, hash, &hash.of(input)?)?));
                    let (hash, salt) = Hash::TRIED.into_iter().find_map(pss)?;
                    found(hash, Some(Padding::Pss { salt }), false)
                }
                _ => None,
            }
        }
        PublicKey::Ed25519(point) => {
            let key = UnparsedPublicKey::new(&ED25519, point);
            key.verify(input, signature).ok()?;
            found(Hash::Identity, None, false)
        }
        _ => None,
    }
}

/// `r` and `s` of something like a DER `Ecdsa-Sig-Value`, and what is wrong with it.
fn lax_ecdsa(signature: &[u8]) -> Option<(&[u8], &[u8], Option<String>)> {
    let mut reader = Reader::new(signature);
    let mut body = Reader::new(element(&mut reader, 0x30)?);
    let (r, s) = (element(&mut body, 2)?, element(&mut body, 2)?);
    let mut fault = None;
    for (name, number) in [("r", r), ("s", s)] {
        match number {
            [] => return None,
            [first, ..] if *first >= 0x80 => {
                fault = Some(format!("{name} is negative: the zero byte before it is missing"))
            }
            [0, second, ..] if *second < 0x80 => {
                fault = Some(format!("{name} begins with a zero byte that DER does not allow"))
            }
            _ => {}
        }
    }
    if !reader.is_empty() || !body.is_empty() {
        fault = Some("something follows the two numbers".into());
    }
    Some((r, s, fault))
}

fn rsa_shape(recovered: &[u8]) -> Shape {
    let Some(content) = rsa::pkcs1_content(recovered) else {
        let is_pss = recovered.last() == Some(&0xbc) && !recovered.starts_with(&[0, 1]);
        return if is_pss { Shape::Pss } else { Shape::RsaUnpadded };
    };
    if let Some((hash, digest)) = rsa::digest_info(content) {
        return Shape::Pkcs1 { hash: Some(hash), digest: digest.to_vec() };
    }
    match content.len() {
        16 | 20 | 28 | 32 | 36 | 48 | 64 => Shape::Pkcs1 { hash: None, digest: content.to_vec() },
        _ => Shape::Pkcs1Other,
    }
}

/// The length of the salt if `recovered` is the EMSA-PSS encoding of `digest` (RFC 8017 §9.1.2),
/// with MGF1 and the same hash.
fn pss_salt(recovered: &[u8], modulus_bits: usize, hash: Hash, digest: &[u8]) -> Option<usize> {
    let encoded_bits = modulus_bits - 1;
    let encoded = recovered.get(recovered.len() - encoded_bits.div_ceil(8)..)?;
    let (body, trailer) = encoded.split_at_checked(encoded.len().checked_sub(1)?)?;
    let (masked, h) = body.split_at_checked(body.len().checked_sub(hash.length())?)?;
    if trailer != [0xbc] {
        return None;
    }
    let mut block = masked.to_vec();
    for (counter, part) in (0_u32..).zip(block.chunks_mut(hash.length())) {
        let mask = hash.of(&[h, &counter.to_be_bytes()].concat())?;
        part.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    let unused = encoded.len() * 8 - encoded_bits;
    if let Some(first) = block.first_mut() {
        *first &= 0xff >> unused;
    }
    let one = block.iter().position(|byte| *byte != 0)?;
    let salt = block.get(one..)?.strip_prefix(&[1])?;
    let expected = hash.of(&[&[0; 8], digest, salt].concat())?;
    (expected == h).then_some(salt.len())
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::EcdsaDer => f.write_str("an ECDSA signature in DER"),
            Self::EcdsaLax(fault) => write!(f, "an ECDSA signature in what is not quite DER: {fault}"),
            Self::Pair => f.write_str("as long as r ‖ s, the plain form of an ECDSA signature"),
            Self::Half => f.write_str("as long as one number of the curve, or a digest: no ECDSA signature"),
            Self::Pkcs1 { hash: Some(hash), .. } => write!(f, "RSA PKCS #1 v1.5 with {hash}"),
            Self::Pkcs1 { hash: None, digest } => {
                write!(f, "RSA PKCS #1 v1.5 around {} bytes without a DigestInfo", digest.len())
            }
            Self::Pkcs1Other => f.write_str("RSA PKCS #1 v1.5 around something that is no digest"),
            Self::Pss => f.write_str("RSA with the trailer of PSS"),
            Self::RsaUnpadded => f.write_str("as long as the RSA modulus, without any padding of this key's"),
            Self::Eddsa => f.write_str("64 bytes, as Ed25519 signatures are"),
            Self::Other => f.write_str("nothing that is known"),
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input => f.write_str("the right bytes"),
            Self::HashOf(hash) => write!(f, "the {hash} digest of the right bytes, hashed once more"),
            Self::TranscriptHash => {
                f.write_str("the transcript's hash without the spaces and the context before it")
            }
            Self::Transcript => f.write_str("the handshake messages themselves, as TLS 1.2 has it"),
            Self::OtherContext => f.write_str("the right bytes but with the other side's context string"),
            Self::Tls13Input => f.write_str("what TLS 1.3 would sign, in TLS 1.2"),
            Self::Shorter { missing } => write!(f, "the handshake without its last {missing} message(s)"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, padding, over, reencoded } = self;
        match padding {
            Some(Padding::Pkcs1) => write!(f, "RSA PKCS #1 v1.5 with {hash}")?,
            Some(Padding::Pkcs1WithoutInfo) => {
                write!(f, "RSA PKCS #1 v1.5 with {hash}, without a DigestInfo")?
            }
            Some(Padding::Pss { salt }) => write!(f, "RSA-PSS with {hash} and a salt of {salt} bytes")?,
            None => write!(f, "{hash}")?,
        }
        write!(f, ", over {over}")?;
        f.write_str(if *reencoded { ", once it is brought into DER" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    };
    use enclasp_keystore::encoding::ec_spki;

    use super::*;
    use crate::wire::Side;

    fn seen(signature: &[u8], input: &[u8]) -> SignatureSeen {
        SignatureSeen {
            by: Side::Client,
            scheme: Some(0x0403),
            signature: signature.to_vec(),
            input: input.to_vec(),
            transcript: Vec::new(),
        }
    }

    #[test]
    fn ecdsa_is_explained_in_every_encoding() {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
        let plain = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let spki = ec_spki(enclasp_keystore::Algorithm::P256, der.public_key().as_ref()).unwrap();
        let key = PublicKey::of_spki(&spki).unwrap();
        let claim = Claim::of_scheme(0x0403);
        let explained =
            |signature: &[u8]| explain(&key, &seen(signature, b"message"), version::TLS12, Hash::Sha256);

        let good = der.sign(&SystemRandom::new(), b"message").unwrap();
        assert!(claim.is_met_by(&explained(good.as_ref()).unwrap()));
        assert_eq!(shape(&key, good.as_ref()), Shape::EcdsaDer);

        let pair = plain.sign(&SystemRandom::new(), b"message").unwrap();
        let explanation = explained(pair.as_ref()).unwrap();
        assert!(explanation.reencoded && !claim.is_met_by(&explanation), "{explanation}");
        assert_eq!(shape(&key, pair.as_ref()), Shape::Pair);

        let twice = der.sign(&SystemRandom::new(), &Hash::Sha256.of(b"message").unwrap()).unwrap();
        assert_eq!(explained(twice.as_ref()).unwrap().over, Over::HashOf(Hash::Sha256));

        let other = der.sign(&SystemRandom::new(), b"another message").unwrap();
        assert_eq!(explained(other.as_ref()), None);
        assert_eq!(shape(&key, &[7; 32]), Shape::Half);
    }

    /// An encoder that always writes 33 bytes, and one that never writes the zero byte.
    #[test]
    fn integers_that_are_not_der_are_named() {
        let key = PublicKey::Ec { curve: Curve::P256, point: vec![4; 65] };
        let padded = [&[0x30, 8, 2, 2, 0, 1, 2, 2, 0, 0x80][..]].concat();
        assert_eq!(
            shape(&key, &padded),
            Shape::EcdsaLax("r begins with a zero byte that DER does not allow".into())
        );
        assert_eq!(
            shape(&key, &[0x30, 6, 2, 1, 1, 2, 1, 0x80]),
            Shape::EcdsaLax("s is negative: the zero byte before it is missing".into())
        );
    }

    #[test]
    fn messages_of_a_transcript_are_found() {
        assert_eq!(message_ends(&[1, 0, 0, 1, 9, 2, 0, 0, 0]), [5, 9]);
        assert_eq!(message_ends(&[1, 0, 0, 9]), Vec::<usize>::new());
    }
}
