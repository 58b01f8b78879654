//! Bounds for what a module or a driver may take of the system, so that one that leaks ends its own
//! agent and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much memory an agent of foreign code may take, if nobody says otherwise: 512 MiB.
pub(crate) const MEMORY: u64 = 512 << 20;

/// The address space that the stacks of all threads may take, of which they use little.
const STACKS: u64 = 1 << 30;

/// How many files and sockets it may have open: twice what connections and their lanes take at most.
const FILES: u64 = 4096;

/// What this process may take.
pub(crate) struct Limits {
    /// `/proc/self/status`, which cannot be opened any more inside the sandbox.
    usage: File,
    memory: u64,
}

impl Limits {
    /// Bounds what this process can allocate at twice `memory` bytes, so that it is found to
    /// [exceed](Self::exceeded) it before the machine has none left, and how many files it can open.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn set(memory: u64) -> io::Result<Self> {
        let most = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(Resource::Data, most(memory.saturating_mul(2).saturating_add(STACKS)))?;
        let files = getrlimit(Resource::Nofile).maximum.map_or(FILES, |hard| hard.min(FILES));
        setrlimit(Resource::Nofile, most(files))?;
        Ok(Self { usage: File::open("/proc/self/status")?, memory })
    }

    /// What this process has taken too much of, if it has.
    pub(crate) fn exceeded(&self) -> Option<String> {
        if fcntl_dupfd_cloexec(&self.usage, 0).is_err_and(|error| error == Errno::MFILE) {
            return Some("all files are open that it may open".into());
        }
        let mut text = [0; 4096];
        let length = self.usage.read_at(&mut text, 0).ok()?;
        let (resident, allocated) = memory_in_use(std::str::from_utf8(&text[..length]).ok()?)?;
        let taken = resident.max(allocated.saturating_sub(STACKS));
        let [taken_mib, limit_mib] = [taken, self.memory].map(|bytes| bytes >> 20);
        (taken > self.memory)
            .then(|| format!("{taken_mib} MiB of memory are in use, and {limit_mib} MiB are the limit"))
    }
}

/// The bytes that are in memory, and those that were allocated, by `status` (proc(5)).
fn memory_in_use(status: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    Some((bytes("VmRSS:")?, bytes("VmData:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_the_limit_is_too_much() {
        let exceeded = |memory| Limits { usage: File::open("/proc/self/status").unwrap(), memory }.exceeded();
        assert_eq!(exceeded(1 << 50), None);
        assert!(exceeded(1 << 10).is_some_and(|what| what.ends_with("and 0 MiB are the limit")));
        assert_eq!(memory_in_use("VmData:\t 2048 kB\nVmRSS:\t   12 kB\n"), Some((12 << 10, 2 << 20)));
    }
}
