//! Places to listen on and to connect to: TCP addresses and Unix sockets.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::sockopt::{set_tcp_nodelay, socket_domain};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::inherited;
use crate::proxy_protocol::Addresses;
use crate::turns::Source;
use crate::{Error, Result};

/// Where to listen or to connect: `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (listening on every address)
/// `unix:PATH` or `systemd:NAME` (listening only). Its `Display` form parses back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP port. The host is a name or an address; an empty one is every address.
    Tcp {
        /// Without brackets.
        host: String,
        /// 0 is any free port.
        port: u16,
    },
    /// A Unix stream socket. One that we listen on is for its owner alone (mode 600).
    Unix(PathBuf),
    /// A listener that the service manager passes on under this name (`FileDescriptorName=`).
    Systemd(String),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |reason: &str| Error::Endpoint { text: text.to_owned(), reason: reason.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(error("it has no path")),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return match name {
                "" => Err(error("it has no name")),
                name => Ok(Self::Systemd(name.into())),
            };
        }
        if text.starts_with("launchd:") {
            return Err(error("listeners of launchd are not supported"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| error("it has no port"))?;
        let port = port.parse().map_err(|_| error("its port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address,
            None if host.contains(':') => return Err(error("an IPv6 address stands in brackets")),
            None => host,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// A connection of either kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Whether there is something to read, or the other end has closed.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The other end's address and ours, if it has such.
    fn addresses(&self) -> Option<Addresses>;
}

impl Io for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn addresses(&self) -> Option<Addresses> {
        Some((self.peer_addr().ok()?, self.local_addr().ok()?))
    }
}

impl Io for UnixStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn addresses(&self) -> Option<Addresses> {
        None
    }
}

pub(crate) type Stream = Box<dyn Io>;

impl Endpoint {
    /// Checks that it can be connected to.
    pub(crate) fn as_target(&self) -> Result<&Self> {
        match self {
            Self::Tcp { host, port } if host.is_empty() || *port == 0 => Err(Error::Endpoint {
                text: self.to_string(),
                reason: "a target needs a host and a port".into(),
            }),
            Self::Systemd(_) => {
                Err(Error::Endpoint { text: self.to_string(), reason: "it can be listened on only".into() })
            }
            _ => Ok(self),
        }
    }

    pub(crate) async fn connect(&self, within: Duration) -> Result<Stream> {
        let connect = async {
            io::Result::Ok(match self {
                Self::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream) as Stream
                }
                Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Self::Systemd(_) => return Err(io::ErrorKind::Unsupported.into()),
            })
        };
        match timeout(within, connect).await {
            Ok(connected) => connected.map_err(|source| Error::Connect { target: self.clone(), source }),
            Err(_) => Err(Error::ConnectTimeout { target: self.clone(), after: within }),
        }
    }

    pub(crate) async fn listen(&self) -> Result<Listener> {
        let listening = match self {
            Self::Tcp { host, port } if host.is_empty() => match TcpListener::bind(("::", *port)).await {
                // A machine without IPv6.
                Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).await
                }
                bound => bound,
            }
            .and_then(Listener::tcp),
            Self::Tcp { host, port } => {
                TcpListener::bind((host.as_str(), *port)).await.and_then(Listener::tcp)
            }
            Self::Unix(path) => SocketFile::listen(path).await,
            Self::Systemd(name) => return inherited::take(name),
        };
        listening.map_err(|source| Error::Listen { endpoint: self.clone(), source })
    }
}

/// Something that is listened on, and known to no runtime yet.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(std::net::TcpListener),
    /// Without a file of ours if it was passed on to us.
    Unix(std::os::unix::net::UnixListener, Option<Arc<SocketFile>>),
}

/// A socket that is listened on. A tunnel that takes the place of another one gets a second handle,
/// so that no connection is refused meanwhile.
#[derive(Debug)]
pub struct Bound {
    pub(crate) listener: Listener,
    at: Endpoint,
}

impl Bound {
    /// Listens.
    ///
    /// # Errors
    /// [`Error::Listen`], or [`Error::Inherited`] if the service manager did not pass it on.
    pub async fn listen(on: &Endpoint) -> Result<Self> {
        let listener = on.listen().await?;
        let at = listener.endpoint().map_err(|source| Error::Listen { endpoint: on.clone(), source })?;
        Ok(Self { listener, at })
    }

    /// What another process listens on and passed on to this one.
    ///
    /// # Errors
    /// [`Error::Inherited`] if it is no listening socket.
    pub fn passed_on(socket: OwnedFd) -> Result<Self> {
        let listener = match socket_domain(&socket) {
            Ok(AddressFamily::UNIX) => Listener::of_unix(socket.into()),
            Ok(_) => Listener::of_tcp(socket.into()),
            Err(error) => Err(error.into()),
        };
        let bound = listener.and_then(|listener| Ok(Self { at: listener.endpoint()?, listener }));
        bound.map_err(|e| Error::Inherited { name: "a socket".into(), reason: e.to_string() })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn at(&self) -> &Endpoint {
        &self.at
    }

    /// A second handle.
    ///
    /// # Errors
    /// [`Error::Listen`] for want of a file descriptor.
    pub fn try_clone(&self) -> Result<Self> {
        let listener = self.listener.try_clone();
        let listener = listener.map_err(|source| Error::Listen { endpoint: self.at.clone(), source })?;
        Ok(Self { listener, at: self.at.clone() })
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// The same in a runtime.
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Option<Arc<SocketFile>> },
}

/// A connection that may go to any runtime.
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    fn tcp(listener: TcpListener) -> io::Result<Self> {
        Self::of_tcp(listener.into_std()?)
    }

    pub(crate) fn of_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        // The connections inherit it.
        set_tcp_nodelay(&listener, true)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    pub(crate) fn of_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener, None))
    }

    /// The same listener once more. The socket is closed, and its file removed, with the last.
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener, file) => Self::Unix(listener.try_clone()?, file.clone()),
        })
    }

    /// Where it listens, with the port that was found free.
    pub(crate) fn endpoint(&self) -> io::Result<Endpoint> {
        Ok(match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr()?;
                Endpoint::Tcp { host: address.ip().to_string(), port: address.port() }
            }
            Self::Unix(_, Some(file)) => Endpoint::Unix(file.path.clone()),
            Self::Unix(listener, None) => {
                let address = listener.local_addr()?;
                Endpoint::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned())
            }
        })
    }

    /// Accepts in the runtime that this is called in.
    pub(crate) fn into_acceptor(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(listener) => Acceptor::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, file) => {
                Acceptor::Unix { listener: UnixListener::from_std(listener)?, _file: file }
            }
        })
    }
}

impl Acceptor {
    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Accepted::Tcp(stream.into_std()?, from)
            }
            Self::Unix { listener, .. } => Accepted::Unix(listener.accept().await?.0.into_std()?),
        })
    }
}

/// Who connected.
pub(crate) struct Peer {
    /// What messages call it.
    pub(crate) name: String,
    pub(crate) source: Source,
}

impl Accepted {
    /// A stream of the runtime that this is called in, and who is at its other end.
    pub(crate) fn into_stream(self) -> io::Result<(Stream, Peer)> {
        Ok(match self {
            Self::Tcp(stream, from) => {
                let peer = Peer { name: from.to_string(), source: from.into() };
                (Box::new(TcpStream::from_std(stream)?), peer)
            }
            Self::Unix(stream) => {
                let stream = UnixStream::from_std(stream)?;
                let peer = stream.peer_cred()?;
                let pid = peer.pid().map(|pid| format!(" pid {pid}")).unwrap_or_default();
                let name = format!("uid {}{pid}", peer.uid());
                (Box::new(stream), Peer { name, source: Source::User(peer.uid()) })
            }
        })
    }
}

/// The file of a socket that we listen on, removed when we stop, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// Takes the place of a socket that nobody listens on any more. The file has its mode before it
    /// has its name.
    async fn listen(path: &Path) -> io::Result<Listener> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            _ => {}
        }
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        let listener = UnixListener::bind(&unnamed)?;
        let named = std::fs::set_permissions(&unnamed, PermissionsExt::from_mode(0o600))
            .and_then(|()| std::fs::metadata(&unnamed))
            .and_then(|metadata| std::fs::rename(&unnamed, path).map(|()| metadata.ino()));
        match named {
            Ok(inode) => Ok(Listener::Unix(
                listener.into_std()?,
                Some(Arc::new(Self { path: path.to_owned(), inode })),
            )),
            Err(e) => {
                // The first error is the one to tell.
                let _ = std::fs::remove_file(&unnamed);
                Err(e)
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // What cannot be removed is replaced by the next to listen there.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_endpoint() {
        for (text, reason) in [
            ("localhost", "no port"),
            ("localhost:http", "not a number"),
            ("localhost:65536", "not a number"),
            ("::1:443", "brackets"),
            ("unix:", "no path"),
            ("systemd:", "no name"),
            ("launchd:web", "not supported"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        for text in [":443", "localhost:0", "systemd:web"] {
            assert!(text.parse::<Endpoint>().unwrap().as_target().is_err(), "{text}");
        }
    }

    #[test]
    fn display_parses_back() {
        for text in
            ["localhost:443", "127.0.0.1:0", "[::1]:443", ":8443", "unix:/run/app.sock", "systemd:web"]
        {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_and_replaces_a_dead_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let endpoint = Endpoint::Unix(path.clone());
        std::fs::write(&path, "precious").unwrap();
        assert!(
            endpoint.listen().await.unwrap_err().to_string().ends_with("there is a file that is no socket")
        );
        std::fs::remove_file(&path).unwrap();

        let dead = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(dead);
        let listener = endpoint.listen().await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = endpoint.listen().await.unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("another program listens there"));

        drop(listener);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
