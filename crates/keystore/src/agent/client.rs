//! The `agent` keystore: keys that another process holds.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zeroize::{Zeroize, Zeroizing};

use super::{FrameReader, Request, Response, Secret, SignRequest, Status, VERSION, decode, encode};
use crate::{
    Error, Import, Input, Key, KeyInfo, KeySpec, KeyUri, Keystore, Requester, Result, Scheme, SignContext,
    Signature, Verification,
};

/// The keys of an agent, over its Unix socket. Cloning shares the connections.
#[derive(Clone)]
pub struct AgentKeystore(Arc<Shared>);

struct Shared {
    socket: PathBuf,
    start: Box<dyn Fn() -> Result<()> + Send + Sync>,
    requester: Requester,
    /// Connections that are open and not in use. A call takes one for its own, so that nobody
    /// waits behind another's prompt and no thread sits between the caller and the socket.
    idle: Mutex<Vec<Connection>>,
}

/// More idle connections than this are closed.
const MAX_IDLE: usize = 32;

/// How often a waiting call looks at its deadline and at its cancellation.
const TICK: Duration = Duration::from_millis(50);

/// How long a call without a deadline of its own may take.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

impl AgentKeystore {
    /// The agent that listens on `socket`. Nothing is connected until it is needed.
    pub fn new(socket: &Path) -> Self {
        let at = socket.display().to_string();
        Self::starting(socket, move || {
            Err(Error::Unavailable { at: at.clone(), reason: "no agent listens there".into() })
        })
    }

    /// The same, but when nobody listens `start` is called once to start an agent, and returns
    /// when it listens or why it does not.
    pub fn starting(socket: &Path, start: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            socket: socket.to_owned(),
            start: Box::new(start),
            requester: requester(),
            idle: Mutex::default(),
        }))
    }

    /// How the agent is. Starts it if need be.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Protocol`].
    pub fn status(&self) -> Result<Status> {
        match self.0.call(&Request::Status, &SignContext::default(), "ask")? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a key.
    ///
    /// # Errors
    /// As [`Keystore::open`].
    pub fn open_key(&self, uri: &KeyUri) -> Result<AgentKey> {
        self.key(&Request::Open(uri.clone()), "open")
    }

    fn key(&self, request: &Request<'_>, operation: &str) -> Result<AgentKey> {
        match self.0.call(request, &SignContext::default(), operation)? {
            Response::Key(info) => Ok(AgentKey { uri: info.uri.to_string(), info, agent: self.0.clone() }),
            other => Err(unexpected(&other)),
        }
    }
}

impl Keystore for AgentKeystore {
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        Ok(Box::new(self.key(&Request::Create(spec.clone()), "create")?))
    }

    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>> {
        Ok(Box::new(self.open_key(uri)?))
    }

    fn list(&self) -> Result<Vec<KeyInfo>> {
        match self.0.call(&Request::List, &SignContext::default(), "list")? {
            Response::Keys(keys) => Ok(keys),
            other => Err(unexpected(&other)),
        }
    }

    fn delete(&self, uri: &KeyUri) -> Result<()> {
        match self.0.call(&Request::Delete(uri.clone()), &SignContext::default(), "delete")? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

impl Import for AgentKeystore {
    fn import(&self, uri: &KeyUri, pkcs8: Zeroizing<Vec<u8>>) -> Result<Box<dyn Key>> {
        let request = Request::Import { uri: uri.clone(), pkcs8: Secret::new(pkcs8) };
        Ok(Box::new(self.key(&request, "import")?))
    }
}

/// A key that an agent holds.
pub struct AgentKey {
    info: KeyInfo,
    uri: String,
    agent: Arc<Shared>,
}

impl Key for AgentKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        ctx.check(&self.info.uri)?;
        let timeout_ms = ctx.deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            u32::try_from(left).unwrap_or(u32::MAX)
        });
        // Where a person can be asked matters only to a key that asks.
        let requester =
            if self.info.policy.prompts() { self.agent.requester.clone() } else { Requester::default() };
        let request = Request::Sign(SignRequest {
            key: &self.uri,
            scheme,
            input,
            reason: &ctx.reason,
            timeout_ms,
            requester,
        });
        match self.agent.call(&request, ctx, "sign with")? {
            Response::Signature(signature) => Ok(Signature::new(signature)),
            other => Err(unexpected(&other)),
        }
    }

    fn verification(&self) -> Verification {
        Verification::Done
    }
}

impl Shared {
    /// Sends a request and waits for its answer. A refusal is an `Err`.
    fn call(&self, request: &Request<'_>, ctx: &SignContext, operation: &str) -> Result<Response> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle {
            match connection.call(request, ctx) {
                // The agent may have ended since the last call. What must not happen twice is not
                // sent twice.
                Err(Failure::Io(_)) if request.can_be_repeated() => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                other => return self.finish(connection, other, request, operation),
            }
        }
        let mut connection = self.connect()?;
        let outcome = connection.call(request, ctx);
        self.finish(connection, outcome, request, operation)
    }

    fn finish(
        &self,
        connection: Connection,
        outcome: std::result::Result<Response, Failure>,
        request: &Request<'_>,
        operation: &str,
    ) -> Result<Response> {
        let key = || request.key();
        match outcome {
            Ok(response) => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < MAX_IDLE {
                    idle.push(connection);
                }
                match response {
                    Response::Refused(error) => Err(error),
                    response => Ok(response),
                }
            }
            Err(Failure::Io(e)) => Err(self.unavailable(&e)),
            Err(Failure::Protocol(error)) => Err(error),
            Err(Failure::Cancelled) => Err(Error::Cancelled { key: key(), operation: operation.into() }),
            Err(Failure::Deadline) => Err(Error::Deadline { key: key(), operation: operation.into() }),
        }
    }

    fn connect(&self) -> Result<Connection> {
        let stream = match UnixStream::connect(&self.socket) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                (self.start)()?;
                UnixStream::connect(&self.socket)
            }
            other => other,
        }
        .map_err(|e| self.unavailable(&e))?;
        let timeouts =
            stream.set_read_timeout(Some(TICK)).and(stream.set_write_timeout(Some(DEFAULT_TIMEOUT)));
        timeouts.map_err(|e| self.unavailable(&e))?;
        let mut connection =
            Connection { stream, reader: FrameReader::default(), buffer: Vec::new(), last_id: 0 };
        let hello = Request::Hello(VERSION);
        let answer = connection.call(&hello, &SignContext::default());
        match answer {
            Ok(Response::Hello(VERSION)) => Ok(connection),
            Ok(Response::Hello(other)) => Err(Error::Protocol {
                reason: format!("the agent speaks version {other}, this program {VERSION}"),
            }),
            Ok(Response::Refused(error)) => Err(error),
            Ok(other) => Err(unexpected(&other)),
            Err(Failure::Io(e)) => Err(self.unavailable(&e)),
            Err(Failure::Protocol(error)) => Err(error),
            Err(Failure::Cancelled | Failure::Deadline) => Err(Error::Unavailable {
                at: self.socket.display().to_string(),
                reason: "what listens there does not answer".into(),
            }),
        }
    }

    fn unavailable(&self, error: &io::Error) -> Error {
        Error::Unavailable { at: self.socket.display().to_string(), reason: error.to_string() }
    }
}

impl Request<'_> {
    fn can_be_repeated(&self) -> bool {
        matches!(self, Self::Hello(_) | Self::Open(_) | Self::List | Self::Sign(_) | Self::Status)
    }

    fn key(&self) -> String {
        match self {
            Self::Create(spec) => spec.uri.to_string(),
            Self::Open(uri) | Self::Delete(uri) | Self::Import { uri, .. } => uri.to_string(),
            Self::Sign(request) => request.key.to_owned(),
            Self::Hello(_) | Self::List | Self::Status => "soft:".to_owned(),
        }
    }
}

struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    buffer: Vec<u8>,
    last_id: u32,
}

enum Failure {
    Io(io::Error),
    Protocol(Error),
    Cancelled,
    Deadline,
}

impl Connection {
    fn call(&mut self, request: &Request<'_>, ctx: &SignContext) -> std::result::Result<Response, Failure> {
        self.last_id = self.last_id.wrapping_add(1);
        encode(self.last_id, request, &mut self.buffer).map_err(Failure::Protocol)?;
        let written = self.stream.write_all(&self.buffer);
        if matches!(request, Request::Import { .. }) {
            self.buffer.zeroize();
        }
        written.map_err(Failure::Io)?;
        let mut until = ctx.deadline;
        loop {
            match self.reader.next(&mut self.stream) {
                Ok(Some((id, body))) => {
                    let response = decode(body).map_err(Failure::Protocol)?;
                    if id == self.last_id {
                        return Ok(response);
                    }
                    let reason = "the agent answered a request that was not sent".into();
                    return Err(Failure::Protocol(Error::Protocol { reason }));
                }
                Ok(None) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if ctx.cancel.is_cancelled() {
                        return Err(Failure::Cancelled);
                    }
                    let until = until.get_or_insert_with(|| Instant::now() + DEFAULT_TIMEOUT);
                    if Instant::now() >= *until {
                        return Err(Failure::Deadline);
                    }
                }
                Err(e) => return Err(Failure::Io(e)),
            }
        }
    }
}

fn unexpected(response: &Response) -> Error {
    let kind = match response {
        Response::Hello(_) => "hello",
        Response::Key(_) => "a key",
        Response::Keys(_) => "keys",
        Response::Done => "done",
        Response::Signature(_) => "a signature",
        Response::Status(_) => "a status",
        Response::Refused(_) => "a refusal",
    };
    Error::Protocol { reason: format!("the agent answered with {kind} to something else") }
}

/// Where a person in front of this process can be asked.
fn requester() -> Requester {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let tty = [0, 1, 2].into_iter().find_map(terminal_of);
    Requester {
        pid: None,
        tty,
        term: variable("TERM"),
        display: variable("DISPLAY"),
        wayland_display: variable("WAYLAND_DISPLAY"),
        xauthority: variable("XAUTHORITY"),
    }
}

fn terminal_of(descriptor: u8) -> Option<String> {
    let standard: &dyn std::os::fd::AsFd = match descriptor {
        0 => &io::stdin(),
        1 => &io::stdout(),
        _ => &io::stderr(),
    };
    rustix::termios::ttyname(standard.as_fd(), Vec::new()).ok()?.into_string().ok()
}
