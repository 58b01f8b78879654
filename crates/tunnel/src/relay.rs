//! One connection through a tunnel: its bytes, and its line in the log.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use enclasp_tls::{Error as TlsError, Evidence, Handshake, Server, explain};
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::deadline::Deadline;
use crate::endpoint::Stream;
use crate::metrics::Counted;
use crate::{Error, Limits};

/// How much is read at once: four TLS records.
const PIECE: usize = 64 * 1024;

/// What rustls reads at once, and keeps a buffer for.
const AT_REST: usize = 4096;

/// How often each way of a connection may read before others on its thread have their turn.
const TURN: usize = 4;

/// What a connection needs while it is being served. Each thread has one; what its connections keep
/// between two events is only what a socket did not take.
struct Scratch {
    read: Box<[u8]>,
    plaintext: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; PIECE].into(), plaintext: Vec::with_capacity(PIECE) });
}

/// A connection whose handshake is done.
pub(crate) struct Relay {
    ends: Ends,
    line: Line,
}

impl Relay {
    pub(crate) fn new(
        tls: impl Into<Connection>,
        secure: Stream,
        plain: Stream,
        evidence: Evidence,
        started: Instant,
    ) -> Self {
        let way = || Way { bytes: 0, state: State::Open };
        let tls = Box::new(tls.into());
        let ends =
            Ends { tls, secure, plain, inward: way(), outward: way(), untaken: Vec::new(), swollen: false };
        Self { ends, line: Line::new(evidence, started) }
    }

    /// Carries bytes both ways until both ways have ended, the time of one of `limits` is over, or
    /// `recheck` finds the peer revoked; the end of one way is passed on at once. Logs how it went.
    pub(crate) async fn run(self, limits: &Limits, mut recheck: Option<Recheck>, counted: &Counted) {
        let Self { mut ends, line } = self;
        let ended = match ends.begin() {
            Ok(()) => {
                let mut deadline = Deadline::new(limits);
                poll_fn(|cx| match ends.poll(cx) {
                    Poll::Pending => match recheck.as_mut().map(|recheck| recheck.poll(&ends, cx)) {
                        Some(Poll::Ready(())) => Poll::Ready(Err(Broken::Revoked)),
                        Some(Poll::Pending) | None => {
                            let carried = ends.inward.bytes + ends.outward.bytes;
                            deadline
                                .poll(ends.is_half_closed(), carried, cx)
                                .map(|why| Err(Broken::Time(why)))
                        }
                    },
                    ended => ended,
                })
                .await
            }
            broken => broken,
        };
        if matches!(ended, Err(Broken::Time(_))) {
            counted.timed_out();
        }
        line.log(&ends, ended);
    }
}

/// Whether the client of an open connection has been revoked, looked up whenever what connections are
/// accepted with has changed.
pub(crate) struct Recheck(Pin<Box<dyn Future<Output = watch::Receiver<Server>> + Send>>);

impl Recheck {
    /// `server` has seen what the connection was accepted with.
    pub(crate) fn new(mut server: watch::Receiver<Server>) -> Self {
        Self(Box::pin(async move {
            if server.changed().await.is_err() {
                // The tunnel takes nobody new, and nothing changes any more.
                pending().await
            }
            server
        }))
    }

    /// Ready when it has.
    fn poll(&mut self, ends: &Ends, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let server = std::task::ready!(self.0.as_mut().poll(cx));
            let now = server.borrow().clone();
            if ends.tls.peer_certificates().is_some_and(|chain| now.has_revoked(chain)) {
                return Poll::Ready(());
            }
            *self = Self::new(server);
        }
    }
}

/// The two ends of a connection.
struct Ends {
    tls: Box<Connection>,
    secure: Stream,
    plain: Stream,
    /// From the TLS side to the plain one.
    inward: Way,
    /// From the plain side to the TLS one.
    outward: Way,
    /// Plaintext that the plain side has not taken yet; what the TLS side has not, rustls keeps.
    untaken: Vec<u8>,
    /// Whether rustls holds a buffer for records that are larger than most.
    swollen: bool,
}

/// One direction of a connection.
struct Way {
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its source has ended; what is left and the end are to be passed on.
    Ending,
    Ended,
}

/// Which side failed.
#[derive(Debug)]
enum Broken {
    Secure(io::Error),
    Plain(io::Error),
    /// Neither: its time is over, for this reason.
    Time(&'static str),
    /// Neither: the peer's certificate was revoked.
    Revoked,
}

type Outcome<T> = Result<T, Broken>;

impl Ends {
    /// Takes what came with the handshake's last message.
    fn begin(&mut self) -> Outcome<()> {
        // It is given one piece at most before all is sent.
        self.tls.set_buffer_limit(None);
        let mut plaintext = Vec::new();
        self.decrypt(&[], &mut plaintext)?;
        self.inward.bytes = plaintext.len() as u64;
        self.untaken = plaintext;
        Ok(())
    }

    /// Whether one way has ended and not the other.
    fn is_half_closed(&self) -> bool {
        (self.inward.state == State::Ended) != (self.outward.state == State::Ended)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            for _ in 0..TURN {
                let inward = self.inward(cx, scratch).inspect_err(|_| {
                    // The alert that tells the peer, if the peer listens.
                    let _ = self.flush(cx);
                })?;
                // After it: what came may want an answer.
                let outward = self.outward(cx, scratch)?;
                if self.inward.state == State::Ended && self.outward.state == State::Ended {
                    return Poll::Ready(Ok(()));
                }
                if inward.is_pending() && outward.is_pending() {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Reads from the TLS side, once at most, and writes to the plain one. Pending if nothing more
    /// can be done.
    fn inward(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Outcome<Poll<()>> {
        scratch.plaintext.clear();
        if self.untaken.is_empty() && self.inward.state == State::Open {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            match Pin::new(&mut self.secure).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    self.shrink();
                    return Ok(Poll::Pending);
                }
                Poll::Ready(read) => read.map_err(Broken::Secure)?,
            }
            match buffer.filled() {
                // Without the peer's close_notify this may be an attacker's doing.
                [] => return Err(Broken::Secure(ErrorKind::UnexpectedEof.into())),
                received => self.decrypt(received, &mut scratch.plaintext)?,
            }
            self.inward.bytes += scratch.plaintext.len() as u64;
        }
        self.pass_on(cx, &scratch.plaintext).map_err(Broken::Plain)
    }

    /// Has rustls see what was received, and takes out what it was.
    fn decrypt(&mut self, mut received: &[u8], plaintext: &mut Vec<u8>) -> Outcome<()> {
        self.swollen |= received.len() > AT_REST;
        loop {
            if !received.is_empty() {
                self.tls.read_tls(&mut received).map_err(Broken::Secure)?;
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => return Err(Broken::Secure(io::Error::new(ErrorKind::InvalidData, error))),
            };
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let mut reader = self.tls.reader();
                let chunk = reader.fill_buf().map_err(Broken::Secure)?;
                plaintext.extend_from_slice(chunk);
                let length = chunk.len();
                left -= length;
                reader.consume(length);
            }
            if state.peer_has_closed() {
                // What follows a close_notify is ignored (RFC 8446 §6.1).
                if self.inward.state == State::Open {
                    self.inward.state = State::Ending;
                }
                return Ok(());
            }
            if received.is_empty() {
                return Ok(());
            }
        }
    }

    /// Has rustls give back what it took to join large records: it looks at its buffer before it
    /// reads.
    fn shrink(&mut self) {
        if std::mem::take(&mut self.swollen) {
            let _ = self.tls.read_tls(&mut Nothing);
        }
    }

    /// Has the plain side take what it was to have before, then `plaintext`, then the end.
    fn pass_on(&mut self, cx: &mut Context<'_>, mut plaintext: &[u8]) -> io::Result<Poll<()>> {
        while !self.untaken.is_empty() {
            match Pin::new(&mut self.plain).poll_write(cx, &self.untaken) {
                Poll::Pending => {
                    self.untaken.extend_from_slice(plaintext);
                    return Ok(Poll::Pending);
                }
                Poll::Ready(taken) => drop(self.untaken.drain(..some(taken)?)),
            }
        }
        self.untaken = Vec::new();
        while !plaintext.is_empty() {
            match Pin::new(&mut self.plain).poll_write(cx, plaintext) {
                Poll::Pending => {
                    self.untaken = plaintext.to_vec();
                    return Ok(Poll::Pending);
                }
                Poll::Ready(taken) => plaintext = &plaintext[some(taken)?..],
            }
        }
        if self.inward.state == State::Ending {
            let shut = Pin::new(&mut self.plain).poll_shutdown(cx);
            if shut.is_pending() {
                return Ok(Poll::Pending);
            }
            // Whoever is gone already has no use for the end.
            self.inward.state = State::Ended;
        }
        Ok(if self.inward.state == State::Ended { Poll::Pending } else { Poll::Ready(()) })
    }

    /// Reads from the plain side, once at most, and writes to the TLS one. Pending if nothing more
    /// can be done.
    fn outward(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Outcome<Poll<()>> {
        if self.flush(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if self.outward.state == State::Open {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            match Pin::new(&mut self.plain).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(read) => read.map_err(Broken::Plain)?,
            }
            match buffer.filled() {
                [] => {
                    self.tls.send_close_notify();
                    self.outward.state = State::Ending;
                }
                read => {
                    self.tls.writer().write_all(read).map_err(Broken::Secure)?;
                    self.outward.bytes += read.len() as u64;
                }
            }
            if self.flush(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
        }
        if self.outward.state == State::Ending {
            if Pin::new(&mut self.secure).poll_shutdown(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.outward.state = State::Ended;
        }
        Ok(if self.outward.state == State::Ended { Poll::Pending } else { Poll::Ready(()) })
    }

    /// Sends what rustls has for the peer.
    fn flush(&mut self, cx: &mut Context<'_>) -> Outcome<Poll<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Sink { stream: &mut self.secure, cx }) {
                Ok(0) => return Err(Broken::Secure(ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Poll::Pending),
                Err(e) => return Err(Broken::Secure(e)),
            }
        }
        Ok(Poll::Ready(()))
    }
}

/// What was taken, of something that was not empty.
fn some(taken: io::Result<usize>) -> io::Result<usize> {
    match taken {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        taken => taken,
    }
}

/// Nothing to read at the moment.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// A stream that rustls writes to, as far as it takes it now.
struct Sink<'a, 'b> {
    stream: &'a mut Stream,
    cx: &'a mut Context<'b>,
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.stream).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.stream).poll_write_vectored(self.cx, pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn now(written: Poll<io::Result<usize>>) -> io::Result<usize> {
    match written {
        Poll::Ready(written) => written,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

/// What the log will say of a connection.
struct Line {
    evidence: Evidence,
    subject: Option<String>,
    started: Instant,
}

impl Line {
    fn new(evidence: Evidence, started: Instant) -> Self {
        let subject = evidence.peer_subject().map(str::to_owned);
        Self { evidence, subject, started }
    }

    fn log(&self, ends: &Ends, ended: Outcome<()>) {
        let evidence = &self.evidence;
        let end = match ended {
            Ok(()) => None,
            Err(Broken::Time(reason)) => Some(reason.to_owned()),
            Err(Broken::Revoked) => Some("the client's certificate was revoked".to_owned()),
            Err(Broken::Plain(error)) => Some(format!("the plain side failed: {error}")),
            Err(Broken::Secure(error)) => match explain(error, evidence) {
                refused @ (TlsError::Refused { .. } | TlsError::CertificateDemanded { .. }) => {
                    return refusal(&evidence.address, &refused.into());
                }
                error => Some(error.to_string()),
            },
        };
        let signature = evidence.signature_by(evidence.local.role);
        tracing::info!(
            target: CONNS,
            peer = %evidence.address,
            subject = self.subject,
            version = %evidence.version,
            scheme = signature.map(|signature| signature.scheme.as_str()),
            key = evidence.local.key.as_deref(),
            software = evidence.local.software,
            resumed = evidence.handshake == Handshake::Resumed,
            received = ends.inward.bytes,
            sent = ends.outward.bytes,
            end,
            elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "connection"
        );
    }
}

/// What lines of the log are about, for those who want fewer of them.
const CONNS: &str = "enclasp_tunnel::conns";
const CONN_ERRS: &str = "enclasp_tunnel::conn_errs";
const HANDSHAKE_ERRS: &str = "enclasp_tunnel::handshake_errs";

/// The line of a connection that did not come about.
pub(crate) fn refusal(peer: &str, error: &Error) {
    let (hint, cause) = (error.hint(), error);
    match error {
        Error::Tls(tls) => {
            let (subject, rule) = (tls.peer_subject(), tls.rule());
            tracing::warn!(target: HANDSHAKE_ERRS, peer, subject, rule, %cause, hint, "refused");
        }
        _ => tracing::warn!(target: CONN_ERRS, peer, %cause, hint, "refused"),
    }
}
