//! Taking the keys and the socket for one agent alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::{Error, Socket};

/// How long to wait for an agent that is ending, or not listening yet.
const HANDOVER: Duration = Duration::from_secs(3);

/// How many connections may wait to be accepted; the kernel lowers it to its own limit.
const BACKLOG: i32 = 1024;

/// The right to serve a folder of keys. The kernel takes it back however this process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(state: &Path, socket: &Socket) -> Result<Self, Error> {
        let failed = || Error::system("lock the folder of the keys");
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(state.join("agent.lock"))
        };
        let mut file = open().map_err(failed())?;
        let until = Instant::now() + HANDOVER;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed()(error.into()));
            }
            let answers = matches!(socket, Socket::Path(path) if UnixStream::connect(path).is_ok());
            if answers || Instant::now() >= until {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { format!("pid {}", holder.trim()) } else { "pid unknown".into() };
                return Err(Error::AlreadyServed { state: state.to_owned(), holder });
            }
            thread::sleep(Duration::from_millis(10));
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed())?;
        Ok(Self { _file: file })
    }
}

/// A socket that clients connect to.
pub(crate) struct Endpoint {
    pub(crate) listener: UnixListener,
    bound: Option<Bound>,
}

/// A socket file that this process made, told from a later one of the same name by its inode.
struct Bound {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Endpoint {
    /// Takes the socket. Who connects to one with a path is refused until [`listen`](Self::listen).
    pub(crate) fn open(socket: &Socket, shared: bool) -> Result<Self, Error> {
        let (listener, bound) = match socket {
            Socket::Path(path) => {
                let (listener, bound) = bind(path, shared)
                    .map_err(|reason| Error::Listen { at: path.display().to_string(), reason })?;
                (listener, Some(bound))
            }
            Socket::Systemd => (passed_by_systemd()?, None),
        };
        listener.set_nonblocking(true).map_err(Error::system("prepare the socket"))?;
        Ok(Self { listener, bound })
    }

    /// Lets others connect.
    pub(crate) fn listen(&self) -> Result<(), Error> {
        let listening = rustix::net::listen(&self.listener, BACKLOG);
        listening.map_err(Error::system("listen on the socket"))
    }

    /// The folder of the socket file that has to be removed in the end.
    pub(crate) fn folder(&self) -> Option<&Path> {
        let parent = self.bound.as_ref()?.path.parent()?;
        Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    /// Removes the socket file, so that nobody connects any more.
    pub(crate) fn withdraw(&mut self) {
        let Some(bound) = self.bound.take() else { return };
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == (bound.device, bound.inode);
        if fs::symlink_metadata(&bound.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&bound.path)
        {
            tracing::warn!(socket = %bound.path.display(), %error, "the socket cannot be removed");
        }
    }

    /// Whether the socket file is this process's to remove, and is there still.
    pub(crate) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.withdraw();
    }
}

fn bind(path: &Path, shared: bool) -> Result<(UnixListener, Bound), String> {
    let said = |e: io::Error| e.to_string();
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let mode = if shared { 0o755 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(parent).map_err(said)?;
    }
    clear(path)?;
    let listener = bind_private(path).map_err(|e| e.to_string())?;
    if shared {
        fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(said)?;
    }
    let metadata = fs::symlink_metadata(path).map_err(said)?;
    let bound = Bound { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() };
    Ok((listener, bound))
}

/// Binds with the mode 0600 from the first moment: the file takes it over from the descriptor.
fn bind_private(path: &Path) -> rustix::io::Result<UnixListener> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixListener::from(socket))
}

/// Removes a socket file that an agent left behind, and nothing else.
fn clear(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.to_string()),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err("there is something that is not a socket".into()),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err("another program answers there".into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    }
}

fn passed_by_systemd() -> Result<UnixListener, Error> {
    let failed = |reason: String| Error::Listen { at: "the socket of systemd".into(), reason };
    let passed = listenfd::ListenFd::from_env().take_unix_listener(0);
    passed.map_err(|e| failed(e.to_string()))?.ok_or_else(|| {
        failed("none was passed (LISTEN_FDS is not set); the .socket unit has to start the agent".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_sockets_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        fs::write(&path, b"precious").unwrap();
        assert!(clear(&path).unwrap_err().contains("not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();

        let living = UnixListener::bind(&path).unwrap();
        assert!(clear(&path).unwrap_err().contains("answers"));
        drop(living);
        clear(&path).unwrap();
        assert!(!path.exists());
        clear(&path).unwrap();
    }

    #[test]
    fn a_socket_is_withdrawn_only_by_who_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/agent");
        let socket = Socket::Path(path.clone());
        let mut first = Endpoint::open(&socket, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        let second = Endpoint::open(&socket, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        first.withdraw();
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
