//! The system calls that no safe crate offers.
#![expect(
    unsafe_code,
    reason = "close_range, signalfd, SO_PEERCRED of a peer without a pid, and SO_PEERGROUPS"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::admission::Peer;

/// Closes what this process was started with, but for standard input, output and error and the
/// sockets that systemd passed. A program that starts an agent may leave its listeners and connections
/// open to whom it starts, and an agent would keep them open when that program is gone.
///
/// Call it before anything else: what this process has opened itself is closed as well. A kernel
/// before Linux 5.9 cannot do it, which is logged.
pub fn close_inherited() {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let passed = match variable("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => variable("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    };
    // SAFETY: these descriptors were opened by another program, so that nothing here owns them.
    if unsafe { libc::close_range(passed.saturating_add(3), u32::MAX, 0) } != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "files of the program that started this one may stay open");
    }
}

/// Blocks SIGTERM and SIGINT for this thread and those that it starts; the descriptor becomes
/// readable when one arrives.
pub(crate) fn termination_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set, which the other calls only read or add to; signalfd
    // returns a new descriptor that nobody else owns.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Who is at the other end, as the kernel recorded it when the connection was made.
pub(crate) fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `credentials`, any of whose bit patterns
    // is valid.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        // 0 if the peer lives in another pid namespace.
        pid: u32::try_from(credentials.pid).ok().filter(|pid| *pid != 0),
        uid: credentials.uid,
        gid: credentials.gid,
        groups: peer_groups(stream)?,
    })
}

/// The peer's supplementary groups.
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 32];
    loop {
        let mut length = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, which is the size of `groups`.
        let failed = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = length as usize / size_of::<u32>();
        if failed == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE tells how much room is needed (at most NGROUPS_MAX).
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}
