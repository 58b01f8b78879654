//! Whose turn it is to make a handshake, which may cost a signature of hardware.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Who takes turns from a share of their own: an IPv4 address, the /64 of an IPv6 address, which is
/// what one customer gets, or a user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
    User(u32),
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// A bound on turns that are taken at the same time, and one on those of each source. Who exceeds
/// them waits, those of a source in its own line.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Semaphore,
    of_source: usize,
    sources: Mutex<HashMap<Source, Arc<Semaphore>>>,
}

/// A turn, given back when it is dropped.
pub(crate) struct Turn<'a> {
    _of_all: Option<SemaphorePermit<'a>>,
    _of_source: Option<OwnedSemaphorePermit>,
    // Last, as it looks whether the source has no turn any more.
    _line: Line<'a>,
}

impl Turns {
    pub(crate) fn new(all: usize, of_source: usize) -> Self {
        Self { all: Semaphore::new(all), of_source, sources: Mutex::default() }
    }

    pub(crate) async fn take(&self, source: Source) -> Turn<'_> {
        let line = {
            let mut sources = self.sources();
            let semaphore = sources.entry(source).or_insert_with(|| Arc::new(Semaphore::new(self.of_source)));
            Line { turns: self, source, semaphore: semaphore.clone() }
        };
        // Neither semaphore is ever closed.
        let of_source = line.semaphore.clone().acquire_owned().await.ok();
        let of_all = self.all.acquire().await.ok();
        Turn { _of_all: of_all, _of_source: of_source, _line: line }
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<Source, Arc<Semaphore>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line of a source, which is forgotten when nobody stands in it.
struct Line<'a> {
    turns: &'a Turns,
    source: Source,
    semaphore: Arc<Semaphore>,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut sources = self.turns.sources();
        // The map's and this one's; others are made only under the lock.
        if Arc::strong_count(&self.semaphore) == 2 {
            sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_source_is_an_address_or_a_network() {
        let source = |text: &str| Source::from(SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn one_source_leaves_turns_to_others_and_nothing_behind() {
        let turns = Turns::new(3, 2);
        let mut context = Context::from_waker(Waker::noop());
        let (greedy, other, third) = (Source::User(1), Source::User(2), Source::User(3));
        let mut taken: Vec<_> = Vec::new();
        for (source, gets_it) in
            [(greedy, true), (greedy, true), (greedy, false), (other, true), (third, false)]
        {
            let turn = pin!(turns.take(source)).poll(&mut context);
            assert_eq!(turn.is_ready(), gets_it, "{source:?}");
            taken.push(turn);
        }
        // Those that waited have been dropped.
        assert_eq!(turns.sources().len(), 2);
        drop(taken);
        assert_eq!(turns.sources().len(), 0);
        assert_eq!(turns.all.available_permits(), 3);
    }
}
