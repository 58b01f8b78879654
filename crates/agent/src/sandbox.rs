//! Making this process hard to look into, and closing it off from the system.
//!
//! Each measure is recorded with its outcome: what a kernel lacks is said, not assumed.

mod calls;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::Error;
use crate::needs::{Needs, Network};

/// A measure and whether it is in force, as in
/// [`Status::protections`](enclasp_keystore::agent::Status).
pub(crate) type Measure = (String, Result<(), String>);

pub(crate) type Failure = Box<dyn StdError>;

pub(crate) const LANDLOCK: &str = "landlock";
pub(crate) const SECCOMP: &str = "seccomp";

/// The Landlock version whose restrictions are asked for; an older kernel enforces what it knows.
pub(crate) const LANDLOCK_ABI: ABI = ABI::V6;

/// Keeps other processes, core files and the swap away from what is in memory. For the whole
/// process; before keys are in memory.
pub(crate) fn harden() -> Vec<Measure> {
    vec![
        measure("not-dumpable", || Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)),
        measure("no-core-files", || {
            Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
        }),
        measure("memory-locked", lock_memory),
        measure("no-new-privileges", || Ok(set_no_new_privs(true)?)),
    ]
}

/// Closes the sandbox for this thread and those that it starts: files below `keys` are all that is
/// left of the file system, but for the right to remove a file in `socket_folder`, and for `needs`.
pub(crate) fn close(keys: &Path, socket_folder: Option<&Path>, needs: &Needs) -> Vec<Measure> {
    if let Err(reason) = only_thread() {
        return [LANDLOCK, SECCOMP].map(|name| (name.to_owned(), Err(reason.to_string()))).into();
    }
    vec![
        measure(LANDLOCK, || restrict_access(keys, socket_folder, needs)),
        measure(SECCOMP, || restrict_system_calls(needs)),
    ]
}

/// Logs what is not in force.
///
/// # Errors
/// [`Error::Sandbox`] if one of the two that make the sandbox is `required` and is not.
pub(crate) fn report(measures: &[Measure], required: bool) -> Result<(), Error> {
    for (measure, outcome) in measures {
        let Err(reason) = outcome else { continue };
        if required && [LANDLOCK, SECCOMP].contains(&measure.as_str()) {
            return Err(Error::Sandbox { measure: measure.clone(), reason: reason.clone() });
        }
        tracing::warn!(%measure, %reason, "a protection is not in force");
    }
    Ok(())
}

fn measure(name: &str, put_in_force: impl FnOnce() -> Result<(), Failure>) -> Measure {
    (name.to_owned(), put_in_force().map_err(|e| e.to_string()))
}

/// Locks all pages as they come into use. With a limit, a later allocation could fail, so that it
/// is done only without one.
fn lock_memory() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Memlock);
    // Up to the hard limit it may be raised by anybody; what that gives is looked at next.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let (Some(bytes), false) = (limit.maximum, privileged) {
        return Err(format!("no more than {bytes} bytes may be locked (RLIMIT_MEMLOCK)").into());
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// The sandbox would not hold for threads that were started before.
#[cfg(not(test))]
pub(crate) fn only_thread() -> Result<(), Failure> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        count => Err(format!("{count} threads run already, of which it would hold one").into()),
    }
}

/// The tests close the sandbox of one thread of many.
#[cfg(test)]
pub(crate) fn only_thread() -> Result<(), Failure> {
    Ok(())
}

fn restrict_access(keys: &Path, socket_folder: Option<&Path>, needs: &Needs) -> Result<(), Failure> {
    let mut used = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    if needs.foreign {
        // What a keystore makes as it opens, which is inside.
        used |= AccessFs::MakeDir;
    }
    let network = match needs.network {
        Network::Any => AccessNet::BindTcp.into(),
        Network::None | Network::Ports(_) => AccessNet::from_all(LANDLOCK_ABI),
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(network)?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(keys)?, used))?;
    if let Some(folder) = socket_folder {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(folder)?, AccessFs::RemoveFile))?;
    }
    let changed = AccessFs::from_all(LANDLOCK_ABI) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    rules = rules
        .add_rules(path_beneath_rules(&needs.readable, AccessFs::from_read(LANDLOCK_ABI)))?
        .add_rules(path_beneath_rules(&needs.writable, changed))?;
    if let Network::Ports(ports) = &needs.network {
        for port in ports {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
    }
    enforced(&rules.restrict_self()?)
}

/// Whether the kernel does all that it was asked.
pub(crate) fn enforced(status: &RestrictionStatus) -> Result<(), Failure> {
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Ok(()),
        (_, LandlockStatus::NotEnabled) => Err("the kernel has it, but did not enable it".into()),
        (_, LandlockStatus::NotImplemented) => Err("the kernel does not have it".into()),
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            Err(format!("only in part: the kernel has version {effective_abi:?} of it, not {LANDLOCK_ABI:?}")
                .into())
        }
    }
}

/// Takes away the system calls that go past Landlock.
pub(crate) fn deny_ways_past_landlock(listens: bool) -> Result<(), Failure> {
    let denied: BpfProgram = SeccompFilter::new(
        calls::denied(listens)?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()?;
    Ok(seccompiler::apply_filter(&denied)?)
}

fn restrict_system_calls(needs: &Needs) -> Result<(), Failure> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    // clone3 takes its flags from memory, where a filter cannot look; glibc falls back to clone
    // when it does not exist.
    let no_clone3: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )?
    .try_into()?;
    let allowed: BpfProgram = SeccompFilter::new(
        calls::allowed(needs)?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    )?
    .try_into()?;
    // The second forbids the installation of a third.
    seccompiler::apply_filter(&no_clone3)?;
    Ok(seccompiler::apply_filter(&allowed)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;
    use std::thread;

    use enclasp_keystore::durable;
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// What reaches an address by TCP though no rule of Landlock's is for its port.
    pub(crate) fn ways_past_landlock(address: SocketAddr) -> [(&'static str, std::io::Result<()>); 4] {
        let socket = |kind, protocol| socket(AddressFamily::INET, kind, protocol);
        let fast = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
        let stream = socket(SocketType::STREAM, None).unwrap();
        [
            ("by MPTCP", socket(SocketType::STREAM, Some(ipproto::MPTCP)).map(drop)),
            ("by SCTP", socket(SocketType::SEQPACKET, None).map(drop)),
            ("by a raw socket", socket(SocketType::RAW, Some(ipproto::TCP)).map(drop)),
            ("with data at once", sendto(&stream, b"x", fast, &address).map(drop)),
        ]
        .map(|(way, outcome)| (way, outcome.map_err(Into::into)))
    }

    /// Both parts of the sandbox hold for one thread, so that a test can close itself in.
    #[test]
    fn a_closed_thread_reaches_nothing_but_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, runtime) = (folder.path().join("keys"), folder.path().join("runtime"));
        let outside = folder.path().join("outside");
        fs::create_dir(&keys).unwrap();
        fs::create_dir(&runtime).unwrap();
        fs::write(&outside, b"x").unwrap();
        fs::write(runtime.join("socket"), b"x").unwrap();
        let _listener = UnixListener::bind(runtime.join("other")).unwrap();
        let closed = thread::spawn(move || {
            for (measure, outcome) in close(&keys, Some(&runtime), &Needs::default()) {
                assert_eq!(outcome, Ok(()), "{measure}");
            }
            let denied = |what: &str, error: std::io::Error| {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
            };
            denied("read", File::open(&outside).unwrap_err());
            denied("read below /etc", File::open("/etc/passwd").unwrap_err());
            denied("read below /proc", File::open("/proc/self/mem").unwrap_err());
            denied("write", fs::write(&outside, b"y").unwrap_err());
            denied("symlink", symlink(&outside, keys.join("link")).unwrap_err());
            denied("make beside the socket", fs::write(runtime.join("new"), b"y").unwrap_err());
            denied("run a program", Command::new("/bin/true").spawn().unwrap_err());
            denied("connect by TCP", TcpStream::connect("127.0.0.1:1").unwrap_err());
            denied("connect by a path", UnixStream::connect(runtime.join("other")).unwrap_err());
            denied("signal", kill_process(getpid(), Signal::CONT).unwrap_err().into());
            assert!(fs::hard_link(&outside, keys.join("stolen")).is_err());
            assert!(restrict_system_calls(&Needs::default()).is_err());

            durable::create(&keys.join("a"), b"1").unwrap();
            durable::replace(&keys.join("a"), b"2").unwrap();
            assert_eq!(durable::read(&keys.join("a"), 10).unwrap().unwrap(), b"2");
            assert!(durable::remove(&keys.join("a")).unwrap());
            assert_eq!(fs::read_dir(&keys).unwrap().count(), 0);
            fs::remove_file(runtime.join("socket")).unwrap();
            thread::Builder::new().name("inner".into()).spawn(|| ()).unwrap().join().unwrap();
            assert!(std::panic::catch_unwind(|| panic!("expected")).is_err());
        });
        closed.join().unwrap();
    }

    /// What a driver is admitted is that, and not the rest.
    #[test]
    fn a_driver_reaches_what_it_needs_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, tokens) = (folder.path().join("keys"), folder.path().join("tokens"));
        let outside = folder.path().join("outside");
        fs::create_dir(&keys).unwrap();
        fs::create_dir(&tokens).unwrap();
        fs::write(&outside, b"x").unwrap();
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [open, shut] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let needs = Needs {
            foreign: true,
            readable: vec!["/etc".into(), "/not/there".into()],
            writable: vec![tokens.clone()],
            network: Network::Ports(vec![open.port()]),
            memory: None,
        };
        let closed = thread::spawn(move || {
            for (measure, outcome) in close(&keys, None, &needs) {
                assert_eq!(outcome, Ok(()), "{measure}");
            }
            let denied = |what: &str, error: std::io::Error| {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
            };
            denied("read", File::open(&outside).unwrap_err());
            denied("write below /etc", fs::write("/etc/enclasp-test", b"y").unwrap_err());
            denied("run a program", Command::new("/bin/true").spawn().unwrap_err());
            denied("connect elsewhere", TcpStream::connect(shut).unwrap_err());
            denied("listen", std::net::TcpListener::bind("127.0.0.1:0").unwrap_err());
            for (way, outcome) in ways_past_landlock(shut) {
                denied(way, outcome.unwrap_err());
            }
            File::open("/etc/passwd").unwrap();
            TcpStream::connect(open).unwrap();
            fs::create_dir(tokens.join("new")).unwrap();
            fs::write(tokens.join("new/object"), b"y").unwrap();
            fs::write(tokens.join("new/object"), b"z").unwrap();
            fs::rename(tokens.join("new/object"), tokens.join("object")).unwrap();
            fs::remove_dir_all(tokens.join("new")).unwrap();
        });
        closed.join().unwrap();
    }

    #[test]
    fn a_required_sandbox_that_is_missing_is_an_error() {
        let missing = [(SECCOMP.to_owned(), Err("the kernel does not have it".to_owned()))];
        assert!(report(&missing, false).is_ok());
        let error = report(&missing, true).unwrap_err().to_string();
        assert_eq!(error, "the agent cannot be closed off by seccomp: the kernel does not have it");
        let unlocked = [("memory-locked".to_owned(), Err("limit".to_owned()))];
        assert!(report(&unlocked, true).is_ok());
    }
}
