//! Asking a person: the prompter, a process without keys that runs the pinentry.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{env, fs, io, thread};

use enclasp_keystore::Requester;
use enclasp_keystore::agent::{FrameReader, decode, encode};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use zeroize::Zeroize;

use super::pinentry::{Pinentry, Process};
use super::text::plain;
use super::{Answer, Order, PINENTRY_VARIABLE, Question, Wanted};
use crate::Error;

const DEFAULT_PINENTRY: &str = "/usr/bin/pinentry";

/// What a program that was run with [`PROMPTER_COMMAND`](crate::PROMPTER_COMMAND) does: asks what
/// the agent at the other end of standard input wants to have asked, until the agent ends.
///
/// # Errors
/// [`Error::System`] if standard input is not the agent's socket.
pub fn prompter_main() -> Result<(), Error> {
    let stream = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let stream = stream.map_err(Error::system("open the agent's socket"))?;
    // It sees PINs.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Job control stops a background process that reads from the terminal of its session, and the
    // agent may be one. It fails only for who has a session already.
    let _ = rustix::process::setsid();
    let pinentry = env::var_os(PINENTRY_VARIABLE).unwrap_or_else(|| OsString::from(DEFAULT_PINENTRY));
    let desk = Arc::new(Desk {
        pinentry: pinentry.into(),
        stream,
        questions: Mutex::default(),
        changed: Condvar::new(),
    });
    let mut reader = FrameReader::default();
    let ended = loop {
        match reader.next(&mut &desk.stream) {
            Ok(Some((number, body))) => match decode(body) {
                Ok(Order::Ask(question)) => desk.take(number, *question),
                Ok(Order::Cancel) => desk.cancel(number),
                Err(error) => break Err(io::Error::other(error)),
            },
            Ok(None) => break Ok(()),
            // As it ends when the agent was killed with an answer on its way.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    desk.close();
    ended.map_err(Error::system("take the agent's questions"))
}

/// Where the questions lie, each with a thread.
struct Desk {
    pinentry: PathBuf,
    stream: UnixStream,
    questions: Mutex<Questions>,
    changed: Condvar,
}

#[derive(Default)]
struct Questions {
    open: HashMap<u32, Stage>,
    /// The terminals and displays where a question stands now.
    occupied: HashSet<String>,
}

enum Stage {
    Waiting,
    Asking(Process),
    Cancelled,
}

impl Desk {
    fn take(self: &Arc<Self>, number: u32, question: Question) {
        self.questions().open.insert(number, Stage::Waiting);
        let desk = self.clone();
        let answer = move || {
            let answer = desk.ask(number, &question);
            desk.questions().open.remove(&number);
            desk.changed.notify_all();
            desk.answer(number, &answer);
        };
        if let Err(error) = thread::Builder::new().name("question".into()).spawn(answer) {
            self.questions().open.remove(&number);
            self.answer(number, &Answer::Failed(format!("no thread: {error}")));
        }
    }

    fn cancel(&self, number: u32) {
        let mut questions = self.questions();
        let Some(stage) = questions.open.get_mut(&number) else { return };
        if let Stage::Asking(process) = std::mem::replace(stage, Stage::Cancelled) {
            thread::spawn(move || process.interrupt());
        }
        self.changed.notify_all();
    }

    /// Cancels all and waits until the screens are as they were.
    fn close(&self) {
        let open: Vec<u32> = self.questions().open.keys().copied().collect();
        open.into_iter().for_each(|number| self.cancel(number));
        let mut questions = self.questions();
        while !questions.open.is_empty() {
            questions = self.changed.wait(questions).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ask(&self, number: u32, question: &Question) -> Answer {
        let until = Instant::now().checked_add(question.timeout);
        let requester = match reachable(&question.requester) {
            Ok(requester) => requester,
            Err(reason) => return Answer::Failed(reason),
        };
        let cancelled = || Answer::Failed("the question was withdrawn".into());
        let place = place_of(&requester);
        let Some(_turn) = self.turn(number, &place) else { return cancelled() };
        let pinentry = match Pinentry::start(&self.pinentry, &requester) {
            Ok(pinentry) => pinentry,
            Err(e) => {
                let program = self.pinentry.display();
                return Answer::Failed(format!(
                    "`{program}` cannot be run ({e}); install a pinentry, for instance pinentry-curses"
                ));
            }
        };
        match self.questions().open.get_mut(&number) {
            Some(stage @ Stage::Waiting) => *stage = Stage::Asking(pinentry.process().clone()),
            _ => return cancelled(),
        }
        let rest = until.map_or(question.timeout, |until| until.saturating_duration_since(Instant::now()));
        pinentry.ask(&question.wanted, &description(question), &requester, rest)
    }

    /// Waits until no other question stands at `place`; `None` if this one is cancelled first.
    fn turn<'a>(&'a self, number: u32, place: &'a str) -> Option<Turn<'a>> {
        let mut questions = self.questions();
        loop {
            if !matches!(questions.open.get(&number), Some(Stage::Waiting)) {
                return None;
            }
            if questions.occupied.insert(place.to_owned()) {
                return Some(Turn { desk: self, place });
            }
            questions = self.changed.wait(questions).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answer(&self, number: u32, answer: &Answer) {
        let mut frame = Vec::new();
        // Under the lock, so that frames do not mix. If the agent has gone, so will this process.
        let _questions = self.questions();
        if encode(number, answer, &mut frame).is_ok() {
            let _ = (&self.stream).write_all(&frame);
        }
        frame.zeroize();
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be the one question at a place.
struct Turn<'a> {
    desk: &'a Desk,
    place: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.desk.questions().occupied.remove(self.place);
        self.desk.changed.notify_all();
    }
}

fn place_of(requester: &Requester) -> String {
    let Requester { tty, display, wayland_display, .. } = requester;
    let graphical = wayland_display.as_ref().or(display.as_ref());
    graphical.or(tty.as_ref()).cloned().unwrap_or_default()
}

/// The requester without a terminal that is none, or that is somebody else's.
fn reachable(requester: &Requester) -> Result<Requester, String> {
    let mut requester = requester.clone();
    let caller = requester.pid.and_then(|pid| fs::metadata(format!("/proc/{pid}")).ok());
    let complaint = requester.tty.as_ref().and_then(|tty| {
        let shown = plain(tty, 100);
        match fs::metadata(tty) {
            _ if !tty.starts_with("/dev/") => Some(format!("`{shown}` is not a terminal")),
            Err(e) => Some(format!("the terminal `{shown}` cannot be opened ({e})")),
            Ok(metadata) if !metadata.file_type().is_char_device() => {
                Some(format!("`{shown}` is not a terminal"))
            }
            Ok(metadata) => match caller {
                Some(caller) if caller.uid() == metadata.uid() || caller.uid() == 0 => None,
                _ => Some(format!("the terminal `{shown}` does not belong to the caller")),
            },
        }
    });
    if complaint.is_some() {
        requester.tty = None;
    }
    match complaint {
        Some(complaint) if requester.display.is_none() && requester.wayland_display.is_none() => {
            Err(complaint)
        }
        _ => Ok(requester),
    }
}

/// What the person reads. An Assuan line has at most 1000 bytes, which bounds each part.
fn description(question: &Question) -> String {
    let (program, pid) = match question.requester.pid {
        Some(pid) => (program_of(Path::new(&format!("/proc/{pid}"))), format!("process {pid}")),
        None => ("a program in another container".to_owned(), "process unknown".to_owned()),
    };
    let reason = if question.reason.is_empty() { "no reason given" } else { &question.reason };
    let key = plain(&question.key, 150);
    let wanted = match &question.wanted {
        Wanted::Yes => format!("Sign with {key}?"),
        Wanted::Pin { what, tries_left } => {
            let left = match tries_left {
                None => String::new(),
                Some(1) => " One try is left before it locks.".into(),
                Some(tries) => format!(" {tries} tries are left before it locks."),
            };
            format!("The PIN of {} is needed to use {key}.{left}", plain(what, 100))
        }
        Wanted::NewPin { what } => format!("Choose a PIN for {}, {key}.", plain(what, 100)),
    };
    format!("{wanted}\n\nReason: {}\n\nAsked by {program} ({pid})", plain(reason, 300))
}

/// Its path and its command line, as the kernel has them. The command line is the program's word.
fn program_of(folder: &Path) -> String {
    let path = fs::read_link(folder.join("exe"));
    let path =
        path.map_or("a program that cannot be read".into(), |path| plain(&path.to_string_lossy(), 200));
    let line = fs::read(folder.join("cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    match words.is_empty() {
        true => path,
        false => format!("{path} {}", plain(&words.join(" "), 150)),
    }
}
