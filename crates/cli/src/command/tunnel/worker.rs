//! The process that runs the tunnels of a file, and what it says to its [`parent`](super::parent). It closes itself
//! off, so that it can neither listen nor open what its file did not name: the parent listens for it, and starts
//! another worker in its place when the file has come to name more.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enclasp_tunnel::{Bound, Endpoint};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::config::Config;
use crate::args::Global;
use crate::command;
use crate::failure::{Failure, Outcome};

/// How long the parent may take to answer, which it does at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// No answer is longer.
const MAX_ANSWER: usize = 16 << 10;

/// What a worker says, a line of JSON each.
#[derive(Serialize, Deserialize)]
pub(super) enum Said {
    /// Listen here. It is answered with [`Answer`], and a socket if that is good.
    Listen(String),
    /// It serves, and these are the addresses that it listens on.
    Ready(Vec<String>),
    /// It is alive.
    Alive,
    /// It does not serve, for this reason.
    Failed { message: String, hint: Option<String>, usage: bool },
}

/// Why the parent does not listen.
pub(super) type Answer = Result<(), String>;

/// Where the sockets come from that tunnels listen on, and who is told how they are.
#[derive(Clone)]
pub(super) enum Above {
    /// This process listens, and the service manager is told.
    Nobody,
    /// The parent does; whether this is its first worker.
    Parent(Parent, bool),
}

/// The parent of a worker.
#[derive(Clone)]
pub(super) struct Parent(Arc<Mutex<UnixStream>>);

/// Runs the tunnels of a file as the worker of the process at the other end of standard input.
pub(super) fn run(global: &Global, config: PathBuf, number: u32) -> Outcome {
    // Who is left alone finishes what is open.
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)?;
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_read_timeout(Some(PATIENCE))?;
    let parent = Parent(Arc::new(Mutex::new(stream)));
    let above = Above::Parent(parent.clone(), number == 0);
    let done = Config::read(config)
        .and_then(|(config, plans, process)| super::closed_off(global, plans, &process, Some(config), above));
    // The parent reports it.
    done.or_else(|failure| {
        parent.tell(&Said::Failed {
            message: failure.message().to_owned(),
            hint: failure.next_step().map(str::to_owned),
            usage: failure.is_usage(),
        })
    })
}

impl Above {
    /// Listens at an address.
    pub(super) async fn listen(&self, endpoint: &Endpoint) -> Outcome<Bound> {
        match self {
            Self::Nobody => Ok(Bound::listen(endpoint).await?),
            Self::Parent(parent, _) => {
                let (parent, endpoint) = (parent.clone(), endpoint.clone());
                command::blocking(move || parent.listen(&endpoint)).await
            }
        }
    }

    /// Whether people are told where tunnels listen.
    pub(super) fn announces(&self) -> bool {
        matches!(self, Self::Nobody | Self::Parent(_, true))
    }

    /// Whether this process listens itself.
    pub(super) fn listens_itself(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

impl Parent {
    pub(super) fn tell(&self, said: &Said) -> Outcome {
        say(&self.stream(), said)
    }

    fn listen(&self, endpoint: &Endpoint) -> Outcome<Bound> {
        let stream = self.stream();
        say(&stream, &Said::Listen(endpoint.to_string()))?;
        let (answer, socket) = receive(&stream)?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(Failure::new)?;
        answer.map_err(Failure::new)?;
        let socket = socket.ok_or_else(|| Failure::new(format!("no socket came for {endpoint}")))?;
        Ok(Bound::passed_on(socket)?)
    }

    fn stream(&self) -> MutexGuard<'_, UnixStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say(mut stream: &UnixStream, said: &Said) -> Outcome {
    let mut line = serde_json::to_vec(said).map_err(Failure::new)?;
    line.push(b'\n');
    Ok(stream.write_all(&line)?)
}

/// A line, and the descriptor that came with its first byte.
fn receive(mut stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let socket = descriptors.next();
    let mut line = buffer[..received.bytes].to_vec();
    while !line.ends_with(b"\n") {
        if line.len() > MAX_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("the parent has ended"));
        }
        line.extend_from_slice(&buffer[..count]);
    }
    Ok((line, socket))
}
