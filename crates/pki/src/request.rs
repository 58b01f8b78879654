//! Certification requests (PKCS #10, RFC 2986): made for a key of ours, and read from outside.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use const_oid::db::rfc5912::ID_EXTENSION_REQ;
use der::asn1::{BitString, SetOfVec};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber};
use enclasp_keystore::{Algorithm, Key, SignContext};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::ext::{Extension, ToExtension, pkix};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};

use crate::encoding::{Signed, encoded, finish, in_field, malformed, nested};
use crate::public_key::algorithm_of;
use crate::signing::{algorithm_identifier, check, scheme_for, sign};
use crate::{DistinguishedName, Result, SubjectAltName, pem, san};

const WHAT: &str = "certification request";

/// A request longer than this, in whatever encoding, is refused unread. 64 KiB of names fit easily.
const MAX_LENGTH: usize = 1 << 20;

/// What PEM calls a request: RFC 7468 §7, and an older name that some tools still write.
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// The attribute challengePassword (RFC 2985 §5.4.1).
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");

/// Asks for a certificate for `key`: a DER CertificationRequest with these names, signed by the key
/// with the natural scheme of its type. The signature has been verified.
///
/// # Errors
/// [`Name`](crate::Error::Name) if one of `sans` breaks the rules of its kind;
/// [`Key`](crate::Error::Key) if the key refuses, or signs wrongly.
pub fn create_csr(
    key: &dyn Key,
    subject: &DistinguishedName,
    sans: &[SubjectAltName],
    ctx: &SignContext,
) -> Result<Vec<u8>> {
    let mut attributes = Attributes::new();
    if !sans.is_empty() {
        let extensions = ExtensionReq(vec![san_extension(subject, sans)?]);
        let requested = encoded(WHAT, Attribute::try_from(extensions))?;
        attributes = encoded(WHAT, SetOfVec::try_from(vec![requested]))?;
    }
    let info = CertReqInfo {
        version: Version::V1,
        subject: subject.as_name().clone(),
        public_key: in_field(WHAT, "the key", SubjectPublicKeyInfoOwned::from_der(&key.info().spki))?,
        attributes,
    };
    let scheme = scheme_for(key)?;
    let signature = sign(key, scheme, &encoded(WHAT, info.to_der())?, ctx)?;
    let request = CertReq {
        info,
        algorithm: algorithm_identifier(scheme)?,
        signature: encoded(WHAT, BitString::from_bytes(&signature))?,
    };
    encoded(WHAT, request.to_der())
}

/// The value of an extensionRequest attribute (RFC 2985 §5.4.2) that asks for these names: DER Extensions.
///
/// # Errors
/// [`Name`](crate::Error::Name) if one of `sans` breaks the rules of its kind.
pub fn extension_request(subject: &DistinguishedName, sans: &[SubjectAltName]) -> Result<Vec<u8>> {
    encoded(WHAT, vec![san_extension(subject, sans)?].to_der())
}

fn san_extension(subject: &DistinguishedName, sans: &[SubjectAltName]) -> Result<Extension> {
    let names = san::extension(sans)?;
    encoded(WHAT, (&names).to_extension(subject.as_name(), &[]))
}

/// A request from outside, whose shape and names are in order. Whether its key is one that may be
/// certified, and whether its sender has that key, [`verify`](Self::verify) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificationRequest {
    der: Vec<u8>,
    subject: DistinguishedName,
    sans: Vec<SubjectAltName>,
    spki: Vec<u8>,
    has_challenge_password: bool,
}

impl CertificationRequest {
    /// Reads PEM, with any text around its one request, or DER.
    ///
    /// # Errors
    /// As [`from_der`](Self::from_der).
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self> {
        check_length(bytes)?;
        let Some(text) = pem::text_of(bytes) else {
            return Self::from_der(bytes);
        };
        let blocks = pem::decode_all(&text)?;
        let mut requests = blocks.iter().filter(|block| LABELS.contains(&block.label.as_str()));
        match (requests.next(), requests.next()) {
            (Some(request), None) => Self::from_der(&request.der),
            (Some(_), Some(_)) => Err(malformed(WHAT, "the PEM text has more than one")),
            (None, _) => {
                let found = pem::labels(&blocks);
                Err(malformed(WHAT, format!("the PEM text has {found} instead of {}", LABELS[0])))
            }
        }
    }

    /// Reads DER.
    ///
    /// # Errors
    /// [`Malformed`](crate::Error::Malformed) says which field is wrong; [`Name`](crate::Error::Name)
    /// names a subject alternative name that breaks the rules of its kind, or is of a kind that we
    /// do not issue.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        check_length(der)?;
        let signed = Signed::from_der(WHAT, der)?;
        let mut content = in_field(WHAT, "certificationRequestInfo", SliceReader::new(signed.content))?;
        let mut info = nested(WHAT, "certificationRequestInfo", Tag::Sequence, &mut content)?;
        let version = in_field(WHAT, "version", u8::decode(&mut info))?;
        if version != 0 {
            return Err(malformed(WHAT, format!("version: it is {version}, and PKCS #10 has only 0")));
        }
        let subject = in_field(WHAT, "subject", Name::decode(&mut info))?;
        let spki = in_field(WHAT, "subjectPKInfo", info.tlv_bytes())?;
        in_field(WHAT, "subjectPKInfo", spki::SubjectPublicKeyInfoRef::from_der(spki))?;
        if info.is_finished() {
            return Err(malformed(WHAT, "attributes: missing (without any, the field is A0 00)"));
        }
        const ATTRIBUTES: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
        let attributes = nested(WHAT, "attributes", ATTRIBUTES, &mut info)?;
        finish(WHAT, "attributes", info)?;
        let (sans, has_challenge_password) = requested(attributes)?;
        Ok(Self {
            der: der.to_vec(),
            subject: DistinguishedName::from_name(subject),
            sans,
            spki: spki.to_vec(),
            has_challenge_password,
        })
    }

    /// The bytes that were read, as DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The name that is asked for; it may be empty.
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// The subject alternative names that are asked for, in their order, DNS names in lower case.
    /// Other requested extensions are passed over: an issuer's profile decides about those.
    pub fn subject_alt_names(&self) -> &[SubjectAltName] {
        &self.sans
    }

    /// DER SubjectPublicKeyInfo of the key that is to be certified.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether it has a challengePassword (RFC 2985 §5.4.1), by which some protocols know its sender.
    /// Nothing here verifies one.
    pub fn has_challenge_password(&self) -> bool {
        self.has_challenge_password
    }

    /// The type of that key, if it may be certified.
    ///
    /// # Errors
    /// As [`algorithm_of`].
    pub fn algorithm(&self) -> Result<Algorithm> {
        algorithm_of(&self.spki)
    }

    /// Checks that the request was signed by the key that it asks for, with SHA-256 or better.
    ///
    /// # Errors
    /// [`Signature`](crate::Error::Signature) if it was not; [`Weak`](crate::Error::Weak) or
    /// [`Unsupported`](crate::Error::Unsupported) for its key or its signature algorithm.
    pub fn verify(&self) -> Result<()> {
        check(WHAT, &Signed::from_der(WHAT, &self.der)?, &self.spki)
    }
}

fn check_length(bytes: &[u8]) -> Result<()> {
    if bytes.len() <= MAX_LENGTH {
        Ok(())
    } else {
        Err(malformed(WHAT, format!("it has {} bytes, more than {MAX_LENGTH}", bytes.len())))
    }
}

/// The names of the extensionRequest attribute (RFC 2985 §5.4.2), and whether there is a
/// challengePassword.
fn requested(mut attributes: SliceReader<'_>) -> Result<(Vec<SubjectAltName>, bool)> {
    let (mut extensions, mut has_challenge_password) = (None::<Vec<Extension>>, false);
    while !attributes.is_finished() {
        let attribute = in_field(WHAT, "attributes", Attribute::decode(&mut attributes))?;
        has_challenge_password |= attribute.oid == CHALLENGE_PASSWORD;
        if attribute.oid != ID_EXTENSION_REQ {
            continue;
        }
        let [value] = attribute.values.as_slice() else {
            return Err(malformed(WHAT, "extensionRequest: it has not exactly one value"));
        };
        let decoded = in_field(WHAT, "extensionRequest", value.decode_as())?;
        if extensions.replace(decoded).is_some() {
            return Err(malformed(WHAT, "extensionRequest: it is there twice"));
        }
    }
    let extensions = extensions.unwrap_or_default();
    let Some(names) = one_extension(&extensions, ID_CE_SUBJECT_ALT_NAME)? else {
        return Ok((Vec::new(), has_challenge_password));
    };
    let names = in_field(WHAT, "subjectAltName", pkix::SubjectAltName::from_der(names))?;
    let names = names.0.iter().map(|name| {
        let san = SubjectAltName::from_general_name(WHAT, name)?.ok_or_else(|| san::not_issued(name))?;
        san.check().map(|()| san)
    });
    Ok((names.collect::<Result<_>>()?, has_challenge_password))
}

fn one_extension(extensions: &[Extension], oid: ObjectIdentifier) -> Result<Option<&[u8]>> {
    let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(malformed(WHAT, "subjectAltName: it is there twice")),
        (first, _) => Ok(first.map(|extension| extension.extn_value.as_bytes())),
    }
}
