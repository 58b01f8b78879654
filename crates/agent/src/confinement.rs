//! Closing off a process that holds no keystore but meets strangers: a tunnel. Landlock says what files and
//! ports it has; seccomp takes away what Landlock does not see.

use std::collections::BTreeSet;
use std::path::PathBuf;

use landlock::{
    Access, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
    path_beneath_rules,
};

use crate::Error;
use crate::sandbox::{
    Failure, LANDLOCK, LANDLOCK_ABI, SECCOMP, deny_ways_past_landlock, enforced, only_thread,
};

/// What a process keeps of the file system and of TCP when it closes itself off. It keeps what it has open,
/// Unix sockets and UDP; it can run no programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Files to read, and folders below which files are read. What does not exist is passed over.
    pub readable: BTreeSet<PathBuf>,
    /// Folders in which files are made, changed and removed.
    pub writable: BTreeSet<PathBuf>,
    /// Folders in which Unix sockets are made and removed. Connecting to one is not restricted.
    pub sockets: BTreeSet<PathBuf>,
    /// TCP ports to listen on; 0 is any free one.
    pub listen: BTreeSet<u16>,
    /// TCP ports to connect to; none is all.
    pub connect: Option<BTreeSet<u16>>,
    /// Whether Unix sockets without a path can be connected to that other processes made.
    pub abstract_sockets: bool,
}

impl Confinement {
    /// Whether a process that was closed off by this one can do all that `other` lets it do.
    pub fn admits(&self, other: &Self) -> bool {
        let ports = match (&self.connect, &other.connect) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => theirs.is_subset(ours),
            (Some(_), None) => false,
        };
        ports
            && other.readable.is_subset(&self.readable)
            && other.writable.is_subset(&self.writable)
            && other.sockets.is_subset(&self.sockets)
            && other.listen.is_subset(&self.listen)
            && (self.abstract_sockets || !other.abstract_sockets)
    }

    /// Closes this thread off, which has to be the process's only one, and those that it starts. There is no
    /// way back. System calls that go past Landlock are taken away too: running programs, MPTCP and its kin,
    /// and listening on any port if there is none to listen on.
    ///
    /// # Errors
    /// [`Error::Confinement`] if that is not in force, or not all of it: the kernel lacks it, in whole or in
    /// part, or there are other threads.
    pub fn close(&self) -> Result<(), Error> {
        let failed = |measure, reason: Failure| Error::Confinement { measure, reason: reason.to_string() };
        only_thread().map_err(|reason| failed(LANDLOCK, reason))?;
        let landlock = self.restrict();
        let listens = !self.listen.is_empty() || !self.sockets.is_empty();
        // Where one is not to be had, the other one still is.
        let seccomp = deny_ways_past_landlock(listens);
        landlock.map_err(|reason| failed(LANDLOCK, reason))?;
        seccomp.map_err(|reason| failed(SECCOMP, reason))
    }

    fn restrict(&self) -> Result<(), Failure> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write =
            read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
        let socket = AccessFs::MakeSock | AccessFs::RemoveFile;
        let mut network: BitFlags<AccessNet> = AccessNet::BindTcp.into();
        if self.connect.is_some() {
            network |= AccessNet::ConnectTcp;
        }
        let mut scope: BitFlags<Scope> = Scope::Signal.into();
        if !self.abstract_sockets {
            scope |= Scope::AbstractUnixSocket;
        }
        let listen = self.listen.iter().map(|port| NetPort::new(*port, AccessNet::BindTcp));
        let connect = self.connect.iter().flatten().map(|port| NetPort::new(*port, AccessNet::ConnectTcp));
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
            .handle_access(network)?
            .scope(scope)?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules(&self.writable, write))?
            .add_rules(path_beneath_rules(&self.sockets, socket))?
            .add_rules(listen.chain(connect).map(Ok::<_, landlock::RulesetError>))?;
        enforced(&rules.restrict_self()?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;
    use std::thread;

    use enclasp_keystore::durable;
    use rustix::net::{AddressFamily, SocketType};

    use super::*;
    use crate::sandbox::tests::ways_past_landlock;

    /// It holds for one thread, so that a test can close itself in.
    #[test]
    fn a_closed_thread_has_what_it_keeps_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["certificates", "identities", "run", "outside"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("certificates/a"), b"a").unwrap();
        fs::write(path("outside/secret"), b"s").unwrap();
        symlink(path("outside/secret"), path("certificates/link")).unwrap();
        let _other = UnixListener::bind(path("outside/socket")).unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [open, shut] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let kept = Confinement {
            readable: [path("certificates"), path("not/there")].into(),
            writable: [path("identities")].into(),
            sockets: [path("run")].into(),
            listen: [0].into(),
            connect: Some([open.port()].into()),
            abstract_sockets: false,
        };
        let path = move |name: &str| folder.path().join(name);
        let closed = thread::spawn(move || {
            kept.close().unwrap();
            let denied = |what: &str, error: std::io::Error| {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
            };
            denied("read outside", File::open(path("outside/secret")).unwrap_err());
            denied("read by a link that leads outside", File::open(path("certificates/link")).unwrap_err());
            denied("read a system file", File::open("/etc/passwd").unwrap_err());
            denied("read memory", File::open("/proc/self/mem").unwrap_err());
            denied("write where it reads", fs::write(path("certificates/b"), b"b").unwrap_err());
            denied("make a folder", fs::create_dir(path("identities/sub")).unwrap_err());
            denied("make a file beside sockets", fs::write(path("run/file"), b"b").unwrap_err());
            // By seccomp, also where there is no file for Landlock to deny.
            let error = Command::new("/bin/true").spawn().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            denied("connect elsewhere", TcpStream::connect(shut).unwrap_err());
            for (way, outcome) in ways_past_landlock(shut) {
                denied(way, outcome.unwrap_err());
            }
            denied("listen elsewhere", TcpListener::bind(("127.0.0.1", shut.port() ^ 1)).unwrap_err());
            assert_eq!(fs::read(path("certificates/a")).unwrap(), b"a");
            durable::replace(&path("identities/one"), b"1").unwrap();
            durable::replace(&path("identities/one"), b"2").unwrap();
            UnixListener::bind(path("run/first")).unwrap();
            UnixListener::bind(path("run/second")).unwrap();
            fs::rename(path("run/first"), path("run/second")).unwrap();
            fs::remove_file(path("run/second")).unwrap();
            UnixStream::connect(path("outside/socket")).unwrap();
            TcpStream::connect(open).unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap();
        });
        closed.join().unwrap();
    }

    /// As a worker does, whose parent listens.
    #[test]
    fn who_has_nothing_to_listen_on_cannot_listen_anywhere() {
        let closed = thread::spawn(|| {
            Confinement::default().close().unwrap();
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            assert_eq!(rustix::net::listen(&socket, 1), Err(rustix::io::Errno::PERM));
        });
        closed.join().unwrap();
    }

    #[test]
    fn what_is_kept_can_be_compared() {
        let kept = Confinement {
            readable: ["/a".into(), "/b".into()].into(),
            listen: [8443].into(),
            connect: Some([80].into()),
            ..Confinement::default()
        };
        assert!(
            kept.admits(&kept)
                && kept.admits(&Confinement { connect: Some([].into()), ..Confinement::default() })
        );
        for more in [
            Confinement { readable: ["/c".into()].into(), ..kept.clone() },
            Confinement { listen: [8444].into(), ..kept.clone() },
            Confinement { connect: Some([80, 443].into()), ..kept.clone() },
            Confinement { connect: None, ..kept.clone() },
            Confinement { writable: ["/a".into()].into(), ..kept.clone() },
        ] {
            assert!(!kept.admits(&more), "{more:?}");
        }
    }
}
