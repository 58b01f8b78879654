//! Certificates (RFC 5280 §4.1) as they are looked at.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_AD_OCSP};
use der::{Decode, Encode};
use enclasp_keystore::Algorithm;
use rustls_pki_types::CertificateDer;
use x509_cert::ext::pkix;
use x509_cert::ext::pkix::name::GeneralName;

use crate::encoding::{Signed, hex, in_field, malformed, sequence};
use crate::public_key::algorithm_of;
use crate::signing::check;
use crate::{
    DistinguishedName, Error, KeyPurpose, NameConstraints, Purpose, Result, SubjectAltName, pem, rfc3339,
};

const WHAT: &str = "certificate";
const PEM_LABEL: &str = "CERTIFICATE";

/// A parsed certificate and its DER. Cheap to clone; equal if the DER is.
///
/// Parsing says nothing about trust: that is [`verify_chain`](crate::verify_chain)'s to say.
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    der: CertificateDer<'static>,
    subject: DistinguishedName,
    issuer: DistinguishedName,
    serial: String,
    serial_der: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
    spki: Vec<u8>,
    sans: Vec<SubjectAltName>,
    /// `None` if there is no such extension, which allows everything.
    extended_key_usages: Option<Vec<ObjectIdentifier>>,
    is_ca: bool,
    path_length: Option<u8>,
    /// `None` if there is no such extension, which allows everything.
    key_usage: Option<pkix::KeyUsage>,
    name_constraints: Option<NameConstraints>,
    subject_key_identifier: Option<Vec<u8>>,
    fingerprint: [u8; 32],
}

/// Reads PEM (any number of certificates, text and other blocks around them) or the DER of one.
///
/// # Errors
/// [`Error::Malformed`] if there is none, or one is not a certificate.
pub fn certificates_from(bytes: &[u8]) -> Result<Vec<Certificate>> {
    let Some(text) = pem::text_of(bytes) else {
        return Ok(vec![Certificate::from_der(bytes)?]);
    };
    let blocks = pem::decode_all(&text)?;
    let certificates = blocks.iter().filter(|block| block.label == PEM_LABEL);
    let certificates =
        certificates.map(|block| Certificate::from_der(&block.der)).collect::<Result<Vec<_>>>()?;
    if certificates.is_empty() {
        let found = pem::labels(&blocks);
        return Err(malformed(WHAT, format!("the PEM text has {found} instead of {PEM_LABEL}")));
    }
    Ok(certificates)
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// [`Error::Malformed`] says what is wrong.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        sequence(WHAT, der)?;
        let parsed = in_field(WHAT, "the whole", x509_cert::Certificate::from_der(der))?;
        let tbs = parsed.tbs_certificate();
        let constraints = in_field(WHAT, "basicConstraints", tbs.get_extension::<pkix::BasicConstraints>())?;
        let usages = in_field(WHAT, "extKeyUsage", tbs.get_extension::<pkix::ExtendedKeyUsage>())?;
        let names = in_field(WHAT, "subjectAltName", tbs.get_extension::<pkix::SubjectAltName>())?;
        let key_usage = in_field(WHAT, "keyUsage", tbs.get_extension::<pkix::KeyUsage>())?;
        let constrained = in_field(WHAT, "nameConstraints", tbs.get_extension::<pkix::NameConstraints>())?;
        let name_constraints =
            constrained.map(|(_, extension)| NameConstraints::from_extension(&extension)).transpose()?;
        let key_identifier =
            in_field(WHAT, "subjectKeyIdentifier", tbs.get_extension::<pkix::SubjectKeyIdentifier>())?;
        let mut sans = Vec::new();
        for name in names.iter().flat_map(|(_, names)| names.0.iter()) {
            sans.extend(SubjectAltName::from_general_name(WHAT, name)?);
        }
        let spki = in_field(WHAT, "subjectPublicKeyInfo", tbs.subject_public_key_info().to_der())?;
        Ok(Self(Arc::new(Parsed {
            der: CertificateDer::from(der.to_vec()),
            subject: DistinguishedName::from_name(tbs.subject().clone()),
            issuer: DistinguishedName::from_name(tbs.issuer().clone()),
            serial: serial_text(tbs.serial_number().as_bytes()),
            serial_der: in_field(WHAT, "serialNumber", tbs.serial_number().to_der())?,
            not_before: tbs.validity().not_before.to_system_time(),
            not_after: tbs.validity().not_after.to_system_time(),
            spki,
            sans,
            extended_key_usages: usages.map(|(_, usages)| usages.0),
            is_ca: constraints.as_ref().is_some_and(|(_, constraints)| constraints.ca),
            path_length: constraints.and_then(|(_, constraints)| constraints.path_len_constraint),
            key_usage: key_usage.map(|(_, usage)| usage),
            name_constraints,
            subject_key_identifier: key_identifier.map(|(_, id)| id.0.as_bytes().to_vec()),
            fingerprint: sha256(der),
        })))
    }

    /// The bytes that were read.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// The certificate as PEM.
    pub fn to_pem(&self) -> String {
        pem::encode(PEM_LABEL, &self.0.der)
    }

    /// Whom it is about; it may be empty if there are alternative names.
    pub fn subject(&self) -> &DistinguishedName {
        &self.0.subject
    }

    /// Who signed it.
    pub fn issuer(&self) -> &DistinguishedName {
        &self.0.issuer
    }

    /// Its serial number in lower-case hexadecimal, without leading zero bytes.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// Its serial number as a DER INTEGER.
    pub fn serial_der(&self) -> &[u8] {
        &self.0.serial_der
    }

    /// The first second of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The last second of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.0.spki
    }

    /// The type of its key, if it is one that we work with.
    ///
    /// # Errors
    /// As [`algorithm_of`].
    pub fn algorithm(&self) -> Result<Algorithm> {
        algorithm_of(&self.0.spki)
    }

    /// Its alternative names of the kinds that [`SubjectAltName`] has, in their order.
    pub fn subject_alt_names(&self) -> &[SubjectAltName] {
        &self.0.sans
    }

    /// The names of its extended key usages (`clientAuth`), or their OIDs where they have no name.
    /// Empty if it has no such extension.
    pub fn extended_key_usages(&self) -> Vec<String> {
        self.0.extended_key_usages.iter().flatten().map(|oid| KeyPurpose(*oid).to_string()).collect()
    }

    /// Whether its extended key usages allow `purpose`; without that extension, everything is
    /// allowed (RFC 5280 §4.2.1.12).
    pub fn is_for(&self, purpose: Purpose) -> bool {
        self.0
            .extended_key_usages
            .as_ref()
            .is_none_or(|usages| usages.contains(&purpose.oid()) || usages.contains(&ANY_EXTENDED_KEY_USAGE))
    }

    /// Whether it may sign certificates (basicConstraints).
    pub fn is_ca(&self) -> bool {
        self.0.is_ca
    }

    /// Whether it names itself as its issuer, as roots do.
    pub fn is_self_issued(&self) -> bool {
        self.0.subject == self.0.issuer
    }

    /// The URLs of the OCSP responders that answer for it (authorityInfoAccess, RFC 5280 §4.2.2.1).
    pub fn ocsp_urls(&self) -> Vec<String> {
        let parsed = x509_cert::Certificate::from_der(&self.0.der).ok();
        let access = parsed.and_then(|certificate| {
            certificate.tbs_certificate().get_extension::<pkix::AuthorityInfoAccessSyntax>().ok()?
        });
        let places = access.into_iter().flat_map(|(_, access)| access.0);
        let urls = places.filter_map(|place| match (place.access_method, place.access_location) {
            (ID_AD_OCSP, GeneralName::UniformResourceIdentifier(url)) => Some(url.to_string()),
            _ => None,
        });
        urls.collect()
    }

    /// Checks that `issuer` is named as its issuer, and signed it. Validity, purpose and whether
    /// the issuer is a CA are not looked at.
    ///
    /// # Errors
    /// [`Error::Signature`] if not; [`Error::Weak`] or [`Error::Unsupported`] for the issuer's key
    /// or the signature algorithm.
    pub fn verify_signed_by(&self, issuer: &Self) -> Result<()> {
        if self.0.issuer != issuer.0.subject {
            let reason = format!("its issuer is {}, not {}", self.0.issuer, issuer.0.subject);
            return Err(Error::Signature { what: WHAT, reason });
        }
        check(WHAT, &Signed::from_der(WHAT, &self.0.der)?, &issuer.0.spki)
    }

    /// SHA-256 of the DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    /// The fingerprint in lower-case hexadecimal.
    pub fn fingerprint_hex(&self) -> String {
        hex(&self.0.fingerprint)
    }

    /// What a person calls it: its subject, else its first alternative name, else its serial number.
    pub fn name(&self) -> String {
        if !self.0.subject.is_empty() {
            self.0.subject.to_string()
        } else if let Some(san) = self.0.sans.first() {
            san.to_string()
        } else {
            format!("certificate {}", self.0.serial)
        }
    }

    /// One line for people: names, issuer, purpose, validity, serial number.
    pub fn describe(&self) -> String {
        let mut text = self.name();
        let shown = 4;
        for san in self.0.sans.iter().take(shown) {
            text.push_str(&format!(", {san}"));
        }
        if self.0.sans.len() > shown {
            text.push_str(&format!(", {} more names", self.0.sans.len() - shown));
        }
        let issuer = if self.is_self_issued() { "itself".into() } else { self.0.issuer.to_string() };
        text.push_str(&format!("; issued by {issuer}"));
        if self.0.is_ca {
            text.push_str("; a CA");
        }
        if self.0.extended_key_usages.is_some() {
            text.push_str(&format!("; for {}", self.extended_key_usages().join(", ")));
        }
        let (from, to) = (rfc3339(self.0.not_before), rfc3339(self.0.not_after));
        text.push_str(&format!("; valid {from} to {to}; serial {}", self.0.serial));
        text
    }

    /// Whether its key usage lets it sign certificates and CRLs (RFC 5280 §4.2.1.3); without that extension,
    /// everything is allowed.
    pub fn may_sign_certificates_and_crls(&self) -> bool {
        self.0.key_usage.as_ref().is_none_or(|usage| usage.key_cert_sign() && usage.crl_sign())
    }

    /// How many CAs may follow below it, if that is limited.
    pub fn path_length(&self) -> Option<u8> {
        self.0.path_length
    }

    /// Which names it may certify, if it is a CA and that is limited.
    pub fn name_constraints(&self) -> Option<&NameConstraints> {
        self.0.name_constraints.as_ref()
    }

    pub(crate) fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.0.subject_key_identifier.as_deref()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.describe())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl Hash for Certificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.fingerprint.hash(state);
    }
}

impl TryFrom<&CertificateDer<'_>> for Certificate {
    type Error = Error;

    fn try_from(der: &CertificateDer<'_>) -> Result<Self> {
        Self::from_der(der)
    }
}

/// The SHA-256 digest of `bytes`: fingerprints of certificates, pins of public keys.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    output
}

fn serial_text(integer: &[u8]) -> String {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    hex(integer.get(zeros.min(integer.len().saturating_sub(1))..).unwrap_or_default())
}
