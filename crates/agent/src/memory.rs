//! A bound for the memory of an agent whose module or driver leaks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::process::{Resource, Rlimit, setrlimit};

/// How much an agent of foreign code may take, if nobody says otherwise: 512 MiB.
pub(crate) const DEFAULT: u64 = 512 << 20;

/// The address space that the stacks of all threads may take, of which they use little.
const STACKS: u64 = 1 << 30;

/// The memory of this process, and what it may be.
pub(crate) struct Memory {
    /// `/proc/self/status`, which cannot be opened any more inside the sandbox.
    usage: File,
    limit: u64,
}

impl Memory {
    /// Bounds what this process can allocate at twice `limit` bytes, so that it is found to have
    /// [grown](Self::has_grown) beyond `limit` before the machine has none left.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn limited_to(limit: u64) -> io::Result<Self> {
        let most = Some(limit.saturating_mul(2).saturating_add(STACKS));
        setrlimit(Resource::Data, Rlimit { current: most, maximum: most })?;
        Ok(Self { usage: File::open("/proc/self/status")?, limit })
    }

    /// How many bytes this process has, if they are more than the limit.
    pub(crate) fn has_grown(&self) -> Option<u64> {
        let mut text = [0; 4096];
        let length = self.usage.read_at(&mut text, 0).ok()?;
        let (resident, allocated) = in_use(std::str::from_utf8(&text[..length]).ok()?)?;
        let grown = resident.max(allocated.saturating_sub(STACKS));
        (grown > self.limit).then_some(grown)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

/// The bytes that are in memory, and those that were allocated, by `status` (proc(5)).
fn in_use(status: &str) -> Option<(u64, u64)> {
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
    fn what_is_more_than_the_limit_has_grown() {
        let has_grown = |limit| Memory { usage: File::open("/proc/self/status").unwrap(), limit }.has_grown();
        assert_eq!(has_grown(1 << 50), None);
        assert!(has_grown(1 << 10).is_some_and(|bytes| bytes > 100 << 10));
        assert_eq!(in_use("VmData:\t 2048 kB\nVmRSS:\t   12 kB\n"), Some((12 << 10, 2 << 20)));
    }
}
