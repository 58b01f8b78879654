//! What goes wrong, told apart by what a program can do about it.

use std::fmt::Display;

use enclasp_enroll::Error as EnrollError;
use enclasp_identity::Error as IdentityError;
use enclasp_keystore::Error as KeyError;
use enclasp_pki::Error as PkiError;
use enclasp_tls::Error as TlsError;

/// The result of a call.
pub(crate) type Result<T> = std::result::Result<T, EnclaspError>;

/// Why a call failed. The message says what was to be done to what, why that failed and, on a line of
/// its own that begins with `hint: `, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[uniffi(flat_error)]
#[non_exhaustive]
pub enum EnclaspError {
    /// There is no key or identity of that name.
    #[error("{0}")]
    Absent(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// A PIN is missing or wrong, or the device locked itself.
    #[error("{0}")]
    Locked(String),
    /// A person or a rule refused the signature.
    #[error("{0}")]
    Denied(String),
    /// Too much is going on at once; it may work later.
    #[error("{0}")]
    Busy(String),
    /// The key, the keystore or the peer can never do this.
    #[error("{0}")]
    Unsupported(String),
    /// There was no answer in time.
    #[error("{0}")]
    Deadline(String),
    /// The key returned something that does not verify with its own public key; it was not sent.
    #[error("{0}")]
    WrongSignature(String),
    /// The program's own signer failed.
    #[error("{0}")]
    Signer(String),
    /// The agent, the authority or the server cannot be reached, or the connection broke.
    #[error("{0}")]
    Unavailable(String),
    /// The server or the authority refused us.
    #[error("{0}")]
    Refused(String),
    /// We refused the server: it is not who it should be.
    #[error("{0}")]
    Untrusted(String),
    /// An argument cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Anything else: what the disk holds, or an answer that nobody can make sense of.
    #[error("{0}")]
    Failed(String),
}

/// One of the variants.
type Kind = fn(String) -> EnclaspError;

impl EnclaspError {
    pub(crate) fn new(kind: Kind, message: impl Display, hint: Option<String>) -> Self {
        kind(match hint {
            Some(hint) => format!("{message}\nhint: {hint}"),
            None => message.to_string(),
        })
    }
}

impl From<KeyError> for EnclaspError {
    fn from(error: KeyError) -> Self {
        Self::new(of_key(&error), &error, error.hint())
    }
}

impl From<PkiError> for EnclaspError {
    fn from(error: PkiError) -> Self {
        Self::new(of_pki(&error), &error, error.hint())
    }
}

impl From<IdentityError> for EnclaspError {
    fn from(error: IdentityError) -> Self {
        Self::new(of_identity(&error), &error, error.hint())
    }
}

impl From<TlsError> for EnclaspError {
    fn from(error: TlsError) -> Self {
        Self::new(of_tls(&error), &error, error.hint())
    }
}

impl From<EnrollError> for EnclaspError {
    fn from(error: EnrollError) -> Self {
        let kind = match &error {
            EnrollError::Token { .. } | EnrollError::Url { .. } => Self::Invalid,
            EnrollError::Expired { .. } | EnrollError::Refused { .. } | EnrollError::NotRenewable { .. } => {
                Self::Refused
            }
            EnrollError::Unreachable { .. } | EnrollError::Interrupted { .. } => Self::Unavailable,
            EnrollError::WrongAuthority { .. }
            | EnrollError::Handshake { .. }
            | EnrollError::Clock { .. }
            | EnrollError::WrongCertificate { .. } => Self::Untrusted,
            EnrollError::Later { .. } => Self::Busy,
            EnrollError::OtherEnrolment { .. } | EnrollError::IdentityExists { .. } => Self::Exists,
            EnrollError::Keystore(error) => of_key(error),
            EnrollError::Pki(error) => of_pki(error),
            EnrollError::Identity(error) => of_identity(error),
            EnrollError::Tls(error) => of_tls(error),
            _ => Self::Failed,
        };
        Self::new(kind, &error, error.hint())
    }
}

fn of_key(error: &KeyError) -> Kind {
    match error {
        KeyError::Absent { .. } => EnclaspError::Absent,
        KeyError::Exists { .. } => EnclaspError::Exists,
        KeyError::Locked { .. } | KeyError::WrongPin { .. } | KeyError::Protection { .. } => {
            EnclaspError::Locked
        }
        KeyError::Denied { .. } => EnclaspError::Denied,
        KeyError::Busy { .. } => EnclaspError::Busy,
        KeyError::Unsupported { .. } => EnclaspError::Unsupported,
        KeyError::Deadline { .. } | KeyError::Cancelled { .. } => EnclaspError::Deadline,
        KeyError::WrongSignature { .. } => EnclaspError::WrongSignature,
        KeyError::Signer { .. } => EnclaspError::Signer,
        KeyError::Unavailable { .. } => EnclaspError::Unavailable,
        KeyError::PublicKey { .. }
        | KeyError::PrivateKey { .. }
        | KeyError::Uri { .. }
        | KeyError::Ambiguous { .. } => EnclaspError::Invalid,
        _ => EnclaspError::Failed,
    }
}

fn of_pki(error: &PkiError) -> Kind {
    match error {
        PkiError::Name { .. } | PkiError::Malformed { .. } => EnclaspError::Invalid,
        PkiError::Weak { .. } | PkiError::Unsupported { .. } => EnclaspError::Unsupported,
        PkiError::Key(error) => of_key(error),
        _ => EnclaspError::Failed,
    }
}

fn of_identity(error: &IdentityError) -> Kind {
    match error {
        IdentityError::Absent { .. } => EnclaspError::Absent,
        IdentityError::Exists { .. } => EnclaspError::Exists,
        IdentityError::Name { .. }
        | IdentityError::NoKey { .. }
        | IdentityError::NoCertificate { .. }
        | IdentityError::Module { .. } => EnclaspError::Invalid,
        IdentityError::NoKeystore { .. } => EnclaspError::Unsupported,
        IdentityError::Keystore(error) => of_key(error),
        IdentityError::Pki(error) => of_pki(error),
        _ => EnclaspError::Failed,
    }
}

fn of_tls(error: &TlsError) -> Kind {
    match error {
        TlsError::Credential { .. } | TlsError::Settings { .. } | TlsError::ServerName { .. } => {
            EnclaspError::Invalid
        }
        TlsError::NoCommonScheme { .. } => EnclaspError::Unsupported,
        TlsError::CertificateDemanded { .. } | TlsError::Refused { .. } => EnclaspError::Refused,
        TlsError::PeerCertificate { .. }
        | TlsError::NoPeerCertificate { .. }
        | TlsError::WrongScheme { .. }
        | TlsError::NotAdmitted { .. } => EnclaspError::Untrusted,
        TlsError::Closed { .. } | TlsError::Io { .. } => EnclaspError::Unavailable,
        TlsError::Timeout { .. } => EnclaspError::Deadline,
        TlsError::Identity(error) => of_identity(error),
        TlsError::Key(error) => of_key(error),
        _ => EnclaspError::Failed,
    }
}
