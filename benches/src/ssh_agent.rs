//! OpenSSH's agent, which also signs for others over a Unix socket: the peer of ours.
//!
//! The messages are those of draft-ietf-sshm-ssh-agent: a length, a type, and strings with lengths
//! of their own, all big-endian.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use enclasp_keystore::Algorithm;
use tempfile::TempDir;

use crate::process::Guard;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// An ssh-agent with one key, and a connection to it.
pub struct SshAgent {
    guard: Guard,
    stream: Mutex<UnixStream>,
    /// The public key, as requests name it.
    key: Vec<u8>,
    _folder: TempDir,
}

impl SshAgent {
    /// Starts one with a new key of type `algorithm`.
    ///
    /// # Errors
    /// What the system says: mostly that OpenSSH is not installed.
    pub fn start(algorithm: Algorithm) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (socket, file) = (folder.path().join("socket"), folder.path().join("key"));
        let child =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn()?;
        let guard = Guard::new(child);
        let kind: &[&str] = match algorithm {
            Algorithm::P256 => &["-t", "ecdsa", "-b", "256"],
            Algorithm::P384 => &["-t", "ecdsa", "-b", "384"],
            _ => &["-t", "ed25519"],
        };
        done(Command::new("ssh-keygen").args(kind).args(["-q", "-N", "", "-f"]).arg(&file))?;
        let mut stream = connect(&socket)?;
        done(Command::new("ssh-add").arg("-q").arg(&file).env("SSH_AUTH_SOCK", &socket))?;
        let answer = call(&mut stream, &[REQUEST_IDENTITIES], IDENTITIES_ANSWER)?;
        // A count, then the first key.
        let key = answer.get(4..).and_then(string).ok_or_else(malformed)?.to_vec();
        Ok(Self { guard, stream: Mutex::new(stream), key, _folder: folder })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Signs a message; returns the signature in the encoding of SSH.
    ///
    /// # Errors
    /// What the socket says, or that the agent refused.
    pub fn sign(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut request = vec![SIGN_REQUEST];
        for part in [&self.key, message] {
            request.extend_from_slice(&(part.len() as u32).to_be_bytes());
            request.extend_from_slice(part);
        }
        request.extend_from_slice(&[0; 4]);
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = call(&mut stream, &request, SIGN_RESPONSE)?;
        string(&answer).map(<[u8]>::to_vec).ok_or_else(malformed)
    }
}

fn done(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match UnixStream::connect(socket) {
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            other => return other,
        }
    }
}

/// Sends a request and returns the contents of its answer.
fn call(stream: &mut UnixStream, request: &[u8], expected: u8) -> io::Result<Vec<u8>> {
    let mut frame = (request.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(request);
    stream.write_all(&frame)?;
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let [a, b, c, d, kind] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let mut contents = vec![0; length.saturating_sub(1)];
    stream.read_exact(&mut contents)?;
    if kind == expected { Ok(contents) } else { Err(io::Error::other("ssh-agent refused")) }
}

fn string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

fn malformed() -> io::Error {
    io::Error::other("ssh-agent's answer cannot be read")
}
