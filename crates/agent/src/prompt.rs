//! Asking a person: the agent's side.
//!
//! The sandbox lets the agent start no program, so that a *prompter*, a process without keys, is
//! started before it closes. Over a socket pair the agent sends it [`Order`]s and gets back
//! [`Answer`]s, in the frames of the agent's protocol; a frame's id is the number of the question.
//! No answer but [`Answer::Agreed`] is a yes, and a prompter that ended answers nothing.

mod pinentry;
mod prompter;
mod text;

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::{FrameReader, decode, encode};
use enclasp_keystore::{Confirm, Error, KeyInfo, Requester, Result, SignContext};
use serde::{Deserialize, Serialize};

pub use prompter::prompter_main;

/// The first argument with which the agent runs its own program again as the prompter.
pub const PROMPTER_COMMAND: &str = "agent-prompter";

/// The environment variable that names the pinentry program.
const PINENTRY_VARIABLE: &str = "ENCLASP_PINENTRY";

/// How often a waiting question looks at its deadline and at its cancellation.
const TICK: Duration = Duration::from_millis(50);

/// How long the prompter may take to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the agent tells the prompter.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Ask(Question),
    /// Nobody waits for the answer any more.
    Cancel,
}

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    key: String,
    reason: String,
    requester: Requester,
    /// For how long the answer is wanted.
    timeout: Duration,
}

/// What the prompter answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Agreed,
    Refused,
    TimedOut,
    /// Nobody could be asked, and why.
    Failed(String),
}

/// The prompter's other end.
#[derive(Clone)]
pub(crate) struct Prompter(Arc<Shared>);

struct Shared {
    stream: UnixStream,
    questions: Mutex<Questions>,
}

#[derive(Default)]
struct Questions {
    asked: u32,
    waiting: HashMap<u32, Sender<Answer>>,
    ended: bool,
    frame: Vec<u8>,
}

impl Prompter {
    /// Starts the prompter, which asks by `pinentry`.
    pub(crate) fn start(pinentry: Option<&Path>) -> std::result::Result<Self, crate::Error> {
        let failed = || crate::Error::system("start the process that asks for confirmation");
        let (ours, theirs) = UnixStream::pair().map_err(failed())?;
        ours.set_write_timeout(Some(PATIENCE)).map_err(failed())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("enclasp").arg(PROMPTER_COMMAND);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        if let Some(pinentry) = pinentry {
            command.env(PINENTRY_VARIABLE, pinentry);
        }
        // It ends by itself when the socket closes, that is with this process.
        command.spawn().map_err(failed())?;
        Ok(Self(Arc::new(Shared { stream: ours, questions: Mutex::default() })))
    }

    /// Starts the thread that takes the prompter's answers.
    pub(crate) fn receive(&self) -> std::result::Result<(), crate::Error> {
        let shared = self.0.clone();
        let receive = move || {
            let reason = shared.receive();
            tracing::warn!(reason, "the prompter has ended: keys that ask for confirmation cannot be used");
            let mut questions = shared.questions();
            questions.ended = true;
            questions.waiting.clear();
        };
        let started = thread::Builder::new().name("answers".into()).spawn(receive);
        started.map(drop).map_err(crate::Error::system("start a thread"))
    }
}

impl Confirm for Prompter {
    fn confirm(&self, key: &KeyInfo, ctx: &SignContext) -> Result<()> {
        let denied = |reason: &str| Error::Denied {
            key: key.uri.to_string(),
            operation: "sign with".into(),
            reason: reason.into(),
        };
        let Requester { tty, display, wayland_display, .. } = &ctx.requester;
        if tty.is_none() && display.is_none() && wayland_display.is_none() {
            return Err(denied("nobody can be asked: the caller has no terminal and no display"));
        }
        let ended = || denied("nobody can be asked: the agent's prompter has ended; restart the agent");
        let timeout = ctx.deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let question = Question {
            key: key.uri.to_string(),
            reason: ctx.reason.clone(),
            requester: ctx.requester.clone(),
            timeout,
        };
        let (number, answers) = self.0.ask(question).ok_or_else(ended)?;
        loop {
            match answers.recv_timeout(TICK) {
                Ok(Answer::Agreed) => return Ok(()),
                Ok(Answer::Refused) => return Err(denied("the person who was asked said no")),
                Ok(Answer::TimedOut) => {
                    let (key, operation) = (key.uri.to_string(), "sign with".into());
                    return Err(Error::Deadline { key, operation });
                }
                Ok(Answer::Failed(reason)) => return Err(denied(&format!("nobody can be asked: {reason}"))),
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = ctx.check(&key.uri) {
                        self.0.forget(number);
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Shared {
    fn ask(&self, question: Question) -> Option<(u32, mpsc::Receiver<Answer>)> {
        let (answered, answers) = mpsc::channel();
        let mut questions = self.questions();
        if questions.ended {
            return None;
        }
        questions.asked = questions.asked.wrapping_add(1);
        let number = questions.asked;
        questions.waiting.insert(number, answered);
        if !questions.send(&self.stream, number, &Order::Ask(question)) {
            questions.waiting.remove(&number);
            return None;
        }
        Some((number, answers))
    }

    fn forget(&self, number: u32) {
        let mut questions = self.questions();
        if questions.waiting.remove(&number).is_some() {
            questions.send(&self.stream, number, &Order::Cancel);
        }
    }

    /// Hands out answers until the prompter ends; says why it did.
    fn receive(&self) -> String {
        let mut reader = FrameReader::default();
        loop {
            match reader.next(&mut &self.stream) {
                Ok(Some((number, body))) => match decode(body) {
                    Ok(answer) => {
                        if let Some(answered) = self.questions().waiting.remove(&number) {
                            // Who asked may have gone.
                            let _ = answered.send(answer);
                        }
                    }
                    Err(error) => return error.to_string(),
                },
                Ok(None) => return "it closed its socket".into(),
                Err(error) => return error.to_string(),
            }
        }
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Questions {
    /// Whether the prompter took it. One that takes a part of a frame is lost.
    fn send(&mut self, mut stream: &UnixStream, number: u32, order: &Order) -> bool {
        if self.ended || encode(number, order, &mut self.frame).is_err() {
            return false;
        }
        if let Err(error) = stream.write_all(&self.frame) {
            tracing::warn!(%error, "the prompter does not listen");
            self.ended = true;
            self.waiting.clear();
        }
        !self.ended
    }
}
