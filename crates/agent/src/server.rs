//! Accepting connections, and ending.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, process};

use enclasp_keystore::agent::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::admission::Caller;
use crate::lane::Lanes;
use crate::leaks::Limits;
use crate::listen::Endpoint;
use crate::pins::Pins;
use crate::queue::Queues;
use crate::sandbox::Measure;
use crate::served::Served;
use crate::usage::Usages;
use crate::{Error, connection, system};

/// How many connections are served at once, in all and of one user. The clients' pools hold idle
/// ones.
const MAX_CONNECTIONS: usize = 256;
const MAX_CONNECTIONS_OF_A_USER: usize = 192;

/// How many more are told that there are too many; beyond that they are closed unread.
const MAX_REFUSALS: usize = 16;

/// How long the end waits for requests that are being answered.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Signing and reading a key's file take little stack. Foreign code may take more.
pub(crate) const STACK: usize = 1024 * 1024;

/// What the connections share.
pub(crate) struct Server {
    pub(crate) served: Served,
    pub(crate) pins: Pins,
    /// Where what takes long is done.
    pub(crate) queues: Queues,
    pub(crate) lanes: Lanes,
    pub(crate) signatures: AtomicU64,
    pub(crate) usages: Usages,
    /// The user that this process runs as, asked for before the sandbox forbids it.
    uid: u32,
    /// How many signatures wait for a person.
    pub(crate) prompts: Arc<AtomicUsize>,
    protections: Vec<Measure>,
    connections: Mutex<Connections>,
    closed: Condvar,
}

struct Connections {
    open: HashMap<u64, Open>,
    opened: u64,
    last_closed: Instant,
}

struct Open {
    uid: u32,
    stream: Arc<UnixStream>,
}

impl Server {
    /// `width` is how many signatures with one key are worth beginning at once. Beyond its `limits`
    /// this process ends.
    pub(crate) fn new(
        served: Served,
        pins: Pins,
        width: usize,
        uid: u32,
        protections: Vec<Measure>,
        limits: Option<Limits>,
    ) -> Result<Arc<Self>, Error> {
        let queues = Queues::new(width);
        if !served.is_fast() {
            queues.watch(limits).map_err(Error::system("start a thread"))?;
        }
        Ok(Arc::new(Self {
            served,
            pins,
            queues,
            lanes: Lanes::new().map_err(Error::system("make a pipe"))?,
            signatures: AtomicU64::new(0),
            usages: Usages::default(),
            uid,
            protections,
            prompts: Arc::default(),
            connections: Mutex::new(Connections {
                open: HashMap::new(),
                opened: 0,
                last_closed: Instant::now(),
            }),
            closed: Condvar::new(),
        }))
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            signatures: self.signatures.load(Ordering::Relaxed),
            keys: self.usages.all(),
            protections: self.protections.clone(),
        }
    }

    /// Serves until a signal, or until nobody was connected for `exit_idle`.
    pub(crate) fn serve(
        self: &Arc<Self>,
        mut endpoint: Endpoint,
        signals: &OwnedFd,
        exit_idle: Option<Duration>,
    ) -> Result<(), Error> {
        loop {
            let rest = exit_idle.map(|limit| self.until_idle(limit));
            let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
            let mut ready = [
                PollFd::new(&endpoint.listener, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut ready, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(Error::system("wait for connections"))?,
            };
            let [connecting, signalled] = ready.map(|descriptor| !descriptor.revents().is_empty());
            if signalled {
                tracing::info!("ending: a signal asks for it");
                break;
            }
            if connecting {
                self.accept(&endpoint);
            } else if exit_idle.is_some_and(|limit| self.until_idle(limit).is_zero()) {
                // Who connected before the socket was withdrawn is still served.
                if !endpoint.is_bound() {
                    tracing::info!("ending: nobody is connected");
                    break;
                }
                endpoint.withdraw();
            }
        }
        endpoint.withdraw();
        self.end();
        Ok(())
    }

    /// How long there must still be no connection for this process to be idle for `limit`.
    fn until_idle(&self, limit: Duration) -> Duration {
        let connections = self.connections();
        match connections.open.len() {
            0 => limit.saturating_sub(connections.last_closed.elapsed()),
            _ => limit.max(Duration::from_millis(10)),
        }
    }

    fn accept(self: &Arc<Self>, endpoint: &Endpoint) {
        loop {
            match endpoint.listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.begin(stream) {
                        tracing::warn!(%error, "a connection cannot be served");
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Mostly: no descriptors left. Others will end and free some.
                    tracing::warn!(%error, "cannot accept a connection");
                    return thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    fn begin(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let caller = Caller::new(system::peer(&stream)?, self.uid);
        connection::set_timeouts(&stream)?;
        let stream = Arc::new(stream);
        let (slot, refusal) = {
            let mut connections = self.connections();
            let (uid, total) = (caller.peer.uid, connections.open.len());
            if total >= MAX_CONNECTIONS + MAX_REFUSALS {
                return Err(io::Error::other("far too many connections are open"));
            }
            let of_user = connections.open.values().filter(|open| open.uid == uid).count();
            let refusal = if total >= MAX_CONNECTIONS {
                Some(format!("{MAX_CONNECTIONS} connections are open"))
            } else if of_user >= MAX_CONNECTIONS_OF_A_USER {
                Some(format!("user {uid} has {MAX_CONNECTIONS_OF_A_USER} connections open"))
            } else {
                None
            };
            connections.opened += 1;
            let number = connections.opened;
            connections.open.insert(number, Open { uid, stream: stream.clone() });
            (Slot { server: self.clone(), number }, refusal)
        };
        thread::Builder::new().name("connection".into()).stack_size(STACK).spawn(move || match refusal {
            None => connection::serve(Arc::new(slot), stream, caller),
            Some(reason) => connection::refuse(stream, reason),
        })?;
        Ok(())
    }

    /// Lets requests that are being answered end; who waits for a person is cancelled.
    fn end(&self) {
        let mut connections = self.connections();
        for open in connections.open.values() {
            // It may be gone already, which is just as well.
            let _ = open.stream.shutdown(Shutdown::Read);
        }
        let until = Instant::now() + LAST_ANSWERS;
        while !connections.open.is_empty() {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                tracing::warn!(connections = connections.open.len(), "ending in the middle of requests");
                return;
            }
            let waited = self.closed.wait_timeout(connections, rest);
            connections = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the table, given back however its threads end.
pub(crate) struct Slot {
    pub(crate) server: Arc<Server>,
    /// Tells the connection from the others.
    pub(crate) number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut connections = self.server.connections();
        connections.open.remove(&self.number);
        connections.last_closed = Instant::now();
        self.server.closed.notify_all();
    }
}
