//! Private keys on a token: finding them, what is known of them, making them.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode};

use super::certificate;
use super::failure::Attempt;
use crate::algorithm::{ID_ED25519, SECP256R1, SECP384R1};
use crate::encoding::{ec_spki, ed25519_spki, rsa_spki};
use crate::{Algorithm, Error};

/// A key found on a token.
pub(super) struct Found {
    /// The object: the private key, or the public one if that is all that may be seen.
    pub(super) handle: ObjectHandle,
    /// CKA_LABEL; empty if it is not UTF-8.
    pub(super) label: String,
    /// CKA_ID.
    pub(super) id: Vec<u8>,
    /// DER SubjectPublicKeyInfo.
    pub(super) spki: Vec<u8>,
    pub(super) algorithm: Algorithm,
    /// CKA_ALWAYS_AUTHENTICATE: each signature wants the PIN.
    pub(super) always_authenticate: bool,
    /// Why the token does not vouch that no copy of it can exist, if so.
    pub(super) doubt: Option<&'static str>,
}

/// The attributes of an object that we know what to do with. Those that a token does not have
/// or does not show are missing.
#[derive(Default)]
struct Values {
    key_type: Option<KeyType>,
    label: Vec<u8>,
    id: Vec<u8>,
    ec_params: Option<Vec<u8>>,
    ec_point: Option<Vec<u8>>,
    modulus: Option<Vec<u8>>,
    exponent: Option<Vec<u8>>,
    public_key_info: Option<Vec<u8>>,
    always_authenticate: bool,
    sensitive: bool,
    always_sensitive: bool,
    extractable: bool,
    never_extractable: bool,
    local: bool,
}

/// The private keys that fit the template, with their public keys.
pub(super) fn private_keys(session: &Session, template: &[Attribute]) -> Attempt<Vec<Result<Found, Error>>> {
    session.find_objects(template)?.into_iter().map(|handle| private_key(session, handle)).collect()
}

/// The public keys on the token. Without a login they are all that most tokens show; what belongs
/// to their private keys is then unknown.
pub(super) fn public_keys(session: &Session) -> Attempt<Vec<Found>> {
    let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Token(true)];
    let mut found = Vec::new();
    for handle in session.find_objects(&template)? {
        let values = Values::read(session, handle)?;
        let spki = values.spki();
        found.extend(spki.and_then(|spki| values.found(handle, spki).ok()));
    }
    Ok(found)
}

/// The objects of one class that belong to a key: those with its CKA_ID or, as it has none, label.
pub(super) fn beside(session: &Session, key: &Found, class: ObjectClass) -> Attempt<Vec<ObjectHandle>> {
    companions(session, &key.id, key.label.as_bytes(), class)
}

/// The SubjectPublicKeyInfo that a public key object holds, if it can be read.
pub(super) fn public_spki(session: &Session, handle: ObjectHandle) -> Attempt<Option<Vec<u8>>> {
    Ok(Values::read(session, handle)?.spki())
}

/// Generates a key pair on the token, and checks that the token kept to what was asked for. If it
/// did not, the pair is destroyed.
pub(super) fn generate(
    pkcs11: &Pkcs11,
    slot: Slot,
    session: &Session,
    request: &Request<'_>,
) -> Attempt<Found> {
    let (mechanism, parameters) = request.generation()?;
    if !pkcs11.get_mechanism_list(slot)?.contains(&mechanism.mechanism_type()) {
        return Err(request.unsupported(format!("the token makes no {} keys", request.algorithm)).into());
    }
    let named = [
        Attribute::Token(true),
        Attribute::Label(request.label.as_bytes().to_vec()),
        Attribute::Id(request.id.to_vec()),
    ];
    let mut public = vec![Attribute::Private(false), Attribute::Verify(true)];
    public.extend(named.clone());
    public.extend(parameters);
    let mut private = vec![
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    private.extend(named);
    if request.always_authenticate {
        private.push(Attribute::AlwaysAuthenticate(true));
    }
    let (public, private) = session.generate_key_pair(&mechanism, &public, &private)?;
    let checked = private_key(session, private).and_then(|found| {
        let found = found?;
        let broken = if found.algorithm != request.algorithm {
            Some("it is of another type")
        } else if found.always_authenticate != request.always_authenticate {
            Some("CKA_ALWAYS_AUTHENTICATE is not what was asked for")
        } else {
            found.doubt
        };
        match broken {
            None => Ok(found),
            Some(why) => {
                Err(request.unsupported(format!("the token made another key than asked: {why}")).into())
            }
        }
    });
    if checked.is_err() {
        for handle in [private, public] {
            // The first error is the one to tell.
            let _ = session.destroy_object(handle);
        }
    }
    checked
}

/// What key to generate, and for whom, to say so when it cannot be.
pub(super) struct Request<'a> {
    pub(super) uri: &'a str,
    pub(super) label: &'a str,
    pub(super) id: &'a [u8],
    pub(super) algorithm: Algorithm,
    pub(super) always_authenticate: bool,
}

impl Request<'_> {
    fn unsupported(&self, reason: String) -> Error {
        Error::Unsupported { key: self.uri.to_owned(), operation: "create".into(), reason }
    }

    fn generation(&self) -> Result<(Mechanism<'static>, Vec<Attribute>), Error> {
        let curve = |mechanism: Mechanism<'static>, oid: ObjectIdentifier| {
            let parameters = oid.to_der().map_err(|e| self.unsupported(e.to_string()))?;
            Ok((mechanism, vec![Attribute::EcParams(parameters)]))
        };
        match self.algorithm {
            Algorithm::P256 => curve(Mechanism::EccKeyPairGen, SECP256R1),
            Algorithm::P384 => curve(Mechanism::EccKeyPairGen, SECP384R1),
            Algorithm::Ed25519 => curve(Mechanism::EccEdwardsKeyPairGen, ID_ED25519),
            Algorithm::Rsa => {
                let exponent = Attribute::PublicExponent(vec![1, 0, 1]);
                let parameters = vec![Attribute::ModulusBits(2048.into()), exponent];
                Ok((Mechanism::RsaPkcsKeyPairGen, parameters))
            }
        }
    }
}

/// A private key, or why its public key is not known.
fn private_key(session: &Session, handle: ObjectHandle) -> Attempt<Result<Found, Error>> {
    let values = Values::read(session, handle)?;
    let mut spki = values.spki();
    if spki.is_none() {
        for public in companions(session, &values.id, &values.label, ObjectClass::PUBLIC_KEY)? {
            spki = spki.or(public_spki(session, public)?);
        }
    }
    if spki.is_none() {
        for handle in companions(session, &values.id, &values.label, ObjectClass::CERTIFICATE)? {
            spki = spki.or(certificate::read(session, handle)?.map(|certificate| certificate.spki));
        }
    }
    let unknown = || Error::PublicKey {
        reason: format!(
            "the private key with CKA_ID {} and label `{}` has neither a public key of a supported type nor \
             a certificate beside it",
            hex(&values.id),
            String::from_utf8_lossy(&values.label)
        ),
    };
    Ok(spki.ok_or_else(unknown).and_then(|spki| values.found(handle, spki)))
}

fn companions(session: &Session, id: &[u8], label: &[u8], class: ObjectClass) -> Attempt<Vec<ObjectHandle>> {
    let shared = match (id, label) {
        ([], []) => return Ok(Vec::new()),
        ([], label) => Attribute::Label(label.to_vec()),
        (id, _) => Attribute::Id(id.to_vec()),
    };
    Ok(session.find_objects(&[Attribute::Class(class), Attribute::Token(true), shared])?)
}

impl Values {
    fn read(session: &Session, handle: ObjectHandle) -> Attempt<Self> {
        use AttributeType as T;
        const WANTED: [AttributeType; 14] = [
            T::KeyType,
            T::Label,
            T::Id,
            T::EcParams,
            T::EcPoint,
            T::Modulus,
            T::PublicExponent,
            T::PublicKeyInfo,
            T::AlwaysAuthenticate,
            T::Sensitive,
            T::AlwaysSensitive,
            T::Extractable,
            T::NeverExtractable,
            T::Local,
        ];
        let mut values = Self::default();
        for attribute in session.get_attributes(handle, &WANTED)? {
            match attribute {
                Attribute::KeyType(value) => values.key_type = Some(value),
                Attribute::Label(value) => values.label = value,
                Attribute::Id(value) => values.id = value,
                Attribute::EcParams(value) => values.ec_params = Some(value),
                Attribute::EcPoint(value) => values.ec_point = Some(value),
                Attribute::Modulus(value) => values.modulus = Some(value),
                Attribute::PublicExponent(value) => values.exponent = Some(value),
                Attribute::PublicKeyInfo(value) => values.public_key_info = Some(value),
                Attribute::AlwaysAuthenticate(value) => values.always_authenticate = value,
                Attribute::Sensitive(value) => values.sensitive = value,
                Attribute::AlwaysSensitive(value) => values.always_sensitive = value,
                Attribute::Extractable(value) => values.extractable = value,
                Attribute::NeverExtractable(value) => values.never_extractable = value,
                Attribute::Local(value) => values.local = value,
                _ => {}
            }
        }
        Ok(values)
    }

    /// The SubjectPublicKeyInfo, if the object holds a public key that we know.
    fn spki(&self) -> Option<Vec<u8>> {
        if let Some(spki) = self.public_key_info.as_ref().filter(|spki| Algorithm::of_spki(spki).is_ok()) {
            return Some(spki.clone());
        }
        match self.key_type? {
            KeyType::RSA => rsa_spki(self.modulus.as_ref()?, self.exponent.as_ref()?).ok(),
            KeyType::EC => {
                let algorithm = match ObjectIdentifier::from_der(self.ec_params.as_ref()?).ok()? {
                    SECP256R1 => Algorithm::P256,
                    SECP384R1 => Algorithm::P384,
                    _ => return None,
                };
                self.either_point(|point| ec_spki(algorithm, point).ok())
            }
            KeyType::EC_EDWARDS => self.either_point(|point| ed25519_spki(point).ok()),
            _ => None,
        }
    }

    /// PKCS#11 wants CKA_EC_POINT in an OCTET STRING; some modules leave that out. The size tells:
    /// a bare point may by chance look like an OCTET STRING, but is never as long as a wrapped one.
    fn either_point(&self, spki: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let point = self.ec_point.as_ref()?;
        spki(point).or_else(|| spki(<&OctetStringRef>::from_der(point).ok()?.as_bytes()))
    }

    fn found(&self, handle: ObjectHandle, spki: Vec<u8>) -> Result<Found, Error> {
        Ok(Found {
            handle,
            label: String::from_utf8(self.label.clone()).unwrap_or_default(),
            id: self.id.clone(),
            algorithm: Algorithm::of_spki(&spki)?,
            spki,
            always_authenticate: self.always_authenticate,
            doubt: self.doubt(),
        })
    }

    fn doubt(&self) -> Option<&'static str> {
        if self.extractable {
            Some("CKA_EXTRACTABLE is set")
        } else if !self.sensitive {
            Some("CKA_SENSITIVE is not set")
        } else if !self.local {
            Some("CKA_LOCAL is not set: it was made elsewhere")
        } else if !self.never_extractable {
            Some("CKA_NEVER_EXTRACTABLE is not set")
        } else if !self.always_sensitive {
            Some("CKA_ALWAYS_SENSITIVE is not set")
        } else {
            None
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ec(point: Vec<u8>) -> Values {
        let ec_params = Some(SECP256R1.to_der().unwrap());
        Values { key_type: Some(KeyType::EC), ec_params, ec_point: Some(point), ..Values::default() }
    }

    #[test]
    fn points_are_read_bare_and_wrapped() {
        // 0x3f: the bare point looks like an OCTET STRING of the 63 bytes that follow.
        for first in [0x00, 0x3f, 0xff] {
            let bare = [&[4, first][..], &[7; 63]].concat();
            let wrapped = [&[4, 65][..], &bare].concat();
            let expected = ec_spki(Algorithm::P256, &bare).unwrap();
            assert_eq!(ec(bare).spki(), Some(expected.clone()));
            assert_eq!(ec(wrapped).spki(), Some(expected));
        }
        for bad in [vec![], vec![4; 64], vec![4; 66], vec![4, 65]] {
            assert_eq!(ec(bad).spki(), None);
        }
    }

    #[test]
    fn any_sign_of_a_copy_is_a_doubt() {
        let good = || Values {
            sensitive: true,
            always_sensitive: true,
            never_extractable: true,
            local: true,
            ..Values::default()
        };
        assert_eq!(good().doubt(), None);
        for bad in [
            Values { extractable: true, ..good() },
            Values { sensitive: false, ..good() },
            Values { always_sensitive: false, ..good() },
            Values { never_extractable: false, ..good() },
            Values { local: false, ..good() },
            Values::default(),
        ] {
            assert!(bad.doubt().is_some());
        }
    }
}
