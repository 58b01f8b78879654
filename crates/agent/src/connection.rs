//! One connection: its frames, its requests, its answers.

use std::cell::RefCell;
use std::io::{self, IoSlice, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::{FrameReader, Request, Response, SignRequest, VERSION, decode, encode};
use enclasp_keystore::{Cancel, Error, Input, Key, KeyInfo, KeyUri, Requester, Result, SignContext};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::admission::{Caller, Peer};
use crate::lane::{Ends, Lane};
use crate::queue::Job;
use crate::server::{STACK, Server, Slot};

/// How long a peer may take to say hello, to finish a frame, and to take its answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers beyond this many bytes are sent at once.
const MAX_PENDING: usize = 64 * 1024;

/// How many signatures may wait for a person at once, of one connection and in all.
const MAX_PROMPTS: usize = 4;
const MAX_PROMPTS_IN_ALL: usize = 16;

/// How long a person or hardware has to answer when the caller set no limit, and at most.
const SLOW_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_SLOW_TIMEOUT: Duration = Duration::from_secs(600);

/// The same for making, opening and deleting a key in hardware. Clients wait longer than this.
const MANAGING_TIMEOUT: Duration = Duration::from_secs(120);

/// Bounds how long a read or a write on `stream` blocks.
pub(crate) fn set_timeouts(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Answers requests until the peer goes away or breaks the protocol.
pub(crate) fn serve(slot: Arc<Slot>, stream: Arc<UnixStream>, caller: Caller) {
    let session = Session {
        slot,
        caller,
        requester: RefCell::default(),
        output: Arc::new(Output::new(Carrier::Socket(stream))),
        cancel: Cancel::default(),
        prompts: Arc::default(),
        lane: RefCell::default(),
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
    let output = Output::new(Carrier::Socket(stream.clone()));
    let mut incoming = Incoming { stream: &stream, output: &output, frame_began: Some(Instant::now()) };
    if let Ok(Some((id, _))) = FrameReader::default().next(&mut incoming) {
        let error = Error::Busy { key: "agent".into(), operation: "serve".into(), reason };
        // The peer may be gone, which is just as well.
        let _ = output.send(id, &Response::Refused(error));
    }
}

/// What one thread of a connection serves: the socket, or the lane.
struct Session {
    slot: Arc<Slot>,
    caller: Caller,
    /// Where a person can be asked for what is no signature.
    requester: RefCell<Requester>,
    output: Arc<Output>,
    /// Ends what waits for hardware or a person when the connection ends.
    cancel: Cancel,
    prompts: Arc<AtomicUsize>,
    /// The connection's lane, for its socket's thread to end with the connection.
    lane: RefCell<Option<Lane>>,
}

impl Session {
    fn run(&self) -> io::Result<()> {
        let mut reader = FrameReader::default();
        let stream = self.output.stream();
        let mut incoming = Incoming { stream, output: &self.output, frame_began: Some(Instant::now()) };
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
                    let holds_secret = matches!(request, Request::Import { .. } | Request::Unlock { .. });
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

    /// Answers the requests that come by the lane, until it or the connection ends.
    fn run_lane(&self, mut requests: impl Read) -> io::Result<()> {
        let mut reader = FrameReader::default();
        loop {
            let Some((id, body)) = reader.next(&mut requests)? else { return Ok(()) };
            let arrived = Instant::now();
            let answer = match decode(body) {
                Ok(Request::Sign(request)) => self.sign(id, &request, arrived),
                Ok(_) => Err(Error::Protocol { reason: "nothing but signatures goes by a lane".into() }),
                Err(error) => Err(error),
            };
            self.answer(id, answer)?;
            self.output.flush()?;
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
        let (name, operation, work): (_, _, Box<Work>) = match request {
            Request::Hello(_) => return Ok(Some(Response::Hello(VERSION))),
            Request::Status => {
                let mut status = self.server().status();
                if !self.caller.owner {
                    status.keys.clear();
                }
                return Ok(Some(Response::Status(status)));
            }
            Request::Introduce(requester) => {
                self.requester.replace(requester);
                return Ok(Some(Response::Done));
            }
            Request::Unlock { key, pin } => {
                self.caller.may_manage(&key, "unlock")?;
                self.server().pins.keep(&key, &pin.into_inner())?;
                return Ok(Some(Response::Done));
            }
            Request::Sign(request) => return self.sign(id, &request, arrived),
            Request::Lane => return self.open_lane(id),
            Request::List => ("list".into(), "list", Box::new(list)),
            Request::Open(uri) => {
                let name = uri.to_string();
                let open = move |server: &Server, caller: &Caller| {
                    let key = server.served.open(&uri)?;
                    Ok(Response::Key(usable(&*key, caller, &uri)?.clone()))
                };
                (name, "open", Box::new(open))
            }
            Request::Create(spec) => {
                self.caller.may_manage(&spec.uri, "create")?;
                let name = spec.uri.to_string();
                let create = move |server: &Server, caller: &Caller| {
                    let key = server.served.create(&spec)?;
                    tracing::info!(key = %spec.uri, uid = caller.peer.uid, "created");
                    Ok(Response::Key(key.info().clone()))
                };
                (name, "create", Box::new(create))
            }
            Request::Import { uri, pkcs8 } => {
                self.caller.may_manage(&uri, "import")?;
                let name = uri.to_string();
                let import = move |server: &Server, caller: &Caller| {
                    let key = server.served.import(&uri, pkcs8.into_inner())?;
                    tracing::info!(key = %uri, uid = caller.peer.uid, "imported");
                    Ok(Response::Key(key.info().clone()))
                };
                (name, "import", Box::new(import))
            }
            Request::Delete(uri) => {
                self.caller.may_manage(&uri, "delete")?;
                let name = uri.to_string();
                let delete = move |server: &Server, caller: &Caller| {
                    server.served.delete(&uri)?;
                    tracing::info!(key = %uri, uid = caller.peer.uid, "deleted");
                    Ok(Response::Done)
                };
                (name, "delete", Box::new(delete))
            }
            Request::Certificate(uri) => {
                self.caller.may_manage(&uri, "read the certificate of")?;
                let name = uri.to_string();
                let read = move |server: &Server, _: &Caller| {
                    Ok(Response::Certificate(server.served.certificate(&uri)?))
                };
                (name, "read the certificate of", Box::new(read))
            }
            Request::Describe(uri) => {
                self.caller.may_manage(&uri, "describe the device of")?;
                let name = uri.to_string();
                let describe =
                    move |server: &Server, _: &Caller| Ok(Response::Device(server.served.device(&uri)?));
                (name, "describe the device of", Box::new(describe))
            }
            Request::StoreCertificate { uri, certificate } => {
                self.caller.may_manage(&uri, "store a certificate beside")?;
                let name = uri.to_string();
                let store = move |server: &Server, _: &Caller| {
                    server.served.store_certificate(&uri, &certificate)?;
                    Ok(Response::Done)
                };
                (name, "store a certificate beside", Box::new(store))
            }
        };
        if self.server().served.is_fast() {
            return work(self.server(), &self.caller).map(Some);
        }
        let ctx = SignContext {
            reason: operation.into(),
            deadline: Some(arrived + MANAGING_TIMEOUT),
            cancel: self.cancel.clone(),
            requester: self.asked_at(&self.requester.borrow()),
        };
        self.do_aside(id, name, operation, ctx, move |server, caller, _| work(server, caller))?;
        Ok(None)
    }

    fn sign(&self, id: u32, request: &SignRequest<'_>, arrived: Instant) -> Result<Option<Response>> {
        let limit = request.timeout_ms.map(|limit| Duration::from_millis(limit.into()));
        let mut permits = None;
        if self.server().served.is_fast() {
            let key = self.server().served.key(request.key)?;
            if !usable(&*key, &self.caller, &key.info().uri)?.policy.prompts() {
                let ctx = SignContext {
                    deadline: limit.map(|limit| arrived + limit),
                    cancel: self.cancel.clone(),
                    ..SignContext::default()
                };
                let begun = Instant::now();
                let signed = key.sign(request.scheme, request.input, &ctx);
                self.server().usages.record(request.key, arrived, begun, &signed);
                let signature = signed?;
                self.server().signatures.fetch_add(1, Ordering::Relaxed);
                let Peer { uid, pid, .. } = self.caller.peer;
                let (key, scheme) = (request.key, request.scheme);
                tracing::debug!(key, uid, pid, %scheme, elapsed_us = elapsed_us(arrived), "signed");
                return Ok(Some(Response::Signature(signature.into_bytes())));
            }
            let enough = || Error::Busy {
                key: request.key.to_owned(),
                operation: "sign with".into(),
                reason: "too many signatures wait for a person already".into(),
            };
            permits = Some((
                Permit::take(&self.prompts, MAX_PROMPTS).ok_or_else(enough)?,
                Permit::take(&self.server().prompts, MAX_PROMPTS_IN_ALL).ok_or_else(enough)?,
            ));
        }
        let ctx = SignContext {
            reason: request.reason.to_owned(),
            deadline: Some(arrived + limit.unwrap_or(SLOW_TIMEOUT).min(MAX_SLOW_TIMEOUT)),
            cancel: self.cancel.clone(),
            requester: self.asked_at(&request.requester),
        };
        let (input, bytes): (fn(&[u8]) -> Input<'_>, _) = match request.input {
            Input::Message(message) => (|bytes| Input::Message(bytes), message.to_vec()),
            Input::Digest(digest) => (|bytes| Input::Digest(bytes), digest.to_vec()),
        };
        let (name, scheme) = (request.key.to_owned(), request.scheme);
        let sign = move |server: &Server, caller: &Caller, ctx: &SignContext| {
            let begun = Instant::now();
            let key = server.served.key(&name)?;
            usable(&*key, caller, &key.info().uri)?;
            let signed = key.sign(scheme, input(&bytes), ctx);
            drop(permits);
            server.usages.record(&name, arrived, begun, &signed);
            if matches!(signed, Err(Error::Absent { .. })) {
                server.served.forget(&name);
            }
            let signature = signed?;
            server.signatures.fetch_add(1, Ordering::Relaxed);
            let queued_us = begun.saturating_duration_since(arrived).as_micros();
            let elapsed_us = elapsed_us(begun);
            let Peer { uid, pid, .. } = caller.peer;
            tracing::debug!(key = %name, uid, pid, %scheme, queued_us, elapsed_us, "signed");
            if key.info().policy.prompts() {
                tracing::info!(key = %name, uid, pid, "signed with a key that asks a person");
            }
            Ok(Response::Signature(signature.into_bytes()))
        };
        self.do_aside(id, request.key.to_owned(), "sign with", ctx, sign)?;
        Ok(None)
    }

    /// Has work done in its turn in the queue `name`, and its answer sent: by a thread of the queue,
    /// or by this one if it serves the lane, where nothing else can come meanwhile.
    fn do_aside(
        &self,
        id: u32,
        name: String,
        operation: &'static str,
        ctx: SignContext,
        work: impl FnOnce(&Server, &Caller, &SignContext) -> Result<Response> + Send + 'static,
    ) -> Result<()> {
        let (server, caller, output) = (self.slot.server.clone(), self.caller.clone(), self.output.clone());
        let (deadline, cancel) = (ctx.deadline.unwrap_or_else(Instant::now), ctx.cancel.clone());
        let key = name.clone();
        let answer = move || {
            let done = if Instant::now() >= deadline {
                let late = Error::Deadline { key: key.clone(), operation: operation.into() };
                server.usages.turned_away(&key, &late);
                Err(late)
            } else {
                server.pins.on_behalf_of(&ctx, || work(&server, &caller, &ctx))
            };
            let response = done.unwrap_or_else(|error| {
                tracing::info!(uid = caller.peer.uid, pid = caller.peer.pid, %error, "refused");
                Response::Refused(error)
            });
            // Nobody may be there any more to take it.
            let _ = output.send(id, &response);
        };
        let job = Job { deadline, cancel, work: Box::new(answer) };
        let queues = &self.server().queues;
        let taken = match self.output.carrier {
            Carrier::Socket(_) => queues.submit(&name, self.slot.number, job),
            Carrier::Lane { .. } => queues.perform(&name, self.slot.number, job),
        };
        taken.map_err(|reason| {
            let busy = Error::Busy { key: name.clone(), operation: operation.into(), reason };
            self.server().usages.turned_away(&name, &busy);
            busy
        })
    }

    /// Opens the connection's lane and tells the peer, with its ends of it.
    fn open_lane(&self, id: u32) -> Result<Option<Response>> {
        let refused =
            |reason: String| Error::Busy { key: "agent".into(), operation: "open a lane of".into(), reason };
        if self.lane.borrow().is_some() {
            return Err(refused("the connection has one".into()));
        }
        let opened = self.server().lanes.open().map_err(|e| refused(e.to_string()))?;
        let (lane, Ends { requests, answers, permit }, for_peer) = opened;
        let stream = self.output.stream().clone();
        let session = Self {
            slot: self.slot.clone(),
            caller: self.caller.clone(),
            requester: RefCell::default(),
            output: Arc::new(Output::new(Carrier::Lane { answers, stream })),
            cancel: self.cancel.clone(),
            prompts: self.prompts.clone(),
            lane: RefCell::default(),
        };
        let serve = move || {
            if let Err(error) = session.run_lane(requests) {
                tracing::debug!(%error, "a lane ended");
            }
            // The connection ends with it.
            let _ = session.output.stream().shutdown(Shutdown::Both);
            drop(permit);
        };
        let thread = thread::Builder::new().name("lane".into()).stack_size(STACK).spawn(serve);
        thread.map_err(|e| refused(e.to_string()))?;
        self.lane.replace(Some(lane));
        // Who does not get it has gone, or takes no answers, which the next one shows.
        let _ = self.output.send_with(id, &Response::Done, &for_peer);
        Ok(None)
    }

    fn server(&self) -> &Arc<Server> {
        &self.slot.server
    }

    /// The requester with the process id that the kernel tells.
    fn asked_at(&self, requester: &Requester) -> Requester {
        Requester { pid: self.caller.peer.pid, ..requester.clone() }
    }
}

/// What a request other than a signature does.
type Work = dyn FnOnce(&Server, &Caller) -> Result<Response> + Send;

fn list(server: &Server, caller: &Caller) -> Result<Response> {
    let mut keys = server.served.list()?;
    keys.retain(|key| caller.may_use(key));
    Ok(Response::Keys(keys))
}

/// The key's description if the caller may use it. To who may not, it is as if it were not there.
fn usable<'a>(key: &'a dyn Key, caller: &Caller, uri: &KeyUri) -> Result<&'a KeyInfo> {
    if caller.may_use(key.info()) { Ok(key.info()) } else { Err(Error::Absent { key: uri.to_string() }) }
}

fn elapsed_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// What goes to the peer. Answers gather until the reader has nothing left to do.
struct Output {
    carrier: Carrier,
    pending: Mutex<Pending>,
}

/// What carries answers.
enum Carrier {
    Socket(Arc<UnixStream>),
    Lane {
        answers: PipeWriter,
        /// That of the same connection.
        stream: Arc<UnixStream>,
    },
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    frame: Vec<u8>,
}

impl Output {
    fn new(carrier: Carrier) -> Self {
        Self { carrier, pending: Mutex::default() }
    }

    /// The connection's socket.
    fn stream(&self) -> &Arc<UnixStream> {
        let (Carrier::Socket(stream) | Carrier::Lane { stream, .. }) = &self.carrier;
        stream
    }

    /// Adds an answer to those that [`flush`](Self::flush) sends.
    fn queue(&self, id: u32, response: &Response) -> io::Result<()> {
        let mut pending = self.pending();
        pending.add(id, response);
        if pending.bytes.len() > MAX_PENDING { pending.write_to(&self.carrier) } else { Ok(()) }
    }

    /// Sends an answer and those before it at once.
    fn send(&self, id: u32, response: &Response) -> io::Result<()> {
        let mut pending = self.pending();
        pending.add(id, response);
        pending.write_to(&self.carrier)
    }

    /// The same on the socket, with descriptors that belong to it.
    fn send_with(&self, id: u32, response: &Response, descriptors: &[OwnedFd]) -> io::Result<()> {
        let mut pending = self.pending();
        pending.write_to(&self.carrier)?;
        pending.add(id, response);
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut along = SendAncillaryBuffer::new(&mut room);
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        along.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = std::mem::take(&mut pending.bytes);
        let sent = sendmsg(self.stream(), &[IoSlice::new(&bytes)], &mut along, SendFlags::NOSIGNAL);
        match sent {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error.into()),
        }
        .inspect_err(|_| drop(self.stream().shutdown(Shutdown::Both)))
    }

    fn flush(&self) -> io::Result<()> {
        self.pending().write_to(&self.carrier)
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

    fn write_to(&mut self, carrier: &Carrier) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let (written, stream) = match carrier {
            Carrier::Socket(stream) => ((&**stream).write_all(&self.bytes), stream),
            // Whole, as it has room in an empty pipe, or the peer did not take the one before.
            Carrier::Lane { answers, stream } => ((&*answers).write_all(&self.bytes), stream),
        };
        self.bytes.clear();
        // A peer that does not take its answers gets no further part of them.
        written.inspect_err(|_| drop(stream.shutdown(Shutdown::Both)))
    }
}

/// What comes from the peer. Before it waits for more it sends the answers there are, so that
/// those to requests that arrived together leave together.
struct Incoming<'a> {
    stream: &'a UnixStream,
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
            match (&mut &*self.stream).read(buffer) {
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
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Permit {
    pub(crate) fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
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
