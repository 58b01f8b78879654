//! DER assembled by hand, rightly and, above all, wrongly.

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair,
};

pub(crate) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
pub(crate) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
pub(crate) const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
pub(crate) const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
pub(crate) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
pub(crate) const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
pub(crate) const COMMON_NAME: &[u8] = &[0x55, 4, 3];
pub(crate) const COUNTRY: &[u8] = &[0x55, 4, 6];

/// An element with the length that it has.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    stating(length, tag, parts)
}

/// An element that says that its length is `length`.
pub(crate) fn stating(length: usize, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut der = vec![tag];
    match length {
        ..0x80 => der.push(length as u8),
        0x80..0x100 => der.extend([0x81, length as u8]),
        _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    parts.iter().for_each(|part| der.extend_from_slice(part));
    der
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(crate) fn oid(bytes: &[u8]) -> Vec<u8> {
    tlv(6, &[bytes])
}

/// A BIT STRING of whole bytes.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes])
}

/// A Name of one attribute each.
pub(crate) fn name(attributes: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let rdns = attributes
        .iter()
        .map(|(kind, tag, value)| tlv(0x31, &[&sequence(&[&oid(kind), &tlv(*tag, &[value])])]));
    sequence(&[&rdns.collect::<Vec<_>>().concat()])
}

/// A key that signs whatever it is told to.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    hash: &'static digest::Algorithm,
    curve: &'static [u8],
}

impl Key {
    pub(crate) fn p256() -> Self {
        Self::new(&ECDSA_P256_SHA256_ASN1_SIGNING, &digest::SHA256, P256)
    }

    pub(crate) fn p384() -> Self {
        Self::new(&ECDSA_P384_SHA384_ASN1_SIGNING, &digest::SHA384, P384)
    }

    fn new(
        algorithm: &'static EcdsaSigningAlgorithm,
        hash: &'static digest::Algorithm,
        curve: &'static [u8],
    ) -> Self {
        Self { pair: EcdsaKeyPair::generate(algorithm).unwrap(), hash, curve }
    }

    /// 04 ‖ X ‖ Y.
    pub(crate) fn point(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// The private number, big-endian.
    pub(crate) fn scalar(&self) -> Vec<u8> {
        let number: EcPrivateKeyBin<'_> = self.pair.private_key().as_be_bytes().unwrap();
        number.as_ref().to_vec()
    }

    pub(crate) fn algorithm(&self) -> Vec<u8> {
        sequence(&[&oid(EC), &oid(self.curve)])
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        sequence(&[&self.algorithm(), &bits(&self.point())])
    }

    /// A DER signature over a digest of any length, which ECDSA takes for a number.
    pub(crate) fn sign_digest(&self, digest: &[u8]) -> Vec<u8> {
        let width = self.hash.output_len();
        let mut adapted = vec![0; width.saturating_sub(digest.len())];
        adapted.extend(&digest[..digest.len().min(width)]);
        let digest = Digest::import_less_safe(&adapted, self.hash).unwrap();
        self.pair.sign_digest(&digest).unwrap().as_ref().to_vec()
    }

    pub(crate) fn sign(&self, hash: &'static digest::Algorithm, message: &[u8]) -> Vec<u8> {
        self.sign_digest(digest::digest(hash, message).as_ref())
    }

    /// With SHA-256 and ECDSA, as everybody expects.
    pub(crate) fn sign_well(&self, message: &[u8]) -> Vec<u8> {
        self.sign(&digest::SHA256, message)
    }
}

/// A request in parts, which are right until somebody changes them.
pub(crate) struct Draft {
    pub(crate) version: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) attributes: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    /// By how much the length of the signed part, and that of the whole, are wrong.
    pub(crate) info_off_by: isize,
    pub(crate) outer_off_by: isize,
}

impl Draft {
    pub(crate) fn new(key: &Key) -> Self {
        Self {
            version: vec![2, 1, 0],
            subject: name(&[(COUNTRY, 0x13, b"CH"), (COMMON_NAME, 0x0c, b"web")]),
            spki: key.spki(),
            attributes: vec![0xa0, 0],
            algorithm: sequence(&[&oid(ECDSA_SHA256)]),
            info_off_by: 0,
            outer_off_by: 0,
        }
    }

    pub(crate) fn info(&self) -> Vec<u8> {
        let parts: [&[u8]; 4] = [&self.version, &self.subject, &self.spki, &self.attributes];
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        stating(off_by(length, self.info_off_by), 0x30, &parts)
    }

    /// The request with that BIT STRING as its signature.
    pub(crate) fn with_bits(&self, signature: &[u8]) -> Vec<u8> {
        let info = self.info();
        let parts: [&[u8]; 3] = [&info, &self.algorithm, signature];
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        stating(off_by(length, self.outer_off_by), 0x30, &parts)
    }

    pub(crate) fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        self.with_bits(&bits(signature))
    }

    /// Signed as it stands, with ECDSA and SHA-256.
    pub(crate) fn signed(&self, key: &Key) -> Vec<u8> {
        self.with_signature(&key.sign_well(&self.info()))
    }
}

fn off_by(length: usize, difference: isize) -> usize {
    length.checked_add_signed(difference).unwrap()
}

/// What is inside an element.
pub(crate) fn contents(der: &[u8]) -> &[u8] {
    let header = if der[1] < 0x80 { 2 } else { 2 + usize::from(der[1] & 0x7f) };
    &der[header..]
}

/// A signature whose r has its highest bit set, and so a byte 00 before it, and s, too.
pub(crate) fn signature_with_signs(key: &Key, message: &[u8]) -> Vec<u8> {
    loop {
        let der = key.sign_well(message);
        // 30 46 02 21 00 r 02 21 00 s
        if der.len() == 72 {
            return der;
        }
    }
}

/// r ‖ s of a DER signature, each of 32 bytes.
pub(crate) fn pair(der: &[u8]) -> Vec<u8> {
    enclasp_keystore::encoding::ecdsa_pair_of_der(der, 32).unwrap()
}
