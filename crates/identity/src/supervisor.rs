//! The supervisor: a small process that starts agents for one that has closed its sandbox.
//!
//! A tunnel that is closed off can start no program, and an agent whose module crashed has to be
//! started again. So before it closes, it starts a supervisor, which starts the agents that it was
//! told of then, when it is asked to, and does nothing else: it holds no key, no listener and no
//! state but when it started which agent.
//!
//! Over a socket pair, which is the supervisor's standard input, it is passed an end of another
//! pair for each request: the [`Order`] comes over that one, up to its end, and the answer goes
//! back. When the tunnel ends, so does the supervisor; agents end by themselves when nobody uses
//! them.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::{Cancel, Error as KeyError};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Holder, Result, State};

/// The first argument with which a program runs `enclasp` as its supervisor.
pub(crate) const COMMAND: &str = "agent-supervisor";

/// How often who waits for an agent looks at its deadline and at its cancellation.
const TICK: Duration = Duration::from_millis(50);

/// How long one end may take to read or write what is no more than a few hundred bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// An agent that is wanted again so long after it was started did not end at once, again and again.
const STABLE: Duration = Duration::from_secs(120);

/// How long after it was started an agent is started again: from the first time to the longest,
/// doubled each time in a row.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How long an agent may take to end once it does not listen any more.
const LAST_BREATH: Duration = Duration::from_millis(200);

/// What the supervisor is asked: to have an agent listen.
#[derive(Serialize, Deserialize)]
struct Order {
    /// [`Holder::name`].
    agent: String,
    within: Duration,
}

type Answer = std::result::Result<Started, KeyError>;

/// What the supervisor has done.
#[derive(Serialize, Deserialize)]
struct Started {
    /// The process; none if it listened already.
    pid: Option<u32>,
    /// How the one before it ended, which was started by this supervisor.
    before: Option<String>,
}

/// A supervisor that runs, as its owner sees it. It ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Supervisor(Arc<Supervised>);

struct Supervised {
    orders: UnixStream,
    /// Until it is [waited for](Supervisor::wait_for).
    process: Mutex<Option<Child>>,
}

impl Supervisor {
    /// Starts it for the agents of `holders`.
    pub(crate) fn start(state: &State, holders: &[Holder]) -> Result<Self> {
        let failed = |e: io::Error| Error::Supervisor { reason: e.to_string() };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut command = Command::new(crate::state::program());
        command.arg(COMMAND).arg("--state").arg(state.root()).arg("--socket").arg(state.socket());
        for holder in holders {
            match holder {
                Holder::Soft => command.arg("--soft"),
                hardware => command.args(hardware.arguments()),
            };
        }
        crate::state::without_pins(&mut command);
        // Not in our process group: who interrupts us lets us finish first.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).process_group(0).current_dir("/");
        let process = Mutex::new(Some(command.spawn().map_err(failed)?));
        Ok(Self(Arc::new(Supervised { orders: ours, process })))
    }

    /// Says so in the log if the supervisor ends before its owner drops it. It takes a thread, which a
    /// process that is yet to close its sandbox must not have.
    pub(crate) fn wait_for(&self) {
        let process = self.0.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut process) = process else { return };
        let owned = Arc::downgrade(&self.0);
        crate::state::in_a_thread("supervisor's end", move || {
            let ended = process.wait();
            if let (Ok(status), true) = (ended, owned.strong_count() > 0) {
                tracing::warn!(%status, "the supervisor ended: no agent is started again until this program is");
            }
        });
    }

    /// Has the agent of `holder` listen.
    pub(crate) fn have_listen(
        &self,
        holder: &Holder,
        until: Instant,
        cancel: &Cancel,
    ) -> std::result::Result<(), KeyError> {
        let name = holder.name();
        let failed = |reason: String| KeyError::Unavailable {
            at: format!("the supervisor of agent `{name}`"),
            reason,
        };
        let order = Order { agent: name.clone(), within: until.saturating_duration_since(Instant::now()) };
        let order = serde_json::to_vec(&order).map_err(|e| failed(e.to_string()))?;
        let mut stream = self.converse(&order).map_err(|e| failed(said(&e)))?;
        let mut answer = Vec::new();
        loop {
            match stream.read_to_end(&mut answer) {
                Ok(_) if answer.is_empty() => return Err(failed("it has ended".into())),
                Ok(_) => break,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if cancel.is_cancelled() || Instant::now() >= until {
                        return Err(failed("it is still starting it".into()));
                    }
                }
                Err(e) => return Err(failed(said(&e))),
            }
        }
        let answer: Answer = serde_json::from_slice(&answer).map_err(|e| failed(e.to_string()))?;
        match answer? {
            Started { pid: Some(pid), before: Some(before) } => {
                tracing::warn!(agent = name, pid, before, "an agent ended and was started again");
            }
            Started { pid: Some(pid), before: None } => {
                tracing::info!(agent = name, pid, "an agent was started");
            }
            Started { pid: None, .. } => {}
        }
        Ok(())
    }

    /// Passes the supervisor an end of a new pair, and the order over it.
    fn converse(&self, order: &[u8]) -> io::Result<UnixStream> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        // Descriptors travel with at least one byte.
        sendmsg(&self.0.orders, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        ours.set_write_timeout(Some(PATIENCE))?;
        ours.set_read_timeout(Some(TICK))?;
        ours.write_all(order)?;
        ours.shutdown(Shutdown::Write)?;
        Ok(ours)
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Supervisor")
    }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => "it has ended".into(),
        _ => error.to_string(),
    }
}

/// What a program that was run as `enclasp agent-supervisor` does: starts the agents of `holders`
/// in `state` as the process at the other end of standard input asks it to, until that one ends.
///
/// # Errors
/// [`Error::Supervisor`] if standard input is not such a socket.
pub fn supervise(state: &State, holders: Vec<Holder>) -> Result<()> {
    let failed = |e: io::Error| Error::Supervisor { reason: e.to_string() };
    let orders = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let posts: Vec<_> = holders.into_iter().map(|holder| Arc::new(Post::new(state, holder))).collect();
    let posts: HashMap<_, _> = posts.into_iter().map(|post| (post.holder.name(), post)).collect();
    while let Some(conversation) = next_conversation(orders.as_fd()).map_err(failed)? {
        let posts = posts.clone();
        // Who asked and is not answered tries again.
        crate::state::in_a_thread("order", move || drop(answer(conversation, &posts)));
    }
    Ok(())
}

/// The next descriptor that comes over `socket`; none at its end.
fn next_conversation(socket: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match descriptors.next() {
        Some(descriptor) => Ok(Some(descriptor.into())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn answer(mut stream: UnixStream, posts: &HashMap<String, Arc<Post>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut order = Vec::new();
    (&stream).take(4096).read_to_end(&mut order)?;
    let order: Order = serde_json::from_slice(&order)?;
    let started = match posts.get(&order.agent) {
        Some(post) => post.have_listen(Instant::now() + order.within.min(STABLE)),
        None => Err(KeyError::Unavailable {
            at: format!("the supervisor of agent `{}`", order.agent),
            reason: "it was not told of this one when it was started".into(),
        }),
    };
    stream.write_all(&serde_json::to_vec(&started)?)
}

/// One agent's supervision.
struct Post {
    state: State,
    holder: Holder,
    last: Mutex<Option<Last>>,
}

/// The agent that was started last.
struct Last {
    begun: Instant,
    /// How often in a row it had to be started.
    in_a_row: u32,
    ended: Option<Receiver<ExitStatus>>,
}

impl Post {
    fn new(state: &State, holder: Holder) -> Self {
        Self { state: state.clone(), holder, last: Mutex::new(None) }
    }

    fn have_listen(&self, until: Instant) -> Answer {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = self.state.socket_of(&self.holder);
        if UnixStream::connect(&socket).is_ok() {
            return Ok(Started { pid: None, before: None });
        }
        let before = last.as_ref().and_then(|last| last.ended.as_ref()?.recv_timeout(LAST_BREATH).ok());
        let before = before.map(|status| status.to_string());
        let recent = last.as_ref().filter(|last| last.begun.elapsed() < STABLE);
        let in_a_row = recent.map_or(0, |last| last.in_a_row);
        if let Some(recent) = recent {
            let next = recent.begun + pause(in_a_row);
            if next > until {
                let rest = next.saturating_duration_since(Instant::now());
                return Err(KeyError::Unavailable {
                    at: socket.display().to_string(),
                    reason: format!(
                        "its agent was started {in_a_row} times in a row, and ended; the next time is in {rest:.1?}"
                    ),
                });
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let begun = Instant::now();
        let started = self.state.start_agent(&self.holder, until, &Cancel::default());
        let (started, ended) = match started {
            Ok(agent) => (Ok(Started { pid: Some(agent.pid), before }), Some(agent.ended)),
            Err(error) => (Err(error), None),
        };
        *last = Some(Last { begun, in_a_row: in_a_row + 1, ended });
        started
    }
}

/// How long after its start an agent that was started so often in a row is started once more.
fn pause(in_a_row: u32) -> Duration {
    let doubled = 1_u32.checked_shl(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX);
    BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_end_again_and_again_are_started_ever_more_rarely() {
        let pauses: Vec<_> = [1, 2, 3, 9, 10, 33, u32::MAX].map(|count| pause(count).as_millis()).into();
        assert_eq!(pauses, [100, 200, 400, 25_600, 30_000, 30_000, 30_000]);
    }

    /// No order is taken for an agent that was not named at the start, whoever has the socket.
    #[test]
    fn only_the_agents_that_were_named_are_started() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path()).unwrap();
        let (orders, passed) = UnixStream::pair().unwrap();
        let supervisor = Supervisor(Arc::new(Supervised { orders, process: Mutex::default() }));
        let serving = thread::spawn(move || {
            let post = Arc::new(Post::new(&state, Holder::Pkcs11("/one.so".into())));
            let posts = HashMap::from([(post.holder.name(), post)]);
            while let Some(conversation) = next_conversation(passed.as_fd()).unwrap() {
                answer(conversation, &posts).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(60);
        let other = Holder::Pkcs11("/other.so".into());
        let error = supervisor.have_listen(&other, until, &Cancel::default()).unwrap_err();
        assert!(error.to_string().contains("was not told of this one"), "{error}");
        drop(supervisor);
        serving.join().unwrap();
    }
}
