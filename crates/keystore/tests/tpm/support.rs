//! Real TPMs for tests: swtpm processes, tpm2-tools, and people who give PINs.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::tpm::{TpmConfig, TpmKeystore};
use enclasp_keystore::{Error, GivePin, Input, Key, KeyUri, PinWanted, Result, Scheme, SignContext};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::ports::free_ports;

/// A software TPM with a state of its own; dropping it ends it.
pub(crate) struct Swtpm {
    child: Child,
    port: u16,
    state: TempDir,
}

impl Swtpm {
    /// Starts one, or says loudly that it is not installed (and fails where CI is set).
    pub(crate) fn start() -> Option<Self> {
        if !installed("swtpm") {
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        // The TCTI takes the control channel to be on the next port.
        let port = free_ports(2);
        Some(Self { child: run(port, state.path()), port, state })
    }

    /// Kills it as a crash or a power cut does. Its state stays.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Has it come back with its state.
    pub(crate) fn restart(&mut self) {
        self.child = run(self.port, self.state.path());
    }

    /// Makes it answer no more.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Makes it answer again.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn tcti(&self) -> String {
        tcti(self.port)
    }

    pub(crate) fn keystore(&self, folder: &Path, pins: impl GivePin + 'static) -> Result<TpmKeystore> {
        TpmKeystore::open(TpmConfig { tcti: self.tcti(), folder: folder.to_owned() }, pins)
    }

    /// Runs one of tpm2-tools in `folder`.
    pub(crate) fn tool(&self, folder: &Path, line: &str) {
        let mut words = line.split_whitespace();
        let mut command = program(words.next().unwrap());
        let output =
            command.args(words).current_dir(folder).env("TPM2TOOLS_TCTI", self.tcti()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs openssl with tpm2-openssl's provider.
    pub(crate) fn openssl(&self, folder: &Path, line: &str) {
        let mut command = program("openssl");
        command.args(line.split_whitespace()).args(["-provider", "tpm2", "-provider", "default"]);
        let output = command.current_dir(folder).env("TPM2OPENSSL_TCTI", self.tcti()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

fn run(port: u16, state: &Path) -> Child {
    let child = program("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port}"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={}", port + 1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("swtpm listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

/// A program that inherits none of our descriptors. libtss2 marks its connections as any other file, and a TPM
/// whose client is gone goes on waiting for it while a child has the connection, too, even one of another test.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    // SAFETY: one system call, which takes no memory.
    let close = || match unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: between fork and exec it allocates nothing and takes no lock.
    unsafe { command.pre_exec(close) };
    command
}

/// Whether a program is there. A missing one is skipped loudly, and fails in CI.
pub(crate) fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    missing(found, program)
}

/// Whether tpm2-openssl is there.
pub(crate) fn tpm2_openssl_installed() -> bool {
    // MODULESDIR: "/usr/lib/…/ossl-modules"
    let output = Command::new("openssl").args(["version", "-m"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let found = text.split('"').nth(1).is_some_and(|folder| Path::new(folder).join("tpm2.so").exists());
    missing(found, "tpm2-openssl")
}

fn missing(found: bool, what: &str) -> bool {
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{what} is not installed");
        eprintln!("SKIPPED: {what} is not installed");
    }
    found
}

pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Somebody who gives the PINs of a list, one after the other, and remembers what was asked.
#[derive(Clone, Default)]
pub(crate) struct Person {
    pins: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) tries_left: Arc<Mutex<Vec<Option<u32>>>>,
    asked: Arc<AtomicUsize>,
}

impl Person {
    pub(crate) fn who_says(pins: &[&'static str]) -> Self {
        let pins = pins.iter().rev().copied().collect();
        Self { pins: Arc::new(Mutex::new(pins)), ..Self::default() }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl GivePin for Person {
    fn pin(&self, wanted: &PinWanted<'_>, _: &SignContext) -> Result<Zeroizing<String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.tries_left.lock().unwrap().push(wanted.tries_left);
        match self.pins.lock().unwrap().pop() {
            Some(pin) => Ok(Zeroizing::new(pin.into())),
            None => Err(Error::Denied {
                key: wanted.key.to_string(),
                operation: "ask for the PIN of".into(),
                reason: "nobody is there".into(),
            }),
        }
    }
}

pub(crate) fn nobody() -> Person {
    Person::default()
}

pub(crate) fn uri(name: &str) -> KeyUri {
    KeyUri::tpm(name, None).unwrap()
}

pub(crate) fn sign(key: &dyn Key, scheme: Scheme) -> Result<()> {
    sign_until(key, scheme, None)
}

pub(crate) fn sign_until(key: &dyn Key, scheme: Scheme, deadline: Option<Instant>) -> Result<()> {
    let ctx = SignContext { deadline, ..SignContext::new("test") };
    let input = Input::Message(b"to be signed");
    let signature = key.sign(scheme, input, &ctx)?;
    enclasp_keystore::verify(&key.info().spki, scheme, input, signature.as_ref())
}

/// Somebody on the bus: keeps a copy of what passes, and may answer in the TPM's place or change
/// its answers.
pub(crate) struct Bus {
    port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
}

/// What may be done to a command and its answer.
pub(crate) trait Meddle: Send + Sync + 'static {
    /// An answer in the TPM's place; an empty one hangs up.
    fn answer(&self, _command: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Changes the TPM's answer.
    fn change(&self, _command: &[u8], _answer: &mut [u8]) {}
}

impl Meddle for () {}

impl Bus {
    pub(crate) fn to(tpm: &Swtpm, meddle: impl Meddle) -> Self {
        let (commands, control, port) = loop {
            let commands = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = commands.local_addr().unwrap().port();
            if let Ok(control) = TcpListener::bind(("127.0.0.1", port.wrapping_add(1))) {
                break (commands, control, port);
            }
        };
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let (to_commands, to_control, copy) = (tpm.port, tpm.port + 1, seen.clone());
        thread::spawn(move || {
            for client in commands.incoming().map_while(std::result::Result::ok) {
                let tpm = TcpStream::connect(("127.0.0.1", to_commands)).unwrap();
                // Until the client closes.
                let _ = serve(client, tpm, &meddle, &copy);
            }
        });
        thread::spawn(move || {
            for client in control.incoming().map_while(std::result::Result::ok) {
                let tpm = TcpStream::connect(("127.0.0.1", to_control)).unwrap();
                pass(client.try_clone().unwrap(), tpm.try_clone().unwrap());
                pass(tpm, client);
            }
        });
        Self { port, seen }
    }

    pub(crate) fn tcti(&self) -> String {
        tcti(self.port)
    }

    pub(crate) fn saw(&self, bytes: &[u8]) -> bool {
        self.seen.lock().unwrap().windows(bytes.len()).any(|window| window == bytes)
    }
}

fn serve(
    mut client: TcpStream,
    mut tpm: TcpStream,
    meddle: &impl Meddle,
    seen: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    loop {
        let command = message(&mut client)?;
        seen.lock().unwrap().extend_from_slice(&command);
        let answer = match meddle.answer(&command) {
            Some(answer) => answer,
            None => {
                tpm.write_all(&command)?;
                let mut answer = message(&mut tpm)?;
                seen.lock().unwrap().extend_from_slice(&answer);
                meddle.change(&command, &mut answer);
                answer
            }
        };
        if answer.is_empty() {
            return Ok(());
        }
        client.write_all(&answer)?;
    }
}

/// One command or answer: its length stands after the tag of two bytes.
fn message(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 6];
    from.read_exact(&mut message)?;
    let length = u32::from_be_bytes(message[2..6].try_into().unwrap());
    message.resize(length as usize, 0);
    from.read_exact(&mut message[6..])?;
    Ok(message)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// The files of a folder, for a look at what is left.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
