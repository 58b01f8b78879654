//! Certificates beside keys on a token.

use cryptoki::object::{Attribute, AttributeType, CertificateType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::failure::Attempt;
use super::object::{Found, beside};
use crate::certificate::Certificate;

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
