//! The agent's side of a lane: pipes beside a connection's socket, by which small requests for
//! signatures come, to a thread of their own.
//!
//! The thread waits in a plain `read`, the cheapest there is, and does nothing else; the connection's
//! first thread, which waits at the socket, learns that the peer is gone and ends it.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, openat};
use rustix::pipe::{SpliceFlags, tee};

use crate::connection::Permit;

/// How many lanes are open at once, of all connections. Each takes three descriptors.
const MAX_LANES: usize = 192;

/// What opens lanes and ends them.
pub(crate) struct Lanes {
    open: Arc<AtomicUsize>,
    /// A pipe with a byte in it, which stays there.
    nudge: Arc<PipeReader>,
}

/// A lane that is open until this is dropped.
pub(crate) struct Lane {
    /// The end that the peer writes to as well.
    requests: PipeWriter,
    closing: Arc<AtomicBool>,
    nudge: Arc<PipeReader>,
}

/// What its thread works with.
pub(crate) struct Ends {
    pub(crate) requests: Requests,
    /// A write to it never blocks.
    pub(crate) answers: PipeWriter,
    pub(crate) permit: Permit,
}

/// The requests that come by a lane, which end when it does.
pub(crate) struct Requests {
    pipe: PipeReader,
    closing: Arc<AtomicBool>,
}

impl Lanes {
    pub(crate) fn new() -> io::Result<Self> {
        let (nudge, mut writer) = io::pipe()?;
        io::Write::write_all(&mut writer, &[0])?;
        Ok(Self { open: Arc::default(), nudge: Arc::new(nudge) })
    }

    /// Opens one, with the peer's ends as the protocol has them.
    pub(crate) fn open(&self) -> io::Result<(Lane, Ends, Vec<OwnedFd>)> {
        let too_many = || io::Error::other(format!("{MAX_LANES} lanes are open"));
        let permit = Permit::take(&self.open, MAX_LANES).ok_or_else(too_many)?;
        let (theirs, answers) = io::pipe()?;
        fcntl_setfl(&answers, OFlags::NONBLOCK)?;
        let (pipe, requests) = io::pipe()?;
        let mut for_peer = vec![requests.try_clone()?.into(), theirs.into(), pipe.try_clone()?.into()];
        for_peer.extend(opened_again(&answers));
        let closing = Arc::new(AtomicBool::new(false));
        let requests_in = Requests { pipe, closing: closing.clone() };
        let lane = Lane { requests, closing, nudge: self.nudge.clone() };
        Ok((lane, Ends { requests: requests_in, answers, permit }, for_peer))
    }
}

/// An end of the same pipe whose flags are its own: a peer that has it can't make ours block.
/// `None` where /proc is not there.
fn opened_again(answers: &PipeWriter) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", answers.as_raw_fd());
    openat(CWD, path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // The thread may wait for a byte. A peer shares this end and can make it a blocking one, and
        // the pipe full, so that a write would not do. When there is no room, the thread reads.
        let _ = tee(&self.nudge, &self.requests, 1, SpliceFlags::NONBLOCK);
    }
}

impl Read for Requests {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        Ok(if self.closing.load(Ordering::Acquire) { 0 } else { count })
    }
}
