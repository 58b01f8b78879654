//! Ends waits that have lasted too long, for callers who wait in a plain `read`. To `poll` before it
//! would cost every one of them what only a few need.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Patience, TICK};
use crate::Cancel;

/// After so many ticks without a wait nobody looks any more until there is one.
const IDLE_TICKS: u32 = 40;

const STACK: usize = 64 * 1024;

/// A thread that looks at what is watched once in a [`TICK`], from the first until this is dropped.
#[derive(Default)]
pub(super) struct Watch {
    watcher: Mutex<Option<Thread>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pipes: Mutex<Vec<Weak<Pipe>>>,
    ended: AtomicBool,
}

/// A pipe whose reader is woken when its wait is over.
pub(super) struct Watched {
    pipe: Arc<Pipe>,
    watcher: Thread,
}

struct Pipe {
    /// An end to write to, which never blocks.
    nudge: File,
    /// Hangs up when there will be no answer.
    socket: Arc<UnixStream>,
    state: Mutex<State>,
}

struct State {
    wait: Option<Wait>,
    /// Whether there was a wait since the watcher looked last.
    used: bool,
    /// Whether the watcher has to be told of the next wait.
    unwatched: bool,
}

struct Wait {
    until: Instant,
    cancel: Cancel,
    over: Option<io::ErrorKind>,
}

impl Watch {
    /// Watches a pipe: `nudge` is an end to write to that does not block, and `socket` hangs up
    /// when nothing more will come by the pipe.
    pub(super) fn over(&self, nudge: File, socket: Arc<UnixStream>) -> io::Result<Watched> {
        let mut watcher = locked(&self.watcher);
        let watcher = match &*watcher {
            Some(watcher) => watcher.clone(),
            None => {
                let shared = self.shared.clone();
                let builder = thread::Builder::new().name("enclasp-watch".into()).stack_size(STACK);
                let started = builder.spawn(move || shared.look_until_ended())?;
                watcher.insert(started.thread().clone()).clone()
            }
        };
        let state = State { wait: None, used: false, unwatched: true };
        let pipe = Arc::new(Pipe { nudge, socket, state: Mutex::new(state) });
        let mut pipes = locked(&self.shared.pipes);
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.push(Arc::downgrade(&pipe));
        Ok(Watched { pipe, watcher })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(watcher) = &*locked(&self.watcher) {
            watcher.unpark();
        }
    }
}

impl Watched {
    /// Calls `read`, which waits at the pipe.
    ///
    /// # Errors
    /// What `read` returns, `WouldBlock` when the caller's patience was at its end, and
    /// `UnexpectedEof` when the socket hung up.
    pub(super) fn wait(
        &self,
        patience: Patience<'_>,
        read: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let wait = Wait { until: patience.until, cancel: patience.cancel.clone(), over: None };
        let unwatched = {
            let mut state = locked(&self.pipe.state);
            state.wait = Some(wait);
            state.used = true;
            std::mem::take(&mut state.unwatched)
        };
        if unwatched {
            self.watcher.unpark();
        }
        let read = read();
        match locked(&self.pipe.state).wait.take().and_then(|wait| wait.over) {
            // What was read is the nudge, or came with it.
            Some(over) => Err(over.into()),
            None => read,
        }
    }
}

impl Shared {
    fn look_until_ended(&self) {
        let mut idle = 0;
        while !self.ended.load(Ordering::Acquire) {
            idle = if self.look(idle >= IDLE_TICKS) { 0 } else { idle + 1 };
            if idle > IDLE_TICKS {
                thread::park();
            } else {
                thread::park_timeout(TICK);
            }
        }
    }

    /// Ends the waits that are over, and tells whether there were any waits. If not, and this is the
    /// last look, the next wait will tell.
    fn look(&self, last: bool) -> bool {
        let pipes = locked(&self.pipes);
        // All of them: each has to know whether it is watched.
        let used = |used, pipe: Arc<Pipe>| pipe.look(last) || used;
        pipes.iter().filter_map(Weak::upgrade).fold(false, used)
    }
}

impl Pipe {
    fn look(&self, last: bool) -> bool {
        let mut state = locked(&self.state);
        if let Some(wait) = &mut state.wait
            && wait.over.is_none()
        {
            wait.over = if wait.cancel.is_cancelled() || Instant::now() >= wait.until {
                Some(io::ErrorKind::WouldBlock)
            } else {
                self.hung_up().then_some(io::ErrorKind::UnexpectedEof)
            };
            if wait.over.is_some() {
                // There is room: nobody would wait if there were something to read.
                let _ = (&self.nudge).write(&[0]);
            }
        }
        let used = state.used || state.wait.is_some();
        state.used = false;
        state.unwatched = last && !used;
        used
    }

    fn hung_up(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut socket, Some(&now)).is_ok() && socket[0].revents().contains(PollFlags::HUP)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};
    use std::time::Duration;

    use super::*;

    /// A pipe that is watched, its other end, and the peer of its socket.
    fn watched(watch: &Watch) -> (Watched, PipeReader, UnixStream) {
        let (answers, nudge) = io::pipe().unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        let nudge = File::from(std::os::fd::OwnedFd::from(nudge));
        (watch.over(nudge, Arc::new(socket)).unwrap(), answers, peer)
    }

    fn wait(watched: &Watched, mut answers: &PipeReader, patience: Patience<'_>) -> io::Result<usize> {
        watched.wait(patience, || answers.read(&mut [0; 8]))
    }

    fn in_a_minute(cancel: &Cancel) -> Patience<'_> {
        Patience { until: Instant::now() + Duration::from_secs(60), cancel }
    }

    #[test]
    fn what_is_there_is_read() {
        let (watch, cancel) = (Watch::default(), Cancel::default());
        let (watched, answers, _peer) = watched(&watch);
        (&watched.pipe.nudge).write_all(b"abc").unwrap();
        assert_eq!(wait(&watched, &answers, in_a_minute(&cancel)).unwrap(), 3);
    }

    #[test]
    fn a_wait_ends_at_its_time_when_cancelled_and_when_the_peer_is_gone() {
        let (watch, cancel) = (Watch::default(), Cancel::default());
        let (late, late_answers, _peer) = watched(&watch);
        let (gone, gone_answers, peer) = watched(&watch);
        let soon = Patience { until: Instant::now() + TICK, cancel: &cancel };
        let error = wait(&late, &late_answers, soon).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(peer);
        let error = wait(&gone, &gone_answers, in_a_minute(&cancel)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&late, &late_answers, in_a_minute(&cancel)));
            cancel.cancel();
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn a_watcher_that_rests_is_told_of_the_next_wait() {
        let (watch, cancel) = (Watch::default(), Cancel::default());
        let (watched, answers, _peer) = watched(&watch);
        for _ in 0..2 {
            while !locked(&watched.pipe.state).unwatched {
                thread::sleep(TICK);
            }
            let soon = Patience { until: Instant::now() + TICK, cancel: &cancel };
            let error = wait(&watched, &answers, soon).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
