//! One conversation with a pinentry program, in the Assuan protocol.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::Requester;
use rustix::process::{Pid, Signal, kill_process};
use zeroize::Zeroizing;

use super::text::{escape, unescape};
use super::{Answer, Wanted};

/// A line of Assuan has at most 1000 bytes.
const MAX_LINE: u64 = 1024;

/// How long a pinentry may take to leave the screen as it found it.
const GRACE: Duration = Duration::from_millis(500);

/// The numbers of libgpg-error, in the low half of what a pinentry reports.
const TIMEOUT: u32 = 62;
const CANCELED: u32 = 99;
const NOT_CONFIRMED: u32 = 114;
const FULLY_CANCELED: u32 = 198;

/// A running pinentry.
pub(super) struct Pinentry {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    process: Process,
}

/// The process of a pinentry, by which it can be ended from elsewhere.
#[derive(Clone)]
pub(super) struct Process(Arc<Mutex<Child>>);

impl Pinentry {
    /// Starts `program` in front of the person at `place`.
    pub(super) fn start(program: &Path, place: &Requester) -> io::Result<Self> {
        let mut command = Command::new(program);
        for (variable, value) in [
            ("DISPLAY", &place.display),
            ("WAYLAND_DISPLAY", &place.wayland_display),
            ("XAUTHORITY", &place.xauthority),
        ] {
            match value {
                Some(value) if !value.contains('\0') => command.env(variable, value),
                _ => command.env_remove(variable),
            };
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let process = Process(Arc::new(Mutex::new(child)));
        let (input, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { input, output: BufReader::new(output), process })
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Shows `description` and waits for what is wanted. Whatever goes wrong is a no.
    pub(super) fn ask(
        mut self,
        wanted: &Wanted,
        description: &str,
        place: &Requester,
        timeout: Duration,
    ) -> Answer {
        let answer = self.converse(wanted, description, place, timeout);
        answer.unwrap_or_else(|e| Answer::Failed(format!("the pinentry ended without an answer ({e})")))
    }

    fn converse(
        &mut self,
        wanted: &Wanted,
        description: &str,
        place: &Requester,
        timeout: Duration,
    ) -> io::Result<Answer> {
        let failed = |e: Complaint| Answer::Failed(format!("the pinentry says: {}", e.text));
        if let Err(error) = self.answer(None)? {
            return Ok(failed(error));
        }
        if let Some(tty) = &place.tty {
            self.option("ttyname", tty)?;
            self.option("ttytype", place.term.as_deref().unwrap_or("vt100"))?;
        }
        // What is shown is UTF-8, whatever the environment of the agent says.
        self.option("lc-ctype", "C.UTF-8")?;
        // 0 would be no limit.
        let seconds = timeout.as_secs().clamp(1, u64::from(u16::MAX));
        // An older pinentry may lack some of these; it asks all the same.
        for command in [
            format!("SETTIMEOUT {seconds}"),
            "SETTITLE enclasp".into(),
            match wanted {
                Wanted::Yes => "SETOK Sign".into(),
                Wanted::Pin { .. } | Wanted::NewPin { .. } => "SETPROMPT PIN:".into(),
            },
            "SETCANCEL Refuse".into(),
        ] {
            let _ = self.command(&command)?;
        }
        let answered = match wanted {
            Wanted::Yes => match self.describe(description)? {
                Ok(()) => self.command("CONFIRM")?.map(|()| Answer::Agreed),
                Err(error) => Err(error),
            },
            Wanted::Pin { .. } => self.pin(description)?.map(Answer::Pin),
            Wanted::NewPin { .. } => self.new_pin(description)?.map(Answer::Pin),
        };
        Ok(match answered {
            Ok(answer) => answer,
            Err(error) => match error.code & 0xffff {
                CANCELED | NOT_CONFIRMED | FULLY_CANCELED => Answer::Refused,
                TIMEOUT => Answer::TimedOut,
                _ => failed(error),
            },
        })
    }

    fn describe(&mut self, description: &str) -> io::Result<Result<(), Complaint>> {
        self.command(&format!("SETDESC {}", escape(description)))
    }

    fn pin(&mut self, description: &str) -> io::Result<Result<Zeroizing<String>, Complaint>> {
        if let Err(error) = self.describe(description)? {
            return Ok(Err(error));
        }
        let mut pin = Zeroizing::new(Vec::new());
        self.input.write_all(b"GETPIN\n")?;
        let answered = self.answer(Some(&mut pin))?;
        let text = std::str::from_utf8(&pin).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(answered.map(|()| Zeroizing::new(text.to_owned())))
    }

    /// Asks until the same PIN was entered twice. (SETREPEAT is not for every pinentry.)
    fn new_pin(&mut self, description: &str) -> io::Result<Result<Zeroizing<String>, Complaint>> {
        let again = format!("Enter the PIN once more.\n\n{description}");
        let anew = format!("These were two different PINs.\n\n{description}");
        let mut description = description;
        loop {
            let first = match self.pin(description)? {
                Ok(first) => first,
                refused => return Ok(refused),
            };
            match self.pin(&again)? {
                Ok(second) if second != first => description = &anew,
                answered => return Ok(answered),
            }
        }
    }

    /// Sets an option whose value comes from outside, unless it could hold something else.
    fn option(&mut self, name: &str, value: &str) -> io::Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._+:-".contains(c);
        if value.chars().all(plain) {
            // One that does not know it goes on without.
            let _ = self.command(&format!("OPTION {name}={value}"))?;
        }
        Ok(())
    }

    fn command(&mut self, line: &str) -> io::Result<Result<(), Complaint>> {
        self.input.write_all(format!("{line}\n").as_bytes())?;
        self.answer(None)
    }

    /// Reads up to the end of an answer. What it says (`D` lines) goes to `data`, if that is
    /// expected.
    fn answer(&mut self, mut data: Option<&mut Zeroizing<Vec<u8>>>) -> io::Result<Result<(), Complaint>> {
        loop {
            // Of the length that it may have, so that no copy is left behind as it grows.
            let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE as usize));
            (&mut self.output).take(MAX_LINE).read_until(b'\n', &mut line)?;
            let Some(line) = line.strip_suffix(b"\n") else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if let (Some(data), Some(said)) = (&mut data, line.strip_prefix(b"D ")) {
                **data = unescape(said).ok_or(io::ErrorKind::InvalidData)?;
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "OK" => return Ok(Ok(())),
                "ERR" => {
                    let (code, text) = rest.split_once(' ').unwrap_or((rest, "no reason"));
                    let code = code.parse().map_err(|_| io::ErrorKind::InvalidData)?;
                    return Ok(Err(Complaint { code, text: super::text::plain(text, 200) }));
                }
                // Statuses and comments.
                "S" | "#" => {}
                _ if word.starts_with('#') => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

impl Drop for Pinentry {
    fn drop(&mut self) {
        // It ends by itself at BYE.
        let _ = self.input.write_all(b"BYE\n");
        self.process.end(None);
    }
}

impl Process {
    /// Ends it in the middle of its question: first so that it restores the screen.
    pub(super) fn interrupt(&self) {
        self.end(Some(Signal::TERM));
    }

    fn end(&self, signal: Option<Signal>) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + GRACE;
        let mut signal = signal;
        while let Ok(None) = child.try_wait() {
            if let Some(signal) = signal.take() {
                // It has not been waited for, so that its number is still its own.
                let _ = kill_process(Pid::from_child(&child), signal);
            }
            if Instant::now() >= until {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An `ERR` line.
struct Complaint {
    code: u32,
    text: String,
}
