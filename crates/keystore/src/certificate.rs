//! Certificates as keystores keep them beside keys.

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Encode, SliceReader, Tag, Tagged};

use crate::{Error, Result};

/// What a keystore wants to know of an X.509 certificate (RFC 5280 §4.1), each in DER.
#[cfg_attr(not(feature = "pkcs11"), allow(dead_code, reason = "only tokens want all of it"))]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    /// Seconds since 1970 at which its validity begins.
    pub(crate) not_before: u64,
}

impl Certificate {
    pub(crate) fn parse(der: &[u8]) -> Result<Self> {
        parse(der).map_err(|e| Error::PublicKey { reason: format!("not an X.509 certificate: {e}") })
    }
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
