//! The limits: signatures with nothing around them, here and in another process.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use enclasp_keystore::agent::{Request, Response, SignRequest, encode};
use enclasp_keystore::{Algorithm, Input, Key, Requester, SignContext};

use crate::process::Guard;
use crate::{MESSAGE, hardware};

pub(crate) const BARE: &str = "play-bare";

const UNSIGNED: &str = "unsigned";

/// Room for a request and for an answer.
const ROOM: usize = 1024;

/// A key of aws-lc-rs.
pub struct BareKey(Pair);

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl BareKey {
    /// Generates one.
    ///
    /// # Errors
    /// What aws-lc-rs says.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Box<dyn Error>> {
        Ok(Self(match algorithm {
            Algorithm::P256 => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
            Algorithm::P384 => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
            _ => Pair::Ed25519(Ed25519KeyPair::generate()?),
        }))
    }

    /// Signs [`MESSAGE`].
    pub fn sign(&self) {
        match &self.0 {
            Pair::Ecdsa(pair) => {
                black_box(pair.sign(&SystemRandom::new(), &MESSAGE).expect("a signature"));
            }
            Pair::Ed25519(pair) => {
                black_box(pair.sign(&MESSAGE));
            }
        }
    }
}

/// A process that reads so many bytes from a Unix socket or a pipe, signs or does not, and answers
/// with so many others. It reads no request, checks nobody, and closes nothing off.
pub struct BareProcess {
    guard: Guard,
    /// Where requests go, and where answers come from.
    ends: Mutex<(File, File)>,
    request: usize,
    response: usize,
}

impl BareProcess {
    /// Starts one behind a socket. The lengths are in bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(request: usize, response: usize, signs: Option<Algorithm>) -> io::Result<Self> {
        let what = signs.map_or(UNSIGNED.to_owned(), |algorithm| algorithm.to_string());
        Self::of(request, response, &what, &[])
    }

    /// Starts one behind a pair of pipes, which are read without a limit of time.
    ///
    /// # Errors
    /// What the system says.
    pub fn behind_pipes(request: usize, response: usize, signs: Option<Algorithm>) -> io::Result<Self> {
        let what = signs.map_or(UNSIGNED.to_owned(), |algorithm| algorithm.to_string());
        let ((theirs_in, requests), (answers, theirs_out)) = (io::pipe()?, io::pipe()?);
        let near = [OwnedFd::from(requests), answers.into()].map(File::from);
        Self::spawn(request, response, &what, &[], near, [theirs_in.into(), theirs_out.into()])
    }

    /// Starts one behind a socket that does `what`, with a place for settings in its environment.
    pub(crate) fn of(
        request: usize,
        response: usize,
        what: &str,
        environment: &[(&str, &Path)],
    ) -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let (again, theirs) = (near.try_clone()?, far.try_clone()?);
        let near = [OwnedFd::from(near), again.into()].map(File::from);
        Self::spawn(request, response, what, environment, near, [far.into(), theirs.into()])
    }

    fn spawn(
        request: usize,
        response: usize,
        what: &str,
        environment: &[(&str, &Path)],
        [requests, answers]: [File; 2],
        [input, output]: [OwnedFd; 2],
    ) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([BARE, &request.to_string(), &response.to_string(), what])
            .envs(environment.iter().copied())
            .stdin(input)
            .stdout(output)
            .spawn()?;
        Ok(Self { guard: Guard::new(child), ends: Mutex::new((requests, answers)), request, response })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Asks once.
    ///
    /// # Errors
    /// What the socket says.
    pub fn ask(&self) -> io::Result<()> {
        let mut buffer = [0; ROOM];
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.0.write_all(&buffer[..self.request])?;
        ends.1.read_exact(&mut buffer[..self.response])
    }
}

/// How many bytes the agent takes and gives for one signature of [`MESSAGE`].
///
/// # Errors
/// What the key says.
pub fn lengths(key: &dyn Key, reason: &str) -> Result<(usize, usize), Box<dyn Error>> {
    let (info, input) = (key.info(), Input::Message(&MESSAGE));
    let (uri, scheme) = (info.uri.to_string(), info.algorithm.natural_scheme());
    let requester = Requester::default();
    let request = SignRequest { key: &uri, scheme, input, reason, timeout_ms: None, requester };
    let response = Response::Signature(key.sign(scheme, input, &SignContext::new(reason))?.into_bytes());
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    encode(1, &Request::Sign(request), &mut asked)?;
    encode(1, &response, &mut answered)?;
    Ok((asked.len(), answered.len()))
}

/// What the other process does.
pub(crate) fn play(request: &str, response: &str, what: &str) -> Result<(), Box<dyn Error>> {
    let (request, response): (usize, usize) = (request.parse()?, response.parse()?);
    let mut work: Box<dyn FnMut()> = match what {
        UNSIGNED => Box::new(|| ()),
        _ => match hardware::work(what)? {
            Some(work) => work,
            None => {
                let key = BareKey::generate(what.parse()?)?;
                Box::new(move || key.sign())
            }
        },
    };
    // Without the buffers of the standard streams.
    let mut requests = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut buffer = [0; ROOM];
    while requests.read_exact(&mut buffer[..request]).is_ok() {
        work();
        answers.write_all(&buffer[..response])?;
    }
    Ok(())
}
