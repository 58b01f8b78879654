//! A socket whose bytes are recorded both ways.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use enclasp_doctor::wire::{KeyLog, Side};
use enclasp_doctor::{End, Recording};

/// A connection under observation; we are at the end `own`.
pub(super) struct Tee {
    pub(super) stream: TcpStream,
    pub(super) recording: Recording,
    own: Side,
    began: Instant,
}

impl Tee {
    /// Reads wait for at most `patience`.
    pub(super) fn new(stream: TcpStream, own: Side, patience: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let (local, peer) = (stream.local_addr()?.to_string(), stream.peer_addr()?.to_string());
        let (client, server) = match own {
            Side::Client => (local, peer),
            Side::Server => (peer, local),
        };
        let recording = Recording { client, server, ..Recording::default() };
        Ok(Self { stream, recording, own, began: Instant::now() })
    }

    /// Notes that we end the connection now.
    pub(super) fn close(&mut self) {
        self.recording.end(self.began.elapsed(), self.own, End::Closed);
    }

    /// Notes that the other end said no more within our patience.
    pub(super) fn give_up(&mut self) {
        self.recording.end(self.began.elapsed(), self.own.other(), End::TimedOut);
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer);
        let (at, peer) = (self.began.elapsed(), self.own.other());
        match &read {
            Ok(0) => self.recording.end(at, peer, End::Closed),
            Ok(count) => self.recording.push(at, peer, buffer.get(..*count).unwrap_or_default()),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    self.recording.end(at, peer, End::Reset);
                }
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {}
                _ => self.recording.end(at, peer, End::Closed),
            },
        }
        read
    }
}

impl Write for Tee {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(buffer)?;
        self.recording.push(self.began.elapsed(), self.own, buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Collects the secrets that a TLS stack tells.
#[derive(Debug, Default)]
pub(super) struct Secrets(Mutex<KeyLog>);

impl Secrets {
    /// What was told so far.
    pub(super) fn told(self: &Arc<Self>) -> KeyLog {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl rustls::KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Ok(random) = client_random.try_into() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).add(random, label, secret);
        }
    }
}
