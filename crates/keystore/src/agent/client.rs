//! The `agent` keystore: keys that another process holds.

use std::borrow::Cow;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::connection::{Connection, Failure, Patience, hung_up, open};
use super::watch::Watch;
use super::{Request, Response, Secret, SignRequest, Status, VERSION, pin};
use crate::{
    Cancel, Describe, Device, Error, Import, Input, Key, KeyInfo, KeySpec, KeyUri, Keystore, KeystoreKind,
    Requester, Result, Scheme, SignContext, Signature, StoreCertificate, Verification, hashing,
};

/// The keys of an agent, over its Unix socket. Cloning shares the connections.
#[derive(Clone)]
pub struct AgentKeystore(Arc<Shared>);

struct Shared {
    socket: PathBuf,
    start: Box<Start>,
    /// Held while an agent is being started: when that failed last, and why.
    starting: Mutex<Option<(Instant, Error)>>,
    requester: Requester,
    /// Connections that are open and not in use. A call takes one for its own, so that nobody
    /// waits behind another's prompt and no thread sits between the caller and the socket.
    idle: Mutex<Vec<Connection>>,
    watch: Watch,
}

type Start = dyn Fn(Instant, &Cancel) -> Result<()> + Send + Sync;

/// More idle connections than this are closed.
const MAX_IDLE: usize = 32;

/// After an agent could not be started, for how long nobody tries again. What makes us need one may
/// be strangers who connect.
const START_PAUSE: Duration = Duration::from_secs(5);

/// How often to look whether another thread is done with starting an agent.
const START_POLL: Duration = Duration::from_millis(5);

/// How long a call without a deadline of its own may take.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for making, opening and deleting keys in hardware: a PIN may be asked for, and some
/// take half a minute to make an RSA key.
const HARDWARE_TIMEOUT: Duration = Duration::from_secs(150);

impl AgentKeystore {
    /// The agent that listens on `socket`. Nothing is connected until it is needed.
    pub fn new(socket: &Path) -> Self {
        let at = socket.display().to_string();
        Self::starting(socket, move |_, _| {
            Err(Error::Unavailable { at: at.clone(), reason: "no agent listens there".into() })
        })
    }

    /// The same, but when nobody listens `start` is called to start an agent. It returns when one
    /// listens, or why none does: at the latest at the time that it is given, and soon after the
    /// cancellation. It is not called by two threads at once, nor within 5 s of its last failure,
    /// which stands for as long.
    pub fn starting(
        socket: &Path,
        start: impl Fn(Instant, &Cancel) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            socket: socket.to_owned(),
            start: Box::new(start),
            starting: Mutex::default(),
            requester: requester(),
            idle: Mutex::default(),
            watch: Watch::default(),
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

impl Describe for AgentKeystore {
    fn device(&self, uri: &KeyUri) -> Result<Device> {
        let request = Request::Describe(uri.clone());
        match self.0.call(&request, &request.patience(), "describe the device of")? {
            Response::Device(device) => Ok(device),
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

/// Of a message that is longer the digest is sent where the scheme has one: a frame holds
/// [`MAX_FRAME`](super::MAX_FRAME) bytes, and a list of revoked certificates may have more.
const LONGEST_SENT: usize = 64 * 1024;

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
        let digest = match (input, scheme.hash()) {
            (Input::Message(message), Some(hash)) if message.len() > LONGEST_SENT => {
                Some(hashing::digest(hash, input))
            }
            _ => None,
        };
        let input = digest.as_deref().map_or(input, Input::Digest);
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
        let until = ctx.deadline.unwrap_or_else(|| Instant::now() + DEFAULT_TIMEOUT);
        let patience = Patience { until, cancel: &ctx.cancel };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle {
            match self.exchange(&mut connection, request, patience) {
                // The agent may have ended since the last call. What must not happen twice is not
                // sent twice.
                Err(Failure::Io(_)) if request.can_be_repeated() => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                other => return self.finish(connection, other, request, operation),
            }
        }
        let mut connection =
            self.connect(patience).map_err(|failure| self.error(failure, request, operation))?;
        let outcome = self.exchange(&mut connection, request, patience);
        self.finish(connection, outcome, request, operation)
    }

    /// Sends a request about a key in hardware after what the agent needs to ask for its PIN, or
    /// the PIN itself, once for each connection: after a crash it is another agent's.
    fn exchange(
        &self,
        connection: &mut Connection,
        request: &Request<'_>,
        patience: Patience<'_>,
    ) -> std::result::Result<Response, Failure> {
        let key = request.key().filter(|key| !key.starts_with("soft:"));
        if let Some(key) = key.filter(|key| !connection.prepared.contains(&**key)) {
            if connection.prepared.is_empty() {
                connection.call(&Request::Introduce(self.requester.clone()), patience, &self.watch)?;
            }
            if !matches!(request, Request::Unlock { .. }) {
                match pin::unlocking(&key) {
                    Ok(None) => {}
                    Ok(Some(unlock)) => match connection.call(&unlock, patience, &self.watch)? {
                        Response::Done => {}
                        refused => return Ok(refused),
                    },
                    Err(error) => return Ok(Response::Refused(error)),
                }
            }
            connection.prepared.insert(key.into_owned());
        }
        connection.call(request, patience, &self.watch)
    }

    fn finish(
        &self,
        connection: Connection,
        outcome: std::result::Result<Response, Failure>,
        request: &Request<'_>,
        operation: &str,
    ) -> Result<Response> {
        let response = outcome.map_err(|failure| self.error(failure, request, operation))?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        match response {
            Response::Refused(error) => Err(error),
            response => Ok(response),
        }
    }

    fn error(&self, failure: Failure, request: &Request<'_>, operation: &str) -> Error {
        let key = || request.key().map_or_else(|| self.socket.display().to_string(), Cow::into_owned);
        match failure {
            Failure::Io(e) => self.unavailable(&e),
            Failure::Protocol(error) => error,
            Failure::Cancelled => Error::Cancelled { key: key(), operation: operation.into() },
            Failure::Deadline => Error::Deadline { key: key(), operation: operation.into() },
        }
    }

    fn connect(&self, patience: Patience<'_>) -> std::result::Result<Connection, Failure> {
        let greeted = match self.greet(patience) {
            // It ended just then, of a crash or because it was idle. Nothing was asked of it yet.
            Err(Failure::Io(_)) => self.greet(patience),
            other => other,
        };
        let at = || self.socket.display().to_string();
        greeted.map_err(|failure| match failure {
            Failure::Deadline => Failure::Protocol(Error::Unavailable {
                at: at(),
                reason: "what listens there does not answer".into(),
            }),
            Failure::Io(e) if hung_up(&e) && open(&self.socket, patience).is_ok() => {
                Failure::Protocol(Error::Busy {
                    key: at(),
                    operation: "use the agent at".into(),
                    reason: "it hangs up at once, as it does when far too many are connected".into(),
                })
            }
            other => other,
        })
    }

    /// Opens a connection, starting an agent if none listens, and exchanges versions.
    fn greet(&self, patience: Patience<'_>) -> std::result::Result<Connection, Failure> {
        let stream = match open(&self.socket, patience) {
            Err(failure) if is_nobody(&failure) => self.start(patience)?,
            other => other?,
        };
        let mut connection = Connection::new(stream);
        match connection.call(&Request::Hello(VERSION), patience, &self.watch)? {
            Response::Hello(VERSION) => Ok(connection),
            Response::Hello(other) => Err(Failure::Protocol(Error::Protocol {
                reason: format!("the agent speaks version {other}, this program {VERSION}"),
            })),
            Response::Refused(error) => Err(Failure::Protocol(error)),
            other => Err(Failure::Protocol(unexpected(&other))),
        }
    }

    /// Has an agent started, unless another thread does or that failed just now.
    fn start(&self, patience: Patience<'_>) -> std::result::Result<UnixStream, Failure> {
        let mut last_failure = loop {
            match self.starting.try_lock() {
                Ok(last_failure) => break last_failure,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    patience.check()?;
                    sleep(START_POLL);
                }
            }
        };
        match open(&self.socket, patience) {
            Err(failure) if is_nobody(&failure) => {}
            started_meanwhile => return started_meanwhile,
        }
        if let Some((at, error)) = &*last_failure
            && at.elapsed() < START_PAUSE
        {
            return Err(Failure::Protocol(error.clone()));
        }
        if let Err(error) = (self.start)(patience.until, patience.cancel) {
            *last_failure = Some((Instant::now(), error.clone()));
            return Err(Failure::Protocol(error));
        }
        open(&self.socket, patience)
    }

    fn unavailable(&self, error: &io::Error) -> Error {
        let reason =
            if hung_up(error) { "the agent ended before it answered".into() } else { error.to_string() };
        Error::Unavailable { at: self.socket.display().to_string(), reason }
    }
}

impl Request<'_> {
    fn can_be_repeated(&self) -> bool {
        !matches!(self, Self::Create(_) | Self::Delete(_) | Self::Import { .. })
    }

    fn key(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Create(spec) => Some(spec.uri.to_string().into()),
            Self::Open(uri)
            | Self::Delete(uri)
            | Self::Import { uri, .. }
            | Self::Certificate(uri)
            | Self::Describe(uri)
            | Self::StoreCertificate { uri, .. }
            | Self::Unlock { key: uri, .. } => Some(uri.to_string().into()),
            Self::Sign(request) => Some(request.key.into()),
            Self::Hello(_) | Self::List | Self::Status | Self::Introduce(_) | Self::Lane => None,
        }
    }

    /// How long the answer may take, if it is not a signature, which has a deadline of its own.
    fn patience(&self) -> SignContext {
        let hardware = self.key().is_some_and(|key| !key.starts_with("soft:"));
        let timeout = if hardware { HARDWARE_TIMEOUT } else { DEFAULT_TIMEOUT };
        SignContext::default().with_deadline(Instant::now() + timeout)
    }
}

/// Whether no agent listens, which is what starting one helps against.
fn is_nobody(failure: &Failure) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(failure, Failure::Io(e) if matches!(e.kind(), NotFound | ConnectionRefused))
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
        Response::Device(_) => "a device",
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn within(time: Duration) -> SignContext {
        SignContext::default().with_deadline(Instant::now() + time)
    }

    fn list(agent: &AgentKeystore, ctx: &SignContext) -> Error {
        agent.0.call(&Request::List, ctx, "list").unwrap_err()
    }

    /// As an agent does that was stopped: the kernel takes connections for it until its queue is
    /// full, and then none.
    #[test]
    fn an_agent_that_hangs_is_given_up_when_the_caller_says() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let _hangs = UnixListener::bind(&socket).unwrap();
        let agent = AgentKeystore::new(&socket);
        let started = Instant::now();
        let error = list(&agent, &within(Duration::from_millis(100)));
        assert!(error.to_string().ends_with("what listens there does not answer"), "{error}");

        let ctx = within(Duration::from_secs(60));
        let cancel = ctx.cancel.clone();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                cancel.cancel();
            });
            assert!(matches!(list(&agent, &ctx), Error::Cancelled { .. }));
        });

        let full: UnixListener = {
            use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
            let full = folder.path().join("full.sock");
            let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            bind(&listener, &SocketAddrUnix::new(&full).unwrap()).unwrap();
            listen(&listener, 0).unwrap();
            listener.into()
        };
        let path = full.local_addr().unwrap().as_pathname().unwrap().to_owned();
        let _first = UnixStream::connect(&path).unwrap();
        let error = list(&AgentKeystore::new(&path), &within(Duration::from_millis(100)));
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn an_agent_that_does_not_start_is_not_started_for_each_call() {
        let folder = tempfile::tempdir().unwrap();
        let starts = Arc::new(AtomicUsize::new(0));
        let count = starts.clone();
        let agent = AgentKeystore::starting(&folder.path().join("agent.sock"), move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(50));
            Err(Error::Unavailable { at: "nowhere".into(), reason: "no passphrase".into() })
        });
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    assert!(list(&agent, &SignContext::default()).to_string().ends_with("no passphrase"))
                });
            }
        });
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_agent_that_hangs_up_at_once_is_busy() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        let error = list(&AgentKeystore::new(&socket), &SignContext::default());
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    }
}
