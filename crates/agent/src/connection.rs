//! One connection: its frames, its requests, its answers.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::{FrameReader, Request, Response, SignRequest, VERSION, decode, encode};
use enclasp_keystore::{Cancel, Error, Import, Input, Key, KeyUri, Keystore, Requester, Result, SignContext};

use crate::admission::{Caller, Peer};
use crate::server::{STACK, Server};

/// How long a peer may take to say hello, to finish a frame, and to take its answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers beyond this many bytes are sent at once.
const MAX_PENDING: usize = 64 * 1024;

/// How many signatures may wait for a person at once, of one connection and in all.
const MAX_PROMPTS: usize = 4;
const MAX_PROMPTS_IN_ALL: usize = 16;

/// How long a person has to answer when the caller set no limit, and at most.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_PROMPT_TIMEOUT: Duration = Duration::from_secs(600);

/// Bounds how long a read or a write on `stream` blocks.
pub(crate) fn set_timeouts(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Answers requests until the peer goes away or breaks the protocol.
pub(crate) fn serve(server: &Arc<Server>, stream: Arc<UnixStream>, caller: Caller) {
    let session = Session {
        server,
        caller,
        output: Arc::new(Output::new(stream)),
        cancel: Cancel::default(),
        prompts: Arc::default(),
    };
    let ended = session.run();
    session.cancel.cancel();
    let (uid, pid) = (session.caller.peer.uid, session.caller.peer.pid);
    match ended.and_then(|()| session.output.flush()) {
        Ok(()) => tracing::debug!(uid, pid, "disconnected"),
        Err(error) => tracing::debug!(uid, pid, %error, "dropped"),
    }
}

/// Answers the first request with a refusal because of `reason`.
pub(crate) fn refuse(stream: Arc<UnixStream>, reason: String) {
    tracing::warn!(%reason, "a connection is refused");
    let output = Output::new(stream);
    let mut incoming = Incoming { output: &output, frame_began: Some(Instant::now()) };
    if let Ok(Some((id, _))) = FrameReader::default().next(&mut incoming) {
        let error = Error::Busy { key: "soft:".into(), operation: "serve".into(), reason };
        // The peer may be gone, which is just as well.
        let _ = output.send(id, &Response::Refused(error));
    }
}

struct Session<'a> {
    server: &'a Arc<Server>,
    caller: Caller,
    output: Arc<Output>,
    /// Ends what waits for a person when the connection ends.
    cancel: Cancel,
    prompts: Arc<AtomicUsize>,
}

impl Session<'_> {
    fn run(&self) -> io::Result<()> {
        let mut reader = FrameReader::default();
        let mut incoming = Incoming { output: &self.output, frame_began: Some(Instant::now()) };
        let mut greeted = false;
        loop {
            let (id, body) = match reader.next(&mut incoming) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    return self.reject(0, Error::Protocol { reason: e.to_string() });
                }
                Err(e) => return Err(e),
            };
            match decode(body) {
                Err(error) => return self.reject(id, error),
                Ok(Request::Hello(version)) if version != VERSION => {
                    let reason = format!("this agent speaks version {VERSION}, the program {version}");
                    return self.reject(id, Error::Protocol { reason });
                }
                Ok(request) if !greeted && !matches!(request, Request::Hello(_)) => {
                    let reason = "the first request has to be a hello".into();
                    return self.reject(id, Error::Protocol { reason });
                }
                Ok(request) => {
                    greeted = true;
                    let holds_secret = matches!(request, Request::Import { .. });
                    // `read` has set it, unless this frame came together with the one before.
                    let arrived = *incoming.frame_began.get_or_insert_with(Instant::now);
                    let answer = self.handle(id, request, arrived);
                    if holds_secret {
                        reader.wipe();
                    }
                    self.answer(id, answer)?;
                }
            }
            incoming.frame_began = reader.has_more().then(Instant::now);
        }
    }

    /// Sends a last refusal.
    fn reject(&self, id: u32, error: Error) -> io::Result<()> {
        let peer = &self.caller.peer;
        tracing::warn!(uid = peer.uid, pid = peer.pid, %error, "a connection is closed");
        self.output.send(id, &Response::Refused(error))
    }

    fn answer(&self, id: u32, answer: Result<Option<Response>>) -> io::Result<()> {
        match answer {
            Ok(Some(response)) => self.output.queue(id, &response),
            Ok(None) => Ok(()),
            Err(error) => {
                let peer = &self.caller.peer;
                tracing::info!(uid = peer.uid, pid = peer.pid, %error, "refused");
                self.output.queue(id, &Response::Refused(error))
            }
        }
    }

    /// `None` is an answer that comes later.
    fn handle(&self, id: u32, request: Request<'_>, arrived: Instant) -> Result<Option<Response>> {
        let keystore = &self.server.keystore;
        let uid = self.caller.peer.uid;
        Ok(Some(match request {
            Request::Sign(request) => return self.sign(id, &request, arrived),
            Request::Open(uri) => Response::Key(self.open(&uri)?.info().clone()),
            Request::List => {
                let mut keys = keystore.list()?;
                keys.retain(|key| self.caller.may_use(key));
                Response::Keys(keys)
            }
            Request::Create(spec) => {
                self.caller.may_manage(&spec.uri, "create")?;
                let key = keystore.create(&spec)?;
                tracing::info!(key = %spec.uri, uid, "created");
                Response::Key(key.info().clone())
            }
            Request::Import { uri, pkcs8 } => {
                self.caller.may_manage(&uri, "import")?;
                let key = keystore.import(&uri, pkcs8.into_inner())?;
                tracing::info!(key = %uri, uid, "imported");
                Response::Key(key.info().clone())
            }
            Request::Delete(uri) => {
                self.caller.may_manage(&uri, "delete")?;
                keystore.delete(&uri)?;
                tracing::info!(key = %uri, uid, "deleted");
                Response::Done
            }
            Request::Status => Response::Status(self.server.status()),
            Request::Hello(_) => Response::Hello(VERSION),
        }))
    }

    /// A key that the caller may use; the others are to it as if they were not there.
    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        let key = self.server.keystore.open(uri)?;
        if self.caller.may_use(key.info()) { Ok(key) } else { Err(Error::Absent { key: uri.to_string() }) }
    }

    fn sign(&self, id: u32, request: &SignRequest<'_>, arrived: Instant) -> Result<Option<Response>> {
        let key = self.open(&request.key.parse()?)?;
        let prompts = key.info().policy.prompts();
        let limit = request.timeout_ms.map(|limit| Duration::from_millis(limit.into()));
        let limit =
            if prompts { Some(limit.unwrap_or(PROMPT_TIMEOUT).min(MAX_PROMPT_TIMEOUT)) } else { limit };
        let mut ctx = SignContext {
            reason: request.reason.to_owned(),
            deadline: limit.map(|limit| arrived + limit),
            cancel: self.cancel.clone(),
            requester: Requester::default(),
        };
        if prompts {
            ctx.requester = Requester { pid: self.caller.peer.pid, ..request.requester.clone() };
            self.sign_aside(id, key, request, ctx)?;
            return Ok(None);
        }
        let signature = key.sign(request.scheme, request.input, &ctx)?;
        self.server.signatures.fetch_add(1, Ordering::Relaxed);
        let Peer { uid, pid, .. } = self.caller.peer;
        let elapsed_us = || u64::try_from(arrived.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(key = request.key, uid, pid, scheme = %request.scheme, elapsed_us = elapsed_us(), "signed");
        Ok(Some(Response::Signature(signature.into_bytes())))
    }

    /// Signs in a thread of its own, since a person takes long, and answers from there.
    fn sign_aside(
        &self,
        id: u32,
        key: Box<dyn Key>,
        request: &SignRequest<'_>,
        ctx: SignContext,
    ) -> Result<()> {
        let busy = |reason: String| Error::Busy {
            key: request.key.to_owned(),
            operation: "sign with".into(),
            reason,
        };
        let enough = || busy("too many signatures wait for a person already".into());
        let permits = (
            Permit::take(&self.prompts, MAX_PROMPTS).ok_or_else(enough)?,
            Permit::take(&self.server.prompts, MAX_PROMPTS_IN_ALL).ok_or_else(enough)?,
        );
        let (input, bytes): (fn(&[u8]) -> Input<'_>, _) = match request.input {
            Input::Message(message) => (|bytes| Input::Message(bytes), message.to_vec()),
            Input::Digest(digest) => (|bytes| Input::Digest(bytes), digest.to_vec()),
        };
        let (scheme, output, server) = (request.scheme, self.output.clone(), self.server.clone());
        let sign = move || {
            let (uri, pid) = (&key.info().uri, ctx.requester.pid);
            let response = match key.sign(scheme, input(&bytes), &ctx) {
                Ok(signature) => {
                    server.signatures.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(key = %uri, pid, %scheme, "signed, as a person agreed");
                    Response::Signature(signature.into_bytes())
                }
                Err(error) => {
                    tracing::info!(pid, %error, "refused");
                    Response::Refused(error)
                }
            };
            drop(permits);
            // Nobody may be there any more to take it.
            let _ = output.send(id, &response);
        };
        let started = thread::Builder::new().name("prompt".into()).stack_size(STACK).spawn(sign);
        started.map(drop).map_err(|e| busy(format!("no thread: {e}")))
    }
}

/// What goes to the peer. Answers gather until the reader has nothing left to do.
struct Output {
    stream: Arc<UnixStream>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    frame: Vec<u8>,
}

impl Output {
    fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, pending: Mutex::default() }
    }

    /// Adds an answer to those that [`flush`](Self::flush) sends.
    fn queue(&self, id: u32, response: &Response) -> io::Result<()> {
        let mut pending = self.pending();
        pending.add(id, response);
        if pending.bytes.len() > MAX_PENDING { pending.write_to(&self.stream) } else { Ok(()) }
    }

    /// Sends an answer and those before it at once.
    fn send(&self, id: u32, response: &Response) -> io::Result<()> {
        let mut pending = self.pending();
        pending.add(id, response);
        pending.write_to(&self.stream)
    }

    fn flush(&self) -> io::Result<()> {
        self.pending().write_to(&self.stream)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn add(&mut self, id: u32, response: &Response) {
        let encoded = encode(id, response, &mut self.frame);
        // Only a list of thousands of keys is too long; its refusal is not.
        if encoded.or_else(|error| encode(id, &Response::Refused(error), &mut self.frame)).is_ok() {
            self.bytes.extend_from_slice(&self.frame);
        }
    }

    fn write_to(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let written = stream.write_all(&self.bytes);
        self.bytes.clear();
        // A peer that does not take its answers gets no further part of them.
        written.inspect_err(|_| drop(stream.shutdown(Shutdown::Both)))
    }
}

/// What comes from the peer. Before it waits for more it sends the answers there are, so that
/// those to requests that arrived together leave together.
struct Incoming<'a> {
    output: &'a Output,
    /// When the frame that is under way began to arrive.
    frame_began: Option<Instant>,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.flush()?;
        loop {
            if self.frame_began.is_some_and(|began| began.elapsed() >= PATIENCE) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it stopped in the middle of a frame"));
            }
            match (&*self.output.stream).read(buffer) {
                // An idle connection may stay.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
                Ok(count) => {
                    self.frame_began.get_or_insert_with(Instant::now);
                    return Ok(count);
                }
            }
        }
    }
}

/// One of a limited number of places, given back when dropped.
struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let more = |count| (count < limit).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(taken.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
