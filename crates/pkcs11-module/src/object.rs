//! The objects of a token: keys and certificates, as lists of attributes.

use cryptoki_sys::*;
use enclasp_keystore::encoding::{PublicParts, public_parts};
use enclasp_keystore::{Algorithm, KeyInfo, KeyUri, Origin, Presence, Scheme};
use enclasp_pki::{Certificate, sha256};

use crate::mechanism;

/// An object, which never changes: a renewed certificate is another one.
#[derive(Debug, PartialEq)]
pub(crate) struct Object {
    /// The slot that it is seen in.
    pub(crate) slot: CK_SLOT_ID,
    attributes: Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>,
    /// What it signs with, if it is a private key.
    pub(crate) key: Option<SigningKey>,
    /// Whether it is seen by who has logged in only.
    pub(crate) private: bool,
}

/// A private key, as much as is needed to have its agent use it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SigningKey {
    pub(crate) uri: KeyUri,
    pub(crate) algorithm: Algorithm,
    /// What it may be used for (invariant 2).
    pub(crate) schemes: Vec<Scheme>,
    /// In the encoding of PKCS#11, in bytes.
    pub(crate) signature_length: usize,
    /// Whether a signature may take as long as a person or hardware does.
    pub(crate) slow: bool,
}

/// The value of an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Bytes(&'a [u8]),
    /// It exists, and is not told.
    Sensitive,
    Absent,
}

impl Object {
    /// The private key of `info`, which `uri` leads to.
    pub(crate) fn private_key(place: Place<'_>, uri: &KeyUri, info: &KeyInfo) -> Option<Self> {
        let parts = public_parts(&info.spki).ok()?;
        let schemes = info.usable_schemes();
        let generated = info.origin == Origin::Generated;
        let mut attributes = place.attributes(CKO_PRIVATE_KEY, &info.spki, place.login);
        attributes.extend(key_attributes(info, &parts, &schemes));
        attributes.extend(
            [
                (CKA_SIGN, true),
                (CKA_SENSITIVE, true),
                (CKA_EXTRACTABLE, false),
                (CKA_ALWAYS_SENSITIVE, generated),
                (CKA_NEVER_EXTRACTABLE, generated),
                (CKA_ALWAYS_AUTHENTICATE, info.policy.presence != Presence::None),
                (CKA_SIGN_RECOVER, false),
                (CKA_DECRYPT, false),
                (CKA_UNWRAP, false),
                (CKA_WRAP_WITH_TRUSTED, false),
            ]
            .map(|(kind, value)| flag(kind, value)),
        );
        let key = SigningKey {
            uri: uri.clone(),
            algorithm: info.algorithm,
            schemes,
            signature_length: match &parts {
                PublicParts::Rsa { modulus, .. } => modulus.len(),
                PublicParts::Curve { .. } if info.algorithm == Algorithm::P384 => 96,
                PublicParts::Curve { .. } => 64,
            },
            slow: info.policy.prompts() || uri.kind() != enclasp_keystore::KeystoreKind::Soft,
        };
        Some(Self { slot: place.slot, attributes, key: Some(key), private: place.login })
    }

    /// The public key of `info`. It is there to be read; this module verifies nothing.
    pub(crate) fn public_key(place: Place<'_>, info: &KeyInfo) -> Option<Self> {
        let parts = public_parts(&info.spki).ok()?;
        let mut attributes = place.attributes(CKO_PUBLIC_KEY, &info.spki, false);
        attributes.extend(key_attributes(info, &parts, &info.usable_schemes()));
        attributes.extend(
            [CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_ENCRYPT, CKA_WRAP, CKA_TRUSTED]
                .map(|kind| flag(kind, false)),
        );
        if let PublicParts::Rsa { modulus, .. } = &parts {
            attributes.push(number(CKA_MODULUS_BITS, bits(modulus)));
        }
        Some(Self { slot: place.slot, attributes, key: None, private: false })
    }

    /// A certificate: of the key that `place` is for, or of an authority above it.
    pub(crate) fn certificate(place: Place<'_>, certificate: &Certificate, authority: bool) -> Option<Self> {
        let category = match authority {
            true => CK_CERTIFICATE_CATEGORY_AUTHORITY,
            false => CK_CERTIFICATE_CATEGORY_TOKEN_USER,
        };
        let mut attributes = place.attributes(CKO_CERTIFICATE, certificate.spki(), false);
        attributes.extend([
            number(CKA_CERTIFICATE_TYPE, CKC_X_509),
            number(CKA_CERTIFICATE_CATEGORY, category),
            flag(CKA_TRUSTED, false),
            (CKA_SUBJECT, certificate.subject().to_der().ok()?),
            (CKA_ISSUER, certificate.issuer().to_der().ok()?),
            (CKA_SERIAL_NUMBER, certificate.serial_der().to_vec()),
            (CKA_VALUE, certificate.der().to_vec()),
        ]);
        Some(Self { slot: place.slot, attributes, key: None, private: false })
    }

    /// An attribute.
    pub(crate) fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Value<'_> {
        const SECRET: [CK_ATTRIBUTE_TYPE; 7] = [
            CKA_VALUE,
            CKA_PRIVATE_EXPONENT,
            CKA_PRIME_1,
            CKA_PRIME_2,
            CKA_EXPONENT_1,
            CKA_EXPONENT_2,
            CKA_COEFFICIENT,
        ];
        match self.attributes.iter().find(|(known, _)| *known == kind) {
            Some((_, value)) => Value::Bytes(value),
            None if self.key.is_some() && SECRET.contains(&kind) => Value::Sensitive,
            None => Value::Absent,
        }
    }

    /// Whether it has all these attributes.
    pub(crate) fn fits(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> bool {
        template.iter().all(|(kind, value)| self.value(*kind) == Value::Bytes(value))
    }
}

/// Where an object is, and what it is called.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) slot: CK_SLOT_ID,
    /// CKA_LABEL. A key and its certificate share it.
    pub(crate) label: &'a str,
    /// Whether private keys are hidden until somebody logs in.
    pub(crate) login: bool,
}

impl Place<'_> {
    /// What every object has. CKA_ID is the same for a key and for its certificates.
    fn attributes(
        self,
        class: CK_OBJECT_CLASS,
        spki: &[u8],
        private: bool,
    ) -> Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)> {
        vec![
            number(CKA_CLASS, class),
            flag(CKA_TOKEN, true),
            flag(CKA_PRIVATE, private),
            flag(CKA_MODIFIABLE, false),
            flag(CKA_COPYABLE, false),
            flag(CKA_DESTROYABLE, false),
            (CKA_LABEL, self.label.as_bytes().to_vec()),
            (CKA_ID, sha256(spki)[..20].to_vec()),
            (CKA_PUBLIC_KEY_INFO, spki.to_vec()),
        ]
    }
}

/// What public and private keys have in common.
fn key_attributes(
    info: &KeyInfo,
    parts: &PublicParts,
    schemes: &[Scheme],
) -> Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)> {
    let mechanisms = mechanism::of_schemes(schemes);
    let mut attributes = vec![
        flag(CKA_LOCAL, info.origin == Origin::Generated),
        flag(CKA_DERIVE, false),
        number(CKA_KEY_GEN_MECHANISM, CK_UNAVAILABLE_INFORMATION),
        (CKA_ALLOWED_MECHANISMS, mechanisms.into_iter().flat_map(CK_MECHANISM_TYPE::to_ne_bytes).collect()),
    ];
    match parts {
        PublicParts::Rsa { modulus, exponent } => attributes.extend([
            number(CKA_KEY_TYPE, CKK_RSA),
            (CKA_MODULUS, modulus.clone()),
            (CKA_PUBLIC_EXPONENT, exponent.clone()),
        ]),
        PublicParts::Curve { oid, point } => {
            let kind = if info.algorithm == Algorithm::Ed25519 { CKK_EC_EDWARDS } else { CKK_EC };
            attributes.extend([
                number(CKA_KEY_TYPE, kind),
                (CKA_EC_PARAMS, oid.clone()),
                (CKA_EC_POINT, octet_string(point)),
            ]);
        }
    }
    attributes
}

fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, value.to_ne_bytes().to_vec())
}

fn flag(kind: CK_ATTRIBUTE_TYPE, value: bool) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, vec![CK_BBOOL::from(value)])
}

/// The bits of an integer without zero bytes at its front.
fn bits(integer: &[u8]) -> CK_ULONG {
    let first = integer.first().map_or(0, |first| first.leading_zeros());
    CK_ULONG::try_from(integer.len()).unwrap_or(0) * 8 - CK_ULONG::from(first)
}

/// DER OCTET STRING of a point, which has fewer than 128 bytes.
fn octet_string(point: &[u8]) -> Vec<u8> {
    [&[4, point.len() as u8], point].concat()
}
