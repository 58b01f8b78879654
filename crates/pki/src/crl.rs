//! Certificate revocation lists (RFC 5280 §5): made for an issuer of ours.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use const_oid::{AssociatedOid, ObjectIdentifier};
use der::asn1::{BitString, Ia5String, OctetString, Uint};
use der::{Decode, Encode};
use enclasp_keystore::SignContext;
use serde::{Deserialize, Serialize};
use x509_cert::Version;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{CrlNumber, CrlReason};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use crate::encoding::{encoded, hex, in_field, malformed, sequence, unhex};
use crate::signing::{algorithm_identifier, scheme_for, sign};
use crate::{DistinguishedName, Error, Issuer, Result, pem};

const WHAT: &str = "CRL";
const PEM_LABEL: &str = "X509 CRL";

/// id-ce-issuingDistributionPoint (RFC 5280 §5.2.5). The library's type has another one.
const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");

/// Why a certificate is not good any more (RFC 5280 §5.3.1). Its text is the standard's:
/// `keyCompromise`. On hold is not among them: what is revoked stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RevocationReason {
    /// Nothing is said.
    Unspecified,
    /// Somebody else may have the private key.
    KeyCompromise,
    /// A name in it has changed.
    AffiliationChanged,
    /// Another certificate takes its place.
    Superseded,
    /// What it was for is no more.
    CessationOfOperation,
    /// Its holder may not do any more what it says.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// Its number in the standard.
    pub fn code(self) -> u8 {
        self.wire() as u8
    }

    /// The reason of that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    pub(crate) fn wire(self) -> CrlReason {
        match self {
            Self::Unspecified => CrlReason::Unspecified,
            Self::KeyCompromise => CrlReason::KeyCompromise,
            Self::AffiliationChanged => CrlReason::AffiliationChanged,
            Self::Superseded => CrlReason::Superseded,
            Self::CessationOfOperation => CrlReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => CrlReason::PrivilegeWithdrawn,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RevocationReason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let reason = Self::ALL.into_iter().find(|reason| reason.name().eq_ignore_ascii_case(text));
        reason.ok_or_else(|| Error::Name {
            what: "reason of revocation",
            text: text.to_owned(),
            reason: format!("there are {}", Self::ALL.map(Self::name).join(", ")),
            hint: None,
        })
    }
}

impl TryFrom<String> for RevocationReason {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RevocationReason> for String {
    fn from(reason: RevocationReason) -> Self {
        reason.to_string()
    }
}

/// A certificate that is on a CRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, as [`Certificate::serial`](crate::Certificate::serial) has it.
    pub serial: String,
    /// When it was revoked; CRLs hold whole seconds.
    pub at: SystemTime,
    /// Why.
    pub reason: RevocationReason,
}

/// A complete CRL to be signed: all that the issuer has revoked, or all of those whose certificates
/// name the same distribution point.
#[derive(Clone, Copy, Debug)]
pub struct CrlContents<'a> {
    /// Greater than that of every CRL before it.
    pub number: u64,
    /// When it is signed.
    pub this_update: SystemTime,
    /// By when its successor is there.
    pub next_update: SystemTime,
    /// The URL in the certificates that it is for, if it is not for all of the issuer's. It stands in
    /// a critical issuingDistributionPoint.
    pub distribution_point: Option<&'a str>,
    /// In any order.
    pub revoked: &'a [Revoked],
}

impl Issuer<'_> {
    /// Signs a CRL. Returns its DER.
    ///
    /// # Errors
    /// [`Error::Encoding`] for a time beyond the year 9999 or a serial number that is none;
    /// [`Error::Key`] if the key refuses, or signs wrongly.
    pub fn sign_crl(&self, contents: &CrlContents<'_>, ctx: &SignContext) -> Result<Vec<u8>> {
        let key = self.key();
        let scheme = scheme_for(key)?;
        let signature = algorithm_identifier(scheme)?;
        let issuer = self.certificate().subject().as_name();
        let mut extensions = vec![
            encoded(WHAT, (&self.authority_key_identifier()?).to_extension(issuer, &[]))?,
            encoded(WHAT, (&encoded(WHAT, CrlNumber::try_from(contents.number))?).to_extension(issuer, &[]))?,
        ];
        if let Some(url) = contents.distribution_point {
            extensions.push(issuing_distribution_point(url)?);
        }
        let revoked = contents.revoked.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let tbs_cert_list = TbsCertList::<Rfc5280> {
            version: Version::V2,
            signature: signature.clone(),
            issuer: issuer.clone(),
            this_update: time(contents.this_update)?,
            next_update: Some(time(contents.next_update)?),
            // An empty list is left out (RFC 5280 §5.1.2.6).
            revoked_certificates: (!revoked.is_empty()).then_some(revoked),
            crl_extensions: Some(extensions),
        };
        let signed = sign(key, scheme, &encoded(WHAT, tbs_cert_list.to_der())?, ctx)?;
        let list = CertificateList {
            tbs_cert_list,
            signature_algorithm: signature,
            signature: encoded(WHAT, BitString::from_bytes(&signed))?,
        };
        encoded(WHAT, list.to_der())
    }
}

/// A CRL in PEM.
///
/// # Errors
/// [`Error::Malformed`] if it is not a CRL in DER.
pub fn crl_to_pem(der: &[u8]) -> Result<String> {
    sequence(WHAT, der)?;
    in_field(WHAT, "the whole", CertificateList::<Rfc5280>::from_der(der))?;
    Ok(pem::encode(PEM_LABEL, der))
}

/// A CRL that somebody published: what it says of itself. What it revokes, webpki looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCrl {
    /// Whose certificates it is about.
    pub issuer: DistinguishedName,
    /// Its CRL number in hexadecimal, without leading zeros, if it has one.
    pub number: Option<String>,
    /// When it was signed.
    pub this_update: SystemTime,
    /// By when there is a newer one, if it says so.
    pub next_update: Option<SystemTime>,
    /// How many certificates it names.
    pub revoked: usize,
}

impl PublishedCrl {
    /// Reads DER. The signature is verified when a certificate is looked up, by its issuer's key.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not one that can be used: a complete CRL of version 2.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        sequence(WHAT, der)?;
        let list = in_field(WHAT, "the whole", CertificateList::<Rfc5280>::from_der(der))?.tbs_cert_list;
        webpki::OwnedCertRevocationList::from_der(der).map_err(|error| {
            malformed(
                WHAT,
                format!("it cannot be used ({error:?}): it has to be a complete one of version 2"),
            )
        })?;
        let number = number(&list);
        Ok(Self {
            number: number.map(|bytes| hex(&bytes).trim_start_matches('0').to_owned()),
            this_update: list.this_update.to_system_time(),
            next_update: list.next_update.map(|time| time.to_system_time()),
            revoked: list.revoked_certificates.map_or(0, |revoked| revoked.len()),
            issuer: DistinguishedName::from_name(list.issuer),
        })
    }
}

/// Puts the newest of `crls`, in DER, first: that of the last `thisUpdate`, and among those of one second
/// that of the highest CRL number. What is no CRL comes last.
pub fn sort_newest_first<T: AsRef<[u8]>>(crls: &mut [T]) {
    crls.sort_by_cached_key(|der| Reverse(age(der.as_ref())));
}

/// What grows from list to list: the time, and the number, whose bytes are without leading zeros.
fn age(der: &[u8]) -> Option<(Duration, usize, Vec<u8>)> {
    let list = CertificateList::<Rfc5280>::from_der(der).ok()?.tbs_cert_list;
    let number = number(&list).unwrap_or_default();
    Some((list.this_update.to_unix_duration(), number.len(), number))
}

/// The bytes of its CRL number, without leading zeros.
fn number(list: &TbsCertList<Rfc5280>) -> Option<Vec<u8>> {
    let mut extensions = list.crl_extensions.iter().flatten();
    let number = extensions.find(|extension| extension.extn_id == CrlNumber::OID)?;
    Uint::from_der(number.extn_value.as_bytes()).ok().map(|number| number.as_bytes().to_vec())
}

fn entry(revoked: &Revoked) -> Result<RevokedCert> {
    let reason = match revoked.reason {
        // It is left out (RFC 5280 §5.3.1).
        RevocationReason::Unspecified => None,
        reason => {
            let none = x509_cert::name::Name::default();
            Some(vec![encoded(WHAT, (&reason.wire()).to_extension(&none, &[]))?])
        }
    };
    Ok(RevokedCert {
        serial_number: serial_number(&revoked.serial)?,
        revocation_date: time(revoked.at)?,
        crl_entry_extensions: reason,
    })
}

/// The INTEGER of a serial number in hexadecimal.
pub(crate) fn serial_number(serial: &str) -> Result<SerialNumber> {
    let bytes = unhex(serial).ok_or_else(|| malformed("serial number", "it is not hexadecimal"))?;
    encoded("serial number", SerialNumber::new(&bytes))
}

fn time(time: SystemTime) -> Result<Time> {
    encoded(WHAT, Time::try_from(time))
}

fn issuing_distribution_point(url: &str) -> Result<Extension> {
    let point = IssuingDistributionPoint {
        distribution_point: Some(full_name(url)?),
        only_contains_user_certs: false,
        only_contains_ca_certs: false,
        only_some_reasons: None,
        indirect_crl: false,
        only_contains_attribute_certs: false,
    };
    let value = encoded(WHAT, OctetString::new(encoded(WHAT, point.to_der())?))?;
    Ok(Extension { extn_id: ISSUING_DISTRIBUTION_POINT, critical: true, extn_value: value })
}

/// A distribution point by its URL.
pub(crate) fn full_name(url: &str) -> Result<DistributionPointName> {
    Ok(DistributionPointName::FullName(vec![uri(url)?]))
}

pub(crate) fn uri(url: &str) -> Result<GeneralName> {
    Ok(GeneralName::UniformResourceIdentifier(encoded("URL", Ia5String::new(url))?))
}
