//! Asking a person: the agent's side.
//!
//! The sandbox lets the agent start no program, so that a *prompter*, a process without keys, is
//! started before it closes. Over a socket pair the agent sends it [`Order`]s and gets back
//! [`Answer`]s, in the frames of the agent's protocol; a frame's id is the number of the question.
//! No answer but [`Answer::Agreed`] is a yes, none but [`Answer::Pin`] a PIN, and a prompter that
//! ended answers nothing.

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
use enclasp_keystore::{Confirm, Error, KeyInfo, KeyUri, PinWanted, Requester, Result, SignContext};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

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
    Ask(Box<Question>),
    /// Nobody waits for the answer any more.
    Cancel,
}

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    key: String,
    wanted: Wanted,
    reason: String,
    requester: Requester,
    /// For how long the answer is wanted.
    timeout: Duration,
}

/// What a person is asked for.
#[derive(Debug, Serialize, Deserialize)]
enum Wanted {
    /// To agree to a signature.
    Yes,
    /// The PIN of what is described.
    Pin { what: String, tries_left: Option<u32> },
    /// A PIN for what is described, entered twice.
    NewPin { what: String },
}

/// What the prompter answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    Agreed,
    Pin(Zeroizing<String>),
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
        // What opens keys is for this process alone; the prompter's environment is the pinentry's too.
        for secret in ["ENCLASP_PASSPHRASE", "ENCLASP_PIN", "ENCLASP_P12_PASSWORD"] {
            command.env_remove(secret);
        }
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
        match self.ask(&key.uri, Wanted::Yes, ctx)? {
            Answer::Agreed => Ok(()),
            _ => Err(denied(&key.uri, "sign with", "the person who was asked said no")),
        }
    }
}

impl Prompter {
    /// Has a person enter a PIN.
    pub(crate) fn pin(&self, wanted: &PinWanted<'_>, ctx: &SignContext) -> Result<Zeroizing<String>> {
        let PinWanted { key, what, tries_left, new } = *wanted;
        let what = what.to_owned();
        let wanted = if new { Wanted::NewPin { what } } else { Wanted::Pin { what, tries_left } };
        match self.ask(key, wanted, ctx)? {
            Answer::Pin(pin) => Ok(pin),
            _ => Err(denied(key, "use", "the person who was asked gave no PIN")),
        }
    }

    /// Asks, and waits for an answer that a person gave.
    fn ask(&self, key: &KeyUri, wanted: Wanted, ctx: &SignContext) -> Result<Answer> {
        let (operation, unasked) = match wanted {
            Wanted::Yes => ("sign with", "nobody can be asked"),
            Wanted::Pin { .. } => ("use", "its PIN is needed, and nobody can be asked"),
            Wanted::NewPin { .. } => ("create", "it needs a PIN, and nobody can be asked"),
        };
        let denied = |reason: &str| denied(key, operation, &format!("{unasked}: {reason}"));
        let Requester { tty, display, wayland_display, .. } = &ctx.requester;
        if tty.is_none() && display.is_none() && wayland_display.is_none() {
            return Err(denied("the caller has no terminal and no display"));
        }
        let ended = || denied("the agent's prompter has ended; restart the agent");
        let timeout = ctx.deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let question = Question {
            key: key.to_string(),
            wanted,
            reason: ctx.reason.clone(),
            requester: ctx.requester.clone(),
            timeout,
        };
        let (number, answers) = self.0.ask(question).ok_or_else(ended)?;
        loop {
            match answers.recv_timeout(TICK) {
                Ok(Answer::TimedOut) => {
                    return Err(Error::Deadline { key: key.to_string(), operation: operation.into() });
                }
                Ok(Answer::Failed(reason)) => return Err(denied(&reason)),
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = ctx.check(key) {
                        self.0.forget(number);
                        return Err(error);
                    }
                }
            }
        }
    }
}

fn denied(key: &KeyUri, operation: &str, reason: &str) -> Error {
    Error::Denied { key: key.to_string(), operation: operation.into(), reason: reason.into() }
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
        if !questions.send(&self.stream, number, &Order::Ask(Box::new(question))) {
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
            // An answer may have been a PIN.
            reader.wipe();
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
