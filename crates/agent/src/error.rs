//! Why an agent does not serve.

use std::io;
use std::path::PathBuf;

/// Why an agent could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("an agent ({holder}) already serves the keys in {}", state.display())]
    AlreadyServed { state: PathBuf, holder: String },
    #[error("cannot listen on {at}: {reason}")]
    Listen { at: String, reason: String },
    #[error("the agent cannot be closed off by {measure}: {reason}")]
    Sandbox { measure: String, reason: String },
    #[error("this process is not closed off by {measure}: {reason}")]
    Confinement { measure: &'static str, reason: String },
    /// A feature of the build that is not there.
    #[error("this build has no `{keystore}` keystore")]
    NoKeystore { keystore: &'static str },
    #[error("cannot {operation}: {source}")]
    System { operation: &'static str, source: io::Error },
    #[error(transparent)]
    Keystore(#[from] enclasp_keystore::Error),
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::AlreadyServed { .. } => Some("use that agent, or end it with SIGTERM first".into()),
            Self::Listen { .. } => Some("choose another path with --socket".into()),
            Self::Sandbox { .. } | Self::Confinement { .. } => {
                Some("a kernel of Linux 6.12 or later has all that is needed".into())
            }
            Self::NoKeystore { keystore } => {
                Some(format!("build it with `cargo build --release --features {keystore}`"))
            }
            Self::System { .. } => None,
            Self::Keystore(error) => error.hint(),
        }
    }

    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}
