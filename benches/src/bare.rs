//! The limits: signatures with nothing around them, here and in another process.

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use enclasp_keystore::Algorithm;

use crate::MESSAGE;
use crate::process::Guard;

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

/// A process that reads so many bytes from a Unix socket, signs or does not, and answers with so
/// many others. It reads no request, checks nobody, and closes nothing off.
pub struct BareProcess {
    guard: Guard,
    stream: Mutex<UnixStream>,
    request: usize,
    response: usize,
}

impl BareProcess {
    /// Starts one. The lengths are in bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(request: usize, response: usize, signs: Option<Algorithm>) -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let algorithm = signs.map_or(UNSIGNED.to_owned(), |algorithm| algorithm.to_string());
        let child = Command::new(std::env::current_exe()?)
            .args([BARE, &request.to_string(), &response.to_string(), &algorithm])
            .stdin(OwnedFd::from(far))
            .spawn()?;
        Ok(Self { guard: Guard::new(child), stream: Mutex::new(near), request, response })
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
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&buffer[..self.request])?;
        stream.read_exact(&mut buffer[..self.response])
    }
}

/// What the other process does.
pub(crate) fn play(request: &str, response: &str, algorithm: &str) -> Result<(), Box<dyn Error>> {
    let (request, response): (usize, usize) = (request.parse()?, response.parse()?);
    let key = match algorithm {
        UNSIGNED => None,
        name => Some(BareKey::generate(name.parse()?)?),
    };
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut buffer = [0; ROOM];
    while stream.read_exact(&mut buffer[..request]).is_ok() {
        if let Some(key) = &key {
            key.sign();
        }
        stream.write_all(&buffer[..response])?;
    }
    Ok(())
}
