//! The system calls that are left, for seccomp.

use std::collections::BTreeMap;

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use self::Comparison::{Eq, Masked, Ne};
use super::Failure;
use crate::needs::{Needs, Network};

/// System calls, each with rules of which one has to hold; without any, it always does.
pub(super) type Calls = BTreeMap<i64, Vec<SeccompRule>>;

/// What serving takes, and what else `needs` says: no new programs and processes in any case, and
/// no sockets and executable memory but for a driver.
pub(super) fn allowed(needs: &Needs) -> Result<Calls, Failure> {
    let mut calls: Calls = SERVING.iter().map(|call| (*call, Vec::new())).collect();
    let thread = libc::CLONE_THREAD | libc::CLONE_VM;
    calls.insert(libc::SYS_clone, vec![rule(&[(0, Masked(thread), thread)])?]);
    // The name of a thread.
    calls.insert(libc::SYS_prctl, vec![rule(&[(0, Eq, libc::PR_SET_NAME)])?]);
    // To itself, which is how a program that found itself broken ends.
    calls.insert(libc::SYS_tgkill, vec![rule(&[(0, Eq, std::process::id().cast_signed())])?]);
    for (call, argument) in SENDING {
        // Only drivers send several messages at once.
        if needs.foreign || call != libc::SYS_sendmmsg {
            // A connection that begins with its data is one that Landlock does not see.
            calls.insert(call, vec![rule(&[(argument, Masked(libc::MSG_FASTOPEN), 0)])?]);
        }
    }
    if needs.foreign {
        calls.extend(DRIVING.iter().map(|call| (*call, Vec::new())));
        let mut sockets = vec![rule(&[(0, Eq, libc::AF_UNIX)])?];
        if needs.network != Network::None {
            sockets.push(rule(&[(0, Eq, libc::AF_NETLINK)])?);
            for family in [libc::AF_INET, libc::AF_INET6] {
                sockets.push(rule(&[(0, Eq, family), (1, Masked(KIND), libc::SOCK_DGRAM)])?);
                for protocol in [0, libc::IPPROTO_TCP] {
                    let stream = (1, Masked(KIND), libc::SOCK_STREAM);
                    sockets.push(rule(&[(0, Eq, family), stream, (2, Eq, protocol)])?);
                }
            }
        }
        calls.insert(libc::SYS_socket, sockets);
        calls.insert(
            libc::SYS_setsockopt,
            vec![rule(&[(1, Ne, libc::IPPROTO_TCP)])?, rule(&[(2, Ne, libc::TCP_FASTOPEN_CONNECT)])?],
        );
    } else {
        calls.insert(libc::SYS_mmap, vec![rule(&[(2, Masked(libc::PROT_EXEC), 0)])?]);
        calls.insert(libc::SYS_mprotect, vec![rule(&[(2, Masked(libc::PROT_EXEC), 0)])?]);
    }
    Ok(calls)
}

/// What goes past Landlock, which knows files that are run and the ports of plain TCP: programs in memory,
/// other protocols that reach who speaks TCP, connections that begin with their data, and unless the
/// process `listens`, listening on a port that the system chooses.
pub(super) fn denied(listens: bool) -> Result<Calls, Failure> {
    let never = [libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_io_uring_setup];
    let mut calls: Calls = never.into_iter().map(|call| (call, Vec::new())).collect();
    if !listens {
        calls.insert(libc::SYS_listen, Vec::new());
    }
    let [unix, inet, inet6, netlink] =
        [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| (0, Ne, family));
    let mut sockets = vec![rule(&[unix, inet, inet6, netlink])?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let stream = (1, Masked(KIND), libc::SOCK_STREAM);
        sockets.push(rule(&[(0, Eq, family), stream, (2, Ne, 0), (2, Ne, libc::IPPROTO_TCP)])?);
        for kind in [libc::SOCK_RAW, libc::SOCK_SEQPACKET, libc::SOCK_DCCP] {
            sockets.push(rule(&[(0, Eq, family), (1, Masked(KIND), kind)])?);
        }
    }
    calls.insert(libc::SYS_socket, sockets);
    for (call, argument) in SENDING {
        calls.insert(call, vec![rule(&[(argument, Masked(libc::MSG_FASTOPEN), libc::MSG_FASTOPEN)])?]);
    }
    calls.insert(
        libc::SYS_setsockopt,
        vec![rule(&[(1, Eq, libc::IPPROTO_TCP), (2, Eq, libc::TCP_FASTOPEN_CONNECT)])?],
    );
    Ok(calls)
}

/// A rule of conditions that all have to hold: which argument, compared how, with what.
fn rule(conditions: &[(u8, Comparison, i32)]) -> Result<SeccompRule, Failure> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(argument, comparison, value)| {
            let operator = match comparison {
                Eq => SeccompCmpOp::Eq,
                Ne => SeccompCmpOp::Ne,
                Masked(mask) => SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned())),
            };
            let value = u64::from(value.cast_unsigned());
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator, value)
        })
        .collect();
    Ok(SeccompRule::new(conditions?)?)
}

/// How an argument is compared; with a mask, only its bits.
#[derive(Clone, Copy)]
enum Comparison {
    Eq,
    Ne,
    Masked(i32),
}

/// The part of a socket's type that is no flag.
const KIND: i32 = 0xf;

/// What sends, and which argument its flags are.
const SENDING: [(i64, u8); 3] = [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];

/// What every agent does.
const SERVING: &[i64] = &[
    // Connections.
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_pipe2,
    libc::SYS_tee,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_fcntl,
    // The keys' files.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_fsync,
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and time.
    libc::SYS_clone3, // answered by the other filter
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
    // System calls that only older architectures have beside the above.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// What PKCS#11 modules and TPM drivers do besides: they load libraries, keep files and talk to
/// daemons and devices. Which files and which network addresses is Landlock's to say.
const DRIVING: &[i64] = &[
    // Libraries.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_pread64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    // Daemons and devices.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_socketpair,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_ioctl,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Files.
    libc::SYS_readv,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_utimensat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_umask,
    // Who and where they are.
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getppid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_times,
    libc::SYS_gettimeofday,
    libc::SYS_clock_getres,
    // Memory and threads.
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_membarrier,
    libc::SYS_set_tid_address,
    libc::SYS_get_robust_list,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigpending,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_create,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_eventfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getdents,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];
