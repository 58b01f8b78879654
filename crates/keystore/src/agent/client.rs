//! The `agent` keystore: keys that another process holds.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use zeroize::{Zeroize, Zeroizing};

use super::{FrameReader, Request, Response, Secret, SignRequest, Status, VERSION, decode, encode, pin};
use crate::{
    Error, Import, Input, Key, KeyInfo, KeySpec, KeyUri, Keystore, KeystoreKind, Requester, Result, Scheme,
    SignContext, Signature, StoreCertificate, Verification,
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

/// The same for making, opening and deleting keys in hardware: a PIN may be asked for, and some
/// take half a minute to make an RSA key.
const HARDWARE_TIMEOUT: Duration = Duration::from_secs(150);

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

    /// Gives the agent the PIN of a key or its token for as long as it runs, in place of one from
    /// `pin-source` or the environment.
    ///
    /// # Errors
    /// [`Error::Denied`] if it is one that the key has refused before; [`Error::Unavailable`].
    pub fn unlock(&self, uri: &KeyUri, pin: Zeroizing<String>) -> Result<()> {
        let pin = Secret::new(Zeroizing::new(pin.as_bytes().to_vec()));
        self.done(&Request::Unlock { key: uri.clone(), pin }, "unlock")
    }

    fn key(&self, request: &Request<'_>, operation: &str) -> Result<AgentKey> {
        match self.0.call(request, &request.patience(), operation)? {
            Response::Key(info) => Ok(AgentKey { uri: info.uri.to_string(), info, agent: self.0.clone() }),
            other => Err(unexpected(&other)),
        }
    }

    fn done(&self, request: &Request<'_>, operation: &str) -> Result<()> {
        match self.0.call(request, &request.patience(), operation)? {
            Response::Done => Ok(()),
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
        self.done(&Request::Delete(uri.clone()), "delete")
    }
}

impl Import for AgentKeystore {
    fn import(&self, uri: &KeyUri, pkcs8: Zeroizing<Vec<u8>>) -> Result<Box<dyn Key>> {
        let request = Request::Import { uri: uri.clone(), pkcs8: Secret::new(pkcs8) };
        Ok(Box::new(self.key(&request, "import")?))
    }
}

impl StoreCertificate for AgentKeystore {
    fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()> {
        let request = Request::StoreCertificate { uri: uri.clone(), certificate: certificate.to_vec() };
        self.done(&request, "store a certificate beside")
    }

    fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>> {
        let request = Request::Certificate(uri.clone());
        match self.0.call(&request, &request.patience(), "read the certificate of")? {
            Response::Certificate(certificate) => Ok(certificate),
            other => Err(unexpected(&other)),
        }
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
        // Where a person can be asked matters only to a key that asks, or that may ask for a PIN.
        let asks = self.info.policy.prompts() || self.info.uri.kind() != KeystoreKind::Soft;
        let requester = if asks { self.agent.requester.clone() } else { Requester::default() };
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
            match self.exchange(&mut connection, request, ctx) {
                // The agent may have ended since the last call. What must not happen twice is not
                // sent twice.
                Err(Failure::Io(_)) if request.can_be_repeated() => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                other => return self.finish(connection, other, request, operation),
            }
        }
        let mut connection = self.connect()?;
        let outcome = self.exchange(&mut connection, request, ctx);
        self.finish(connection, outcome, request, operation)
    }

    /// Sends a request about a key in hardware after what the agent needs to ask for its PIN, or
    /// the PIN itself, once for each connection: after a crash it is another agent's.
    fn exchange(
        &self,
        connection: &mut Connection,
        request: &Request<'_>,
        ctx: &SignContext,
    ) -> std::result::Result<Response, Failure> {
        let key = request.key().filter(|key| !key.starts_with("soft:"));
        if let Some(key) = key.filter(|key| !connection.prepared.contains(&**key)) {
            if connection.prepared.is_empty() {
                connection.call(&Request::Introduce(self.requester.clone()), &SignContext::default())?;
            }
            if !matches!(request, Request::Unlock { .. }) {
                match pin::unlocking(&key) {
                    Ok(None) => {}
                    Ok(Some(unlock)) => match connection.call(&unlock, &SignContext::default())? {
                        Response::Done => {}
                        refused => return Ok(refused),
                    },
                    Err(error) => return Ok(Response::Refused(error)),
                }
            }
            connection.prepared.insert(key.into_owned());
        }
        connection.call(request, ctx)
    }

    fn finish(
        &self,
        connection: Connection,
        outcome: std::result::Result<Response, Failure>,
        request: &Request<'_>,
        operation: &str,
    ) -> Result<Response> {
        let key = || request.key().map_or_else(|| self.socket.display().to_string(), Cow::into_owned);
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
        let greeted = match self.greet() {
            // It ended just then, of a crash or because it was idle. Nothing was asked of it yet.
            Err(Failure::Io(_)) => self.greet(),
            other => other,
        };
        greeted.map_err(|failure| match failure {
            Failure::Io(e) => self.unavailable(&e),
            Failure::Protocol(error) => error,
            Failure::Cancelled | Failure::Deadline => Error::Unavailable {
                at: self.socket.display().to_string(),
                reason: "what listens there does not answer".into(),
            },
        })
    }

    /// Opens a connection, starting an agent if none listens, and exchanges versions.
    fn greet(&self) -> std::result::Result<Connection, Failure> {
        let stream = match UnixStream::connect(&self.socket) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                (self.start)().map_err(Failure::Protocol)?;
                UnixStream::connect(&self.socket)
            }
            other => other,
        }
        .map_err(Failure::Io)?;
        let timeouts =
            stream.set_read_timeout(Some(TICK)).and(stream.set_write_timeout(Some(DEFAULT_TIMEOUT)));
        timeouts.map_err(Failure::Io)?;
        let mut connection = Connection {
            stream,
            reader: FrameReader::default(),
            buffer: Vec::new(),
            last_id: 0,
            prepared: HashSet::new(),
        };
        let hello = Request::Hello(VERSION);
        match connection.call(&hello, &SignContext::default())? {
            Response::Hello(VERSION) => Ok(connection),
            Response::Hello(other) => Err(Failure::Protocol(Error::Protocol {
                reason: format!("the agent speaks version {other}, this program {VERSION}"),
            })),
            Response::Refused(error) => Err(Failure::Protocol(error)),
            other => Err(Failure::Protocol(unexpected(&other))),
        }
    }

    fn unavailable(&self, error: &io::Error) -> Error {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                "the agent ended before it answered".into()
            }
            _ => error.to_string(),
        };
        Error::Unavailable { at: self.socket.display().to_string(), reason }
    }
}

impl Request<'_> {
    fn can_be_repeated(&self) -> bool {
        !matches!(self, Self::Create(_) | Self::Delete(_) | Self::Import { .. })
    }

    /// Whether its frame is to be wiped.
    fn is_secret(&self) -> bool {
        matches!(self, Self::Import { .. } | Self::Unlock { .. })
    }

    fn key(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Create(spec) => Some(spec.uri.to_string().into()),
            Self::Open(uri)
            | Self::Delete(uri)
            | Self::Import { uri, .. }
            | Self::Certificate(uri)
            | Self::StoreCertificate { uri, .. }
            | Self::Unlock { key: uri, .. } => Some(uri.to_string().into()),
            Self::Sign(request) => Some(request.key.into()),
            Self::Hello(_) | Self::List | Self::Status | Self::Introduce(_) => None,
        }
    }

    /// How long the answer may take, if it is not a signature, which has a deadline of its own.
    fn patience(&self) -> SignContext {
        let hardware = self.key().is_some_and(|key| !key.starts_with("soft:"));
        let timeout = if hardware { HARDWARE_TIMEOUT } else { DEFAULT_TIMEOUT };
        SignContext::default().with_deadline(Instant::now() + timeout)
    }
}

struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    buffer: Vec<u8>,
    last_id: u32,
    /// The keys in hardware that this connection has been used for.
    prepared: HashSet<String>,
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
        if request.is_secret() {
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
        Response::Certificate(_) => "a certificate",
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
