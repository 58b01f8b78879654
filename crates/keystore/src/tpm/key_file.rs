//! TPM 2.0 key files: the `TSS2 PRIVATE KEY` that tpm2-openssl and others read and write ("ASN.1
//! Specification for TPM 2.0 Key Files"). The private part is encrypted by its parent in the TPM.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::pem::{self, LineEnding};
use der::{
    Decode, DecodeValue, Encode, EncodeValue, ErrorKind, FixedTag, Header, Length, Reader, Sequence, Tag,
    Writer,
};
use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::{Marshall, UnMarshall};

const LABEL: &str = "TSS2 PRIVATE KEY";

/// `id-loadablekey`: a private part that TPM2_Load takes.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");

/// What a key file holds.
#[derive(Clone, Debug)]
pub(super) struct KeyFile {
    /// Whether the key is used without an auth value.
    pub(super) empty_auth: bool,
    /// The handle of its parent: a hierarchy, or a persistent storage key.
    pub(super) parent: u32,
    pub(super) public: Public,
    pub(super) private: Private,
}

#[derive(Sequence)]
struct TpmKey<'a> {
    key_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<Flag>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    policy: Option<AnyRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    secret: Option<AnyRef<'a>>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    auth_policy: Option<AnyRef<'a>>,
    #[asn1(context_specific = "4", tag_mode = "EXPLICIT", optional = "true")]
    description: Option<AnyRef<'a>>,
    #[asn1(context_specific = "5", tag_mode = "EXPLICIT", optional = "true")]
    rsa_parent: Option<Flag>,
    parent: u32,
    public: &'a OctetStringRef,
    private: &'a OctetStringRef,
}

/// A BOOLEAN whose TRUE may be any octet but zero, as in BER: tpm2-openssl writes 1, not 255.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flag(bool);

impl FixedTag for Flag {
    const TAG: Tag = Tag::Boolean;
}

impl<'a> DecodeValue<'a> for Flag {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        if header.length() != Length::ONE {
            return Err(reader.error(ErrorKind::Length { tag: Self::TAG }));
        }
        Ok(Self(reader.read_byte()? != 0))
    }
}

impl EncodeValue for Flag {
    fn value_len(&self) -> der::Result<Length> {
        self.0.value_len()
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        self.0.encode_value(writer)
    }
}

impl KeyFile {
    /// Reads a key file; text before the PEM is passed over.
    ///
    /// # Errors
    /// What is wrong with it, or what it needs that is not supported.
    pub(super) fn from_pem(bytes: &[u8]) -> Result<Self, String> {
        let (label, der) = pem::decode_vec(bytes).map_err(|e| format!("it is not PEM: {e}"))?;
        if label != LABEL {
            return Err(format!("it is a PEM `{label}`, not a `{LABEL}`"));
        }
        let key = TpmKey::from_der(&der).map_err(|e| format!("it is not a TPM 2.0 key file: {e}"))?;
        if key.key_type != LOADABLE_KEY || key.secret.is_some() {
            return Err("it is not a loadable key but one to import or to unseal".into());
        }
        if key.policy.is_some() || key.auth_policy.is_some() {
            return Err("its key is used by a policy, which is not supported".into());
        }
        if key.rsa_parent == Some(Flag(true)) {
            return Err("its parent is an RSA storage key, which is not supported".into());
        }
        let part = |name: &str, bytes: &OctetStringRef| {
            contents(bytes.as_bytes())
                .map(<[u8]>::to_vec)
                .ok_or_else(|| format!("its {name} part does not have the length that it says"))
        };
        let public = part("public", key.public)?;
        let public =
            Public::unmarshall(&public).map_err(|e| format!("its public part cannot be read: {e}"))?;
        let private = Private::try_from(part("private", key.private)?)
            .map_err(|e| format!("its private part cannot be read: {e}"))?;
        let empty_auth = key.empty_auth == Some(Flag(true));
        Ok(Self { empty_auth, parent: key.parent, public, private })
    }

    /// The PEM text, which [`from_pem`](Self::from_pem) reads.
    ///
    /// # Errors
    /// What could not be encoded.
    pub(super) fn to_pem(&self) -> Result<String, String> {
        let public = self.public.marshall().map_err(|e| e.to_string())?;
        let (public, private) = (tpm2b(&public)?, tpm2b(self.private.value())?);
        let octets = |bytes| OctetStringRef::new(bytes).map_err(|e| e.to_string());
        let key = TpmKey {
            key_type: LOADABLE_KEY,
            empty_auth: self.empty_auth.then_some(Flag(true)),
            policy: None,
            secret: None,
            auth_policy: None,
            description: None,
            rsa_parent: None,
            parent: self.parent,
            public: octets(&public)?,
            private: octets(&private)?,
        };
        let der = key.to_der().map_err(|e| e.to_string())?;
        pem::encode_string(LABEL, LineEnding::LF, &der).map_err(|e| e.to_string())
    }
}

/// The bytes with their length before them in two bytes, as every `TPM2B_` structure is.
pub(super) fn tpm2b(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let length = u16::try_from(bytes.len()).map_err(|_| "it is longer than 65535 bytes".to_owned())?;
    Ok([&length.to_be_bytes()[..], bytes].concat())
}

/// What [`tpm2b`] was made of.
pub(super) fn contents(bytes: &[u8]) -> Option<&[u8]> {
    let (length, contents) = bytes.split_first_chunk::<2>()?;
    (usize::from(u16::from_be_bytes(*length)) == contents.len()).then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;
    use crate::tpm::public::signing_key;

    fn sample() -> KeyFile {
        KeyFile {
            empty_auth: true,
            parent: 0x8100_0001,
            public: signing_key(Algorithm::P256, false).unwrap().unwrap(),
            private: Private::try_from(vec![7; 126]).unwrap(),
        }
    }

    #[test]
    fn refuses_what_is_no_loadable_key() {
        let pem = |der: &[u8]| pem::encode_string(LABEL, LineEnding::LF, der).unwrap();
        let good = sample().to_pem().unwrap();
        let (_, der) = pem::decode_vec(good.as_bytes()).unwrap();
        let cases = [
            (String::new(), "not PEM"),
            (good.replace(LABEL, "PRIVATE KEY"), "`PRIVATE KEY`"),
            (pem(&[5, 0]), "not a TPM 2.0 key file"),
            (pem(&der[..der.len() - 1]), "not a TPM 2.0 key file"),
            // The last byte of the OID: id-importablekey.
            (pem(&replaced(&der, &[0x67, 0x81, 5, 10, 1, 3], &[0x67, 0x81, 5, 10, 1, 4])), "to import"),
            // emptyAuth [0] becomes rsaParent [5].
            (pem(&replaced(&der, &[0xa0, 3, 1, 1, 0xff], &[0xa5, 3, 1, 1, 0xff])), "RSA storage key"),
            (pem(&replaced(&der, &[0xa0, 3, 1, 1, 0xff], &[0xa1, 3, 1, 1, 0xff])), "by a policy"),
            (pem(&replaced(&der, &[0, 126, 7], &[0, 125, 7])), "private part"),
            // TPM_ALG_ECC becomes an algorithm that does not exist.
            (pem(&replaced(&der, &[0, 0x23, 0, 0x0b], &[0, 0xff, 0, 0x0b])), "public part"),
        ];
        for (text, reason) in cases {
            let error = KeyFile::from_pem(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error} should say {reason}");
        }
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let (_, der) = pem::decode_vec(sample().to_pem().unwrap().as_bytes()).unwrap();
        let pem = |der: &[u8]| pem::encode_string(LABEL, LineEnding::LF, der).unwrap();
        for at in 0..der.len() {
            assert!(KeyFile::from_pem(pem(&der[..at]).as_bytes()).is_err());
            for bit in 0..8 {
                let mut damaged = der.clone();
                damaged[at] ^= 1 << bit;
                let _ = KeyFile::from_pem(pem(&damaged).as_bytes());
            }
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for empty_auth in [true, false] {
            let file = KeyFile { empty_auth, ..sample() };
            let text = format!("made by somebody\n{}", file.to_pem().unwrap());
            let again = KeyFile::from_pem(text.as_bytes()).unwrap();
            assert_eq!((again.empty_auth, again.parent), (empty_auth, 0x8100_0001));
            assert_eq!((again.public, again.private), (file.public, file.private));
        }
    }

    fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
        let at = bytes.windows(old.len()).position(|window| window == old).expect("it is there");
        [&bytes[..at], new, &bytes[at + old.len()..]].concat()
    }
}
