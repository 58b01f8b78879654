//! The client's side of a lane: two pipes beside the socket, which cost half as much for a small
//! request and its answer.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::connection::{Patience, TICK};
use super::watch::{Watch, Watched};

/// Frames up to this many bytes go by a lane: a write of so many to a pipe is whole or not at all
/// (`PIPE_BUF`), and finds room, as nothing else is under way.
const MAX_LANE_FRAME: usize = 4096;

/// How many descriptors come with the agent's answer at most.
const DESCRIPTORS: usize = 4;

pub(super) struct Lane {
    requests: File,
    answers: File,
    /// The other end of `requests`, so that writing to an agent that ended raises no SIGPIPE in a
    /// program that is not ours. That it ended is read from `answers`, or seen by who watches.
    _requests_end: OwnedFd,
    /// Wakes who reads when the wait is over, so that it need not `poll` first. `None` if there is
    /// nothing to do it with.
    watched: Option<Watched>,
}

impl Lane {
    /// What the agent sent along by `socket`. `None` if that is not what makes a lane.
    pub(super) fn new(descriptors: Vec<OwnedFd>, socket: &Arc<UnixStream>, watch: &Watch) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next();
        let (requests, answers, requests_end, nudge) = (next()?, next()?, next()?, next());
        let watched = nudge.and_then(|nudge| watch.over(nudge.into(), socket.clone()).ok());
        Some(Self {
            requests: requests.into(),
            answers: answers.into(),
            _requests_end: requests_end,
            watched,
        })
    }

    pub(super) fn admits(frame: &[u8]) -> bool {
        frame.len() <= MAX_LANE_FRAME
    }

    /// Sends a frame that is [admitted](Self::admits). It does not block.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match (&self.requests).write(frame)? {
            written if written == frame.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Where answers are read, by a caller of this patience.
    pub(super) fn answers<'a>(&'a self, patience: Patience<'a>) -> Answers<'a> {
        Answers { lane: self, patience }
    }
}

pub(super) struct Answers<'a> {
    lane: &'a Lane,
    patience: Patience<'a>,
}

/// `WouldBlock` when the caller's patience may be at its end.
impl Read for Answers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Lane { answers, watched, .. } = self.lane;
        if let Some(watched) = watched {
            return watched.wait(self.patience, || (&*answers).read(buffer));
        }
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        match poll(&mut [PollFd::new(answers, PollFlags::IN)], Some(&tick))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => (&*answers).read(buffer),
        }
    }
}

/// Reads from a socket, and keeps the descriptors that come along.
pub(super) struct Receiving<'a> {
    pub(super) stream: &'a UnixStream,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Read for Receiving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut along = RecvAncillaryBuffer::new(&mut room);
        let received =
            recvmsg(self.stream, &mut [IoSliceMut::new(buffer)], &mut along, close_on_exec())?.bytes;
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        #[cfg(target_vendor = "apple")]
        self.descriptors.iter().try_for_each(rustix::io::ioctl_fioclex)?;
        Ok(received)
    }
}

fn close_on_exec() -> RecvFlags {
    #[cfg(target_vendor = "apple")]
    return RecvFlags::empty();
    #[cfg(not(target_vendor = "apple"))]
    return RecvFlags::CMSG_CLOEXEC;
}
