//! Why a tunnel does not start, or a connection through it does not come about.

use std::io;
use std::time::Duration;

use crate::Endpoint;

/// The result of setting up a tunnel.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. From [`Tls`](Self::Tls) on they may be about one connection, and end in the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{text}` is not an endpoint: {reason}")]
    Endpoint { text: String, reason: String },
    #[error("cannot listen on {endpoint}: {source}")]
    Listen { endpoint: Endpoint, source: io::Error },
    #[error("cannot start {count} threads: {source}")]
    Threads { count: usize, source: io::Error },
    #[error("cannot use `{text}`: {reason}")]
    Url { text: String, reason: String },
    #[error("{url} answers {code}")]
    Answer { url: String, code: u16 },
    /// A listener that the service manager was to pass on.
    #[error("cannot listen on {name}: {reason}")]
    Inherited { name: String, reason: String },
    #[error(transparent)]
    Tls(#[from] enclasp_tls::Error),
    #[error("{peer} said nothing for {after:?}")]
    Silence { peer: String, after: Duration },
    #[error("cannot connect to {target}: {source}")]
    Connect { target: Endpoint, source: io::Error },
    #[error("cannot connect to {target}: no answer within {after:?}")]
    ConnectTimeout { target: Endpoint, after: Duration },
    #[error("cannot connect to {target} through {proxy}: {reason}")]
    Proxy { proxy: String, target: Endpoint, reason: String },
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Endpoint { .. } => {
                Some("an endpoint looks like 127.0.0.1:8443, :8443 or unix:/run/app.sock".into())
            }
            Self::Listen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => Some("another program listens there".into()),
                io::ErrorKind::PermissionDenied => Some("ports below 1024 need a privilege".into()),
                _ => None,
            },
            Self::Tls(source) => source.hint(),
            Self::Inherited { .. } => {
                Some("the socket unit names its listeners with FileDescriptorName=".into())
            }
            Self::Url { .. } => Some(
                "a URL looks like http://127.0.0.1:8080/health, a proxy like http://proxy:3128 or socks5://proxy:1080"
                    .into(),
            ),
            Self::Proxy { .. } => Some("does the proxy run, and may this machine reach the target through it?".into()),
            Self::Threads { .. } | Self::Silence { .. } | Self::Answer { .. } => None,
            Self::Connect { .. } | Self::ConnectTimeout { .. } => Some("is the target running?".into()),
        }
    }
}
