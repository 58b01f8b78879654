//! Decryption of TLS 1.3 records with the secrets of a key log (RFC 8446 §5.2 and §7.3).

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, KeyType, Prk};

/// What decrypts the records of one direction until the next change of keys.
pub(crate) struct RecordKey {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl RecordKey {
    /// The key that follows from a traffic secret. `None` for a suite that TLS 1.3 does not have,
    /// or that nobody uses (AES-CCM).
    pub(crate) fn new(suite: u16, secret: &[u8]) -> Option<Self> {
        let (aead, hkdf) = match suite {
            0x1301 => (&aead::AES_128_GCM, hkdf::HKDF_SHA256),
            0x1302 => (&aead::AES_256_GCM, hkdf::HKDF_SHA384),
            0x1303 => (&aead::CHACHA20_POLY1305, hkdf::HKDF_SHA256),
            _ => return None,
        };
        let key = expand(hkdf, secret, "key", aead.key_len())?;
        let key = LessSafeKey::new(UnboundKey::new(aead, &key).ok()?);
        let iv = expand(hkdf, secret, "iv", 12)?.try_into().ok()?;
        Some(Self { key, iv, sequence: 0 })
    }

    /// Decrypts the payload of a record: its true type and its content. `None` if it was not
    /// encrypted with this key.
    pub(crate) fn open(&mut self, payload: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        let length = u16::try_from(payload.len()).ok()?.to_be_bytes();
        let header = [23, 3, 3, length[0], length[1]];
        let mut buffer = payload.to_vec();
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut buffer)
            .ok()?;
        self.sequence = self.sequence.wrapping_add(1);
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        Some((plain[end], plain[..end].to_vec()))
    }
}

/// The traffic secret after a KeyUpdate.
pub(crate) fn traffic_update(suite: u16, secret: &[u8]) -> Option<Vec<u8>> {
    let hkdf = if suite == 0x1302 { hkdf::HKDF_SHA384 } else { hkdf::HKDF_SHA256 };
    expand(hkdf, secret, "traffic upd", secret.len())
}

/// HKDF-Expand-Label with an empty context.
fn expand(hkdf: hkdf::Algorithm, secret: &[u8], label: &str, length: usize) -> Option<Vec<u8>> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let parts: [&[u8]; 4] = [
        &u16::try_from(length).ok()?.to_be_bytes(),
        &[u8::try_from(label.len()).ok()?],
        label.as_bytes(),
        &[0],
    ];
    let mut output = vec![0; length];
    Prk::new_less_safe(hkdf, secret).expand(&parts, Length(length)).ok()?.fill(&mut output).ok()?;
    Some(output)
}
