//! Certificates beside keys on a token.

use cryptoki::object::{Attribute, AttributeType, CertificateType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Encode, SliceReader, Tag, Tagged};

use super::failure::Attempt;
use super::object::{Found, beside};
use crate::{Error, Result};

/// What a token wants to know of an X.509 certificate (RFC 5280 §4.1), each in DER.
pub(super) struct Certificate {
    der: Vec<u8>,
    serial: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    pub(super) spki: Vec<u8>,
    /// Seconds since 1970 at which its validity begins.
    not_before: u64,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Result<Self> {
        parse(der).map_err(|e| Error::PublicKey { reason: format!("not an X.509 certificate: {e}") })
    }
}

/// The certificate in an object; `None` if it holds something else.
pub(super) fn read(session: &Session, handle: ObjectHandle) -> Attempt<Option<Certificate>> {
    let attributes = session.get_attributes(handle, &[AttributeType::Value])?;
    Ok(attributes.iter().find_map(|attribute| match attribute {
        Attribute::Value(der) => Certificate::parse(der).ok(),
        _ => None,
    }))
}

/// The DER certificate of the key; the newest, should there be several.
pub(super) fn find(session: &Session, key: &Found) -> Attempt<Option<Vec<u8>>> {
    let certificates = of_key(session, key)?;
    Ok(certificates
        .into_iter()
        .map(|(_, found)| found)
        .max_by_key(|found| found.not_before)
        .map(|found| found.der))
}

/// Writes the certificate beside the key, and then destroys those that were there: who reads
/// meanwhile finds one of them.
pub(super) fn replace(session: &Session, key: &Found, certificate: &Certificate) -> Attempt<()> {
    let old = of_key(session, key)?;
    if old.iter().any(|(_, old)| old.der == certificate.der) {
        return Ok(());
    }
    session.create_object(&[
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(key.label.as_bytes().to_vec()),
        Attribute::Id(key.id.clone()),
        Attribute::Subject(certificate.subject.clone()),
        Attribute::Issuer(certificate.issuer.clone()),
        Attribute::SerialNumber(certificate.serial.clone()),
        Attribute::Value(certificate.der.clone()),
    ])?;
    for (handle, _) in old {
        session.destroy_object(handle)?;
    }
    Ok(())
}

/// The certificates beside the key that carry its public key.
pub(super) fn of_key(session: &Session, key: &Found) -> Attempt<Vec<(ObjectHandle, Certificate)>> {
    let mut certificates = Vec::new();
    for handle in beside(session, key, ObjectClass::CERTIFICATE)? {
        let found = read(session, handle)?.filter(|found| found.spki == key.spki);
        certificates.extend(found.map(|found| (handle, found)));
    }
    Ok(certificates)
}

fn parse(der: &[u8]) -> der::Result<Certificate> {
    let certificate = AnyRef::from_der(der)?;
    certificate.tag().assert_eq(Tag::Sequence)?;
    let mut parts = SliceReader::new(certificate.value())?;
    let to_be_signed = AnyRef::decode(&mut parts)?;
    to_be_signed.tag().assert_eq(Tag::Sequence)?;
    let mut fields = SliceReader::new(to_be_signed.value())?;
    let mut serial = AnyRef::decode(&mut fields)?;
    if serial.tag().is_context_specific() {
        // That was the version.
        serial = AnyRef::decode(&mut fields)?;
    }
    serial.tag().assert_eq(Tag::Integer)?;
    let [_signature, issuer, validity, subject, spki] = {
        let mut next = || AnyRef::decode(&mut fields);
        [next()?, next()?, next()?, next()?, next()?]
    };
    Ok(Certificate {
        der: der.to_vec(),
        serial: serial.to_der()?,
        issuer: issuer.to_der()?,
        subject: subject.to_der()?,
        spki: spki.to_der()?,
        not_before: not_before(validity)?,
    })
}

fn not_before(validity: AnyRef<'_>) -> der::Result<u64> {
    let mut times = SliceReader::new(validity.value())?;
    Ok(match Tag::peek(&times)? {
        Tag::UtcTime => UtcTime::decode(&mut times)?.to_unix_duration(),
        _ => GeneralizedTime::decode(&mut times)?.to_unix_duration(),
    }
    .as_secs())
}
