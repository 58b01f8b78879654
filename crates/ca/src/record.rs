//! What the authority remembers of a certificate.

use std::fmt;
use std::time::SystemTime;

use enclasp_pki::{Certificate, Revoked, SubjectAltName};

use crate::Result;

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the issuing certificate that signed it, in lower-case hexadecimal.
    pub issuer: String,
    /// Which of the issuer's CRLs would list it.
    pub shard: u32,
    /// RFC 4514 text; may be empty.
    pub subject: String,
    /// Its alternative names.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// The profile that it was issued under.
    pub profile: String,
    /// What it was issued for.
    pub issued_by: IssuedBy,
    /// When, to the microsecond.
    pub issued_at: SystemTime,
    /// The first second of its validity.
    pub not_before: SystemTime,
    /// The last second of its validity.
    pub not_after: SystemTime,
    /// The certificate.
    pub der: Vec<u8>,
    /// Whether it was revoked.
    pub revoked: Option<Revoked>,
}

impl Record {
    pub(crate) fn new(
        certificate: &Certificate,
        issuing: &Certificate,
        shard: u32,
        profile: &str,
        issued_by: IssuedBy,
        issued_at: SystemTime,
    ) -> Self {
        Self {
            serial: certificate.serial().to_owned(),
            issuer: issuing.fingerprint_hex(),
            shard,
            subject: certificate.subject().to_string(),
            subject_alt_names: certificate.subject_alt_names().to_vec(),
            profile: profile.to_owned(),
            issued_by,
            issued_at,
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            der: certificate.der().to_vec(),
            revoked: None,
        }
    }

    /// The certificate, parsed.
    ///
    /// # Errors
    /// [`Error::Pki`](crate::Error::Pki) if the record was damaged.
    pub fn certificate(&self) -> Result<Certificate> {
        Ok(Certificate::from_der(&self.der)?)
    }
}

/// What made the authority issue a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuedBy {
    /// A one-time token.
    Token,
    /// The certificate before it.
    Renewal,
    /// A person: [`Authority::sign`](crate::Authority::sign).
    Hand,
    /// Its own need of a server certificate.
    Server,
    /// A certificate whose key shall be compared with a software key (`enclasp doctor bisect`).
    Bisect,
}

impl IssuedBy {
    const ALL: [Self; 5] = [Self::Token, Self::Renewal, Self::Hand, Self::Server, Self::Bisect];

    /// `token`, `renewal`, `hand`, `server` or `bisect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Renewal => "renewal",
            Self::Hand => "hand",
            Self::Server => "server",
            Self::Bisect => "bisect",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }
}

impl fmt::Display for IssuedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which records to list; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those that have this text, in whatever case, in their subject, an alternative name or the
    /// serial number.
    pub text: Option<String>,
    /// Those of this profile.
    pub profile: Option<String>,
    /// Those that are valid at this time, and not revoked by now.
    pub valid_at: Option<SystemTime>,
}

impl Filter {
    /// Whether `record` is one of those.
    pub fn admits(&self, record: &Record) -> bool {
        let contains = |text: &String| {
            let text = text.to_lowercase();
            let names = record.subject_alt_names.iter().map(ToString::to_string);
            [record.subject.clone(), record.serial.clone()]
                .into_iter()
                .chain(names)
                .any(|name| name.to_lowercase().contains(&text))
        };
        self.text.as_ref().is_none_or(contains)
            && self.profile.as_ref().is_none_or(|profile| *profile == record.profile)
            && self.valid_at.is_none_or(|time| {
                record.revoked.is_none() && record.not_before <= time && time <= record.not_after
            })
    }
}
