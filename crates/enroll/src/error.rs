//! What can go wrong on the way to a certificate, told apart by what the caller can do about it.

use std::time::Duration;

use enclasp_keystore::KeyUri;

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an enrolment or a renewal failed. `url` is that of the authority, `operation` the last part
/// of the EST path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// The text is never repeated: it may be a real token with a typing error.
    #[error("this is not an Enclasp token: {reason}")]
    Token { reason: String },
    #[error("the token for `{common_name}` expired {ago} ago, at {at}")]
    Expired { common_name: String, ago: String, at: String },
    #[error("`{url}` is not the address of an authority: {reason}")]
    Url { url: String, reason: String },
    #[error("cannot reach the authority at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the connection to the authority at {url} broke during {operation}: {reason}")]
    Interrupted { url: String, operation: &'static str, reason: String },
    #[error(
        "the server at {url} is not the authority that made this token: its chain does not contain the root {root}"
    )]
    WrongAuthority { url: String, root: String },
    #[error("the TLS handshake with the authority at {url} failed: {reason}")]
    Handshake { url: String, reason: String },
    /// The clock of one of the two ends is wrong, if the authority takes care of its certificate.
    #[error("the certificate of the authority at {url} {reason}")]
    Clock { url: String, reason: String },
    #[error("the authority at {url} refused {operation}: {reason} (HTTP {status})")]
    Refused { url: String, operation: &'static str, status: u16, reason: String },
    /// HTTP 202, 429 or 503: the same request may work later.
    #[error("the authority at {url} cannot do {operation} now: {reason} (HTTP {status})")]
    Later { url: String, operation: &'static str, status: u16, reason: String, retry_after: Option<Duration> },
    #[error("the authority at {url} answered {operation} with something else than it should: {reason}")]
    Answer { url: String, operation: &'static str, reason: String },
    /// A body of EST that cannot be read.
    #[error("the body cannot be read: {reason}")]
    Body { reason: String },
    /// The authority issued something that was not asked for. It was not stored.
    #[error("the certificate from {url} is not the one that was asked for: {reason}")]
    WrongCertificate { url: String, reason: String },
    #[error("this token is already being enrolled as identity `{identity}` with the key `{key}`")]
    OtherEnrolment { identity: String, key: KeyUri },
    #[error("there is an identity `{identity}` already")]
    IdentityExists { identity: String },
    #[error("identity `{identity}` cannot be renewed: {reason}")]
    NotRenewable { identity: String, reason: String },
    #[error("the pending enrolment {path} cannot be read: {reason}")]
    Pending { path: String, reason: String },
    #[error(transparent)]
    Keystore(#[from] enclasp_keystore::Error),
    #[error(transparent)]
    Pki(#[from] enclasp_pki::Error),
    #[error(transparent)]
    Identity(#[from] enclasp_identity::Error),
    #[error(transparent)]
    Tls(#[from] enclasp_tls::Error),
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Token { .. } => {
                "a token is one line that begins with enclasp1_, made by `enclasp ca token`".into()
            }
            Self::Expired { common_name, .. } => {
                format!("ask for a new one, made by `enclasp ca token --cn {common_name} …`")
            }
            Self::Url { .. } => "the address looks like https://ca.example:8443".into(),
            Self::Unreachable { .. } => "is `enclasp ca serve` running there?".into(),
            Self::Interrupted { .. } => {
                "run the same command again: an enrolment goes on where it stopped".into()
            }
            Self::WrongAuthority { .. } => {
                "something else answers at that address, or the authority was made anew since: ask for a new token"
                    .into()
            }
            Self::Clock { .. } => {
                "check the clock of this machine; if it is right, that of the authority's, and restart `enclasp ca serve`"
                    .into()
            }
            Self::Refused { status: 401, .. } => {
                "ask for a new token, made by `enclasp ca token`".into()
            }
            Self::Refused { status: 403, .. } => {
                "the names must be those that the authority knows: those of the token, or of the certificate to renew"
                    .into()
            }
            Self::Later { retry_after: Some(pause), .. } => {
                format!("run the same command again in {}", crate::duration::in_words(*pause))
            }
            Self::Later { .. } => "run the same command again later".into(),
            Self::OtherEnrolment { identity, .. } => {
                format!("run it again with `--identity {identity}`, or use another token")
            }
            Self::IdentityExists { identity } => {
                format!("choose another name, or `enclasp identity delete {identity}` first")
            }
            Self::NotRenewable { .. } => "enrol again with a new token, made by `enclasp ca token`".into(),
            Self::Pending { path, .. } => format!("remove {path} and use a new token"),
            Self::Keystore(e) => return e.hint(),
            Self::Pki(e) => return e.hint(),
            Self::Identity(e) => return e.hint(),
            Self::Tls(e) => return e.hint(),
            Self::Handshake { .. }
            | Self::Refused { .. }
            | Self::Answer { .. }
            | Self::Body { .. }
            | Self::WrongCertificate { .. } => return None,
        })
    }

    /// How long the authority asks to wait before the same request.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Later { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the authority will never answer the same request otherwise.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
    }

    /// Whether the same request may work later, and how long the authority asks to wait.
    pub(crate) fn worth_a_retry(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => Some(Duration::ZERO),
            Self::Later { retry_after, .. } => Some(retry_after.unwrap_or_default()),
            _ => None,
        }
    }
}
