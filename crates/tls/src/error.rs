//! Why a connection could not be made, told apart by whose move is next.

use std::io;
use std::time::{Duration, SystemTime};

use enclasp_keystore::Algorithm;
use enclasp_pki::Certificate;
use rustls::{AlertDescription, CertificateError};

use crate::Role;
use crate::alert::meaning;
use crate::handshake::DURING;
use crate::recorder::Record;

/// The result of making a credential, a configuration or a connection.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. `peer` is the other end as the caller named it, `role` which end it is, `subject` the RFC 4514 text of
/// a certificate's subject, `key` a key URI.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot use `{key}` with the certificate of {subject}: {reason}")]
    Credential { key: String, subject: String, reason: String },
    #[error("cannot set up TLS: {reason}")]
    Settings { reason: String },
    #[error("`{name}` is neither a host name nor an IP address")]
    ServerName { name: String },

    #[error(transparent)]
    Identity(#[from] enclasp_identity::Error),
    /// Our key did not sign; nothing was sent in its place.
    #[error(transparent)]
    Key(#[from] enclasp_keystore::Error),
    /// Nothing was signed, and no empty certificate was sent instead.
    #[error("`{key}` cannot sign for {peer}: it can do {able}; offered were {offered}")]
    NoCommonScheme { peer: String, key: String, able: String, offered: String },
    #[error("{peer} demands a client certificate, and there is none to present")]
    CertificateDemanded { peer: String },

    /// We refused the peer's certificate.
    #[error("the certificate of {peer} ({subject}) is not valid: {cause}")]
    PeerCertificate { peer: String, subject: String, cause: String, error: Box<CertificateError> },
    #[error("{peer} presented no certificate")]
    NoPeerCertificate { peer: String },
    /// The signature is of a kind that the key in the certificate cannot make.
    #[error(
        "the {message} of {peer} claims {scheme}, but its certificate ({subject}) holds a {algorithm} key"
    )]
    WrongScheme { peer: String, subject: String, message: String, scheme: String, algorithm: Algorithm },
    /// The certificate verified, and no access rule admits it. `rule` is all that would have.
    #[error("{peer} is not admitted as {subject}: {reason}")]
    NotAdmitted { peer: String, subject: String, rule: String, reason: String },

    /// The peer refused us. `stage` is when: "during the handshake", "after the handshake".
    #[error("{}", refusal(peer, *alert, stage))]
    Refused { peer: String, alert: AlertDescription, stage: &'static str, notes: Vec<String> },
    #[error("{peer} closed the connection {stage}")]
    Closed { peer: String, role: Role, stage: &'static str },
    #[error("the handshake with {peer} was not done after {after:?}")]
    Timeout { peer: String, role: Role, after: Duration },
    #[error("the handshake with {peer} failed: {source}")]
    Tls { peer: String, role: Role, source: rustls::Error },
    #[error("cannot exchange data with {peer}: {source}")]
    Io { peer: String, source: io::Error },
}

/// The other end of a connection, for an error about it.
#[derive(Clone, Copy)]
pub(crate) struct Whom<'a> {
    pub(crate) peer: &'a str,
    pub(crate) role: Role,
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Credential { .. } => {
                Some("`enclasp identity show` and `enclasp key show` tell which key is whose".into())
            }
            Self::Settings { .. } | Self::Io { .. } | Self::NotAdmitted { .. } => None,
            Self::ServerName { .. } => Some("give a host name such as db.internal, or an address".into()),
            Self::Identity(source) => source.hint(),
            Self::Key(source) => source.hint(),
            Self::NoCommonScheme { key, .. } => Some(format!(
                "`enclasp key probe {key}` tries every scheme; a key of another type may be needed"
            )),
            Self::CertificateDemanded { .. } => Some("choose an identity to present: --identity NAME".into()),
            Self::PeerCertificate { error, .. } => certificate_hint(error),
            Self::NoPeerCertificate { .. } => Some("the client has to present a certificate".into()),
            Self::WrongScheme { .. } => Some(
                "the peer's TLS stack was told the wrong type of its own key; nothing here can change that"
                    .into(),
            ),
            Self::Refused { alert, notes, .. } => {
                let hint = meaning(*alert).hint.map(str::to_owned);
                let notes = (!notes.is_empty()).then(|| notes.join("; "));
                notes.into_iter().chain(hint).reduce(|notes, hint| format!("{notes}; {hint}"))
            }
            Self::Closed { role, stage, .. } => match (role, *stage == DURING) {
                (Role::Server, true) => Some("its log says why; it may not speak TLS on this port".into()),
                (Role::Server, false) => Some("its log says why".into()),
                (Role::Client, true) => {
                    Some("the client knows why: it may not trust our certificate, or not speak TLS".into())
                }
                (Role::Client, false) => None,
            },
            Self::Timeout { role: Role::Server, .. } => {
                Some("is anything listening there that speaks TLS?".into())
            }
            Self::Timeout { role: Role::Client, .. } => None,
            Self::Tls { role, source, .. } => match (role, source) {
                (Role::Server, rustls::Error::InvalidMessage(_)) => {
                    Some("it does not seem to speak TLS on this port".into())
                }
                (Role::Client, rustls::Error::InvalidMessage(_)) => {
                    Some("it does not seem to speak TLS".into())
                }
                (
                    Role::Server,
                    rustls::Error::InappropriateMessage { .. }
                    | rustls::Error::InappropriateHandshakeMessage { .. },
                ) => Some(
                    "does it speak TLS on this port? a service that sends back what it gets answers so"
                        .into(),
                ),
                _ => None,
            },
        }
    }

    /// The subject of the peer's certificate, if it came to that.
    pub fn peer_subject(&self) -> Option<&str> {
        match self {
            Self::PeerCertificate { subject, .. }
            | Self::WrongScheme { subject, .. }
            | Self::NotAdmitted { subject, .. } => Some(subject),
            _ => None,
        }
    }

    /// The access rules that refused the peer, if it was they.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::NotAdmitted { rule, .. } => Some(rule),
            _ => None,
        }
    }

    pub(crate) fn timeout(whom: Whom<'_>, after: Duration) -> Self {
        Self::Timeout { peer: whom.peer.to_owned(), role: whom.role, after }
    }

    /// Of a rustls error and what was recorded beside it.
    pub(crate) fn of_tls(
        whom: Whom<'_>,
        stage: &'static str,
        source: rustls::Error,
        record: &Record,
    ) -> Self {
        let (peer, role) = (whom.peer.to_owned(), whom.role);
        match source {
            rustls::Error::AlertReceived(AlertDescription::CloseNotify) => Self::Closed { peer, role, stage },
            rustls::Error::AlertReceived(alert) => {
                Self::Refused { peer, alert, stage, notes: record.notes.clone() }
            }
            rustls::Error::NoCertificatesPresented => Self::NoPeerCertificate { peer },
            rustls::Error::InvalidCertificate(error) => {
                let certificate = record.leaf();
                Self::PeerCertificate {
                    peer,
                    subject: certificate
                        .as_ref()
                        .map_or_else(|| "unreadable".to_owned(), |leaf| leaf.subject().to_string()),
                    cause: certificate_cause(&error, certificate.as_ref()),
                    error: Box::new(error),
                }
            }
            source => Self::Tls { peer, role, source },
        }
    }

    /// Of an I/O error, which may hold a rustls error.
    pub(crate) fn of_io(whom: Whom<'_>, stage: &'static str, source: io::Error, record: &Record) -> Self {
        if let Some(tls) = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(whom, stage, tls.clone(), record);
        }
        let (peer, role) = (whom.peer.to_owned(), whom.role);
        match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed { peer, role, stage },
            _ => Self::Io { peer, source },
        }
    }
}

/// Lists longer than this are cut in messages: peers make some of them.
const SHOWN: usize = 5;

/// Names in a row, without control characters.
pub(crate) fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| name.escape_debug().to_string()).collect();
    let shown = shown.join(", ");
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

fn refusal(peer: &str, alert: AlertDescription, stage: &str) -> String {
    let meaning = meaning(alert);
    let what = if meaning.of_certificate { "our certificate" } else { "the connection" };
    let code = u8::from(alert);
    format!("{peer} refused {what} {stage}: it {} (alert {}, {code})", meaning.sentence, meaning.name)
}

fn certificate_cause(error: &CertificateError, certificate: Option<&Certificate>) -> String {
    let at = |time: fn(&Certificate) -> SystemTime| {
        certificate.map_or_else(|| "an unknown time".to_owned(), |leaf| enclasp_pki::rfc3339(time(leaf)))
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!(
                "it, or a CA certificate above it, has expired (its own end is {})",
                at(Certificate::not_after)
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("it is not valid yet (it begins {})", at(Certificate::not_before))
        }
        CertificateError::UnknownIssuer => {
            let issuer =
                certificate.map_or_else(|| "its issuer".to_owned(), |leaf| leaf.issuer().to_string());
            format!("no trusted root vouches for {issuer}")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = certificate.map(Certificate::subject_alt_names).unwrap_or_default();
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            format!(
                "it is not for this name, but for {}",
                if names.is_empty() { "none".into() } else { list(&names) }
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usages do not allow this use".to_owned()
        }
        CertificateError::Revoked => "it, or a CA certificate above it, has been revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "there is no list of revoked certificates of its issuer, or of one above".to_owned()
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the list of revoked certificates of its issuer, or of one above, is out of date".to_owned()
        }
        CertificateError::BadSignature => "a signature does not verify".to_owned(),
        CertificateError::BadEncoding => "it cannot be parsed".to_owned(),
        other => other.to_string(),
    }
}

fn certificate_hint(error: &CertificateError) -> Option<String> {
    Some(
        match error {
            CertificateError::UnknownIssuer => {
                "give the root that issued it, and have the peer send its intermediates"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the peer has to renew it; compare the clocks if it looks valid"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "compare the clocks"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "connect by a name that the certificate has"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "a client needs clientAuth, a server serverAuth"
            }
            _ => return None,
        }
        .to_owned(),
    )
}
