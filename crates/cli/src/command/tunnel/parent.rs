//! The process that looks after the [`worker`](super::worker) that runs the tunnels of a file. It is not closed off,
//! and does little: it holds the listening sockets, follows the file, and when the file needs folders or ports that
//! the worker has closed itself off from, it starts another one, which takes over the sockets while the old one
//! finishes what is open. It meets no stranger and holds no key.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use enclasp_agent::Confinement;
use enclasp_identity::Holder;
use enclasp_tunnel::{Bound, Endpoint};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::agents::Agents;
use super::config::Config;
use super::plan::Plan;
use super::process::Process;
use super::worker::{Answer, Said};
use super::{manager, sandbox};
use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::signals;

/// No line of a worker is longer: it names its addresses.
const MAX_LINE: usize = 1 << 20;

/// What a worker asks for or says, by its number.
type Event = (u32, Happened);

enum Happened {
    Listen(Endpoint, oneshot::Sender<Result<OwnedFd, String>>),
    Said(Said),
    Ended,
}

struct Parent {
    agents: Agents,
    process: Process,
    config: Config,
    /// The sockets that workers listen on.
    bound: HashMap<Endpoint, Bound>,
    /// The addresses of those that the one which serves uses.
    used: Vec<String>,
    /// Those that a worker may ask for.
    allowed: Vec<Endpoint>,
    workers: Vec<Worker>,
    /// The number of the one that serves.
    serving: Option<u32>,
    /// The file that a worker which is starting shall run, in place of the one that serves.
    next: Option<Next>,
    /// Whether a reload was asked for while a worker was starting.
    asked_again: bool,
    started: u32,
    events: mpsc::UnboundedSender<Event>,
}

struct Next {
    worker: u32,
    config: Config,
}

struct Worker {
    number: u32,
    process: Child,
    keeps: Keeps,
    failed: Option<Failure>,
}

/// What a worker can do until it ends.
struct Keeps {
    confinement: Confinement,
    holders: Vec<Holder>,
}

/// Has workers run the tunnels of `config` until SIGTERM, SIGINT or the end of the one that serves.
pub(super) async fn run(global: &Global, config: Config, plans: Vec<Plan>, process: Process) -> Outcome {
    let (ask, mut asked) = watch::channel(());
    let reloads = signals::reloads(ask)?;
    let (events, mut happened) = mpsc::unbounded_channel();
    let mut parent = Parent {
        agents: Agents::new(global),
        process,
        config,
        bound: HashMap::new(),
        used: Vec::new(),
        allowed: Vec::new(),
        workers: Vec::new(),
        serving: None,
        next: None,
        asked_again: false,
        started: 0,
        events,
    };
    parent.start(&plans)?;
    tokio::pin!(reloads);
    let shutdown = signals::shutdown();
    tokio::pin!(shutdown);
    let outcome = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            () = &mut reloads => {}
            Ok(()) = asked.changed() => parent.reload(),
            Some(event) = happened.recv() => {
                if let Some(outcome) = parent.take(event).await {
                    break outcome;
                }
            }
        }
    };
    manager::stopping();
    parent.bound.clear();
    parent.workers.iter().for_each(|worker| worker.signal(Signal::TERM));
    // Until all have finished what is open.
    while !parent.workers.is_empty() {
        match happened.recv().await {
            Some(event) => drop(parent.take(event).await),
            None => break,
        }
    }
    outcome
}

impl Parent {
    /// Starts a worker for `plans`, which are those of the file.
    fn start(&mut self, plans: &[Plan]) -> Outcome<u32> {
        let keeps = self.needs(plans)?;
        self.allowed =
            plans.iter().map(|plan| &plan.listen).chain(self.process.listens_on()).cloned().collect();
        let number = self.started;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        // The same program, whatever has taken its name since.
        let mut command = Command::new("/proc/self/exe");
        command.args(std::env::args_os().skip(1)).args(["--worker", &number.to_string()]);
        // Those of the service manager are ours.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        // Not in our process group: who interrupts us lets it finish.
        let process = command.arg0("enclasp").stdin(OwnedFd::from(theirs)).process_group(0).spawn()?;
        self.started += 1;
        self.workers.push(Worker { number, process, keeps, failed: None });
        tokio::spawn(attend(number, ours, self.events.clone()));
        Ok(number)
    }

    fn needs(&self, plans: &[Plan]) -> Outcome<Keeps> {
        let confinement =
            sandbox::needs(plans, &self.process, Some(self.config.path()), &self.agents, false)?;
        let keys = plans.iter().flat_map(|plan| plan.source.keys(&self.agents));
        let holders = keys.filter_map(|key| Holder::of(&key).ok()).collect();
        Ok(Keeps { confinement, holders })
    }

    /// Has the file read again: by the worker that serves, if it can do what the file asks for now, or by
    /// another one.
    fn reload(&mut self) {
        if self.next.is_some() {
            self.asked_again = true;
            return;
        }
        let Some(serving) =
            self.serving.and_then(|number| self.workers.iter().find(|one| one.number == number))
        else {
            return;
        };
        let prepared = self.config.changed().and_then(|changed| match changed {
            Some((config, plans)) => Ok(Some((self.needs(&plans)?, config, plans))),
            None => Ok(None),
        });
        let (config, plans) = match prepared {
            Ok(None) => return serving.signal(Signal::HUP),
            Ok(Some((needs, config, plans))) if serving.keeps.admit(&needs) => {
                serving.signal(Signal::HUP);
                self.allowed.extend(plans.into_iter().map(|plan| plan.listen));
                self.config = config;
                return;
            }
            Ok(Some((_, config, plans))) => (config, plans),
            Err(failure) => return self.stays(&failure),
        };
        match self.start(&plans) {
            Ok(worker) => self.next = Some(Next { worker, config }),
            Err(failure) => self.stays(&failure),
        }
    }

    fn stays(&self, failure: &Failure) {
        let (file, cause) = (self.config.path().display(), failure.message());
        tracing::warn!(%file, %cause, "cannot reload; the tunnels stay as they are");
    }

    /// Does what a worker needs. Returns how it ended when there is none left to serve.
    async fn take(&mut self, (number, happened): Event) -> Option<Outcome> {
        match happened {
            Happened::Listen(endpoint, answer) => {
                let socket = self.listen(&endpoint).await.map_err(|failure| failure.message().to_owned());
                // Who asked may have ended.
                let _ = answer.send(socket);
            }
            Happened::Said(Said::Alive) if self.serving == Some(number) => manager::alive(),
            Happened::Said(Said::Ready(addresses)) => self.is_ready(number, addresses),
            Happened::Said(Said::Failed { message, hint, usage }) => {
                let failure = if usage { Failure::usage(message) } else { Failure::new(message) };
                let failure = hint.into_iter().fold(failure, Failure::hint);
                if let Some(worker) = self.workers.iter_mut().find(|worker| worker.number == number) {
                    worker.failed = Some(failure);
                }
            }
            Happened::Said(_) => {}
            Happened::Ended => return self.has_ended(number),
        }
        None
    }

    async fn listen(&mut self, endpoint: &Endpoint) -> Outcome<OwnedFd> {
        if !self.allowed.contains(endpoint) {
            return Err(Failure::new(format!("cannot listen on {endpoint}: the file does not say so")));
        }
        if !self.bound.contains_key(endpoint) {
            self.bound.insert(endpoint.clone(), Bound::listen(endpoint).await?);
        }
        Ok(self.bound[endpoint].as_fd().try_clone_to_owned()?)
    }

    fn is_ready(&mut self, number: u32, addresses: Vec<String>) {
        let replaced = self.serving.replace(number).filter(|before| *before != number);
        if let Some(next) = self.next.take_if(|next| next.worker == number) {
            self.config = next.config;
            let file = self.config.path().display();
            tracing::info!(%file, "the tunnels are those of the changed file, in a new process");
        }
        self.used = addresses;
        self.close_unused();
        match self.workers.iter().find(|worker| Some(worker.number) == replaced) {
            Some(before) => before.signal(Signal::USR2),
            None => manager::ready(),
        }
        if std::mem::take(&mut self.asked_again) {
            self.reload();
        }
    }

    /// Nobody would answer on a socket that no worker uses.
    fn close_unused(&mut self) {
        self.bound.retain(|endpoint, _| self.used.contains(&endpoint.to_string()));
    }

    fn has_ended(&mut self, number: u32) -> Option<Outcome> {
        let index = self.workers.iter().position(|worker| worker.number == number)?;
        let mut worker = self.workers.remove(index);
        let ended = worker.process.wait();
        let failure = worker.failed.take();
        if self.next.take_if(|next| next.worker == number).is_some() {
            self.close_unused();
            self.stays(&failure.unwrap_or_else(|| Failure::new("the process for it ended at once")));
            if std::mem::take(&mut self.asked_again) {
                self.reload();
            }
            return None;
        }
        // One that was replaced, and has finished.
        if self.serving.is_some_and(|serving| serving != number) {
            return None;
        }
        Some(match (failure, ended) {
            (Some(failure), _) => Err(failure),
            (None, Ok(status)) if status.success() => Ok(()),
            (None, Ok(status)) => {
                Err(Failure::new(format!("the process that runs the tunnels ended: {status}")))
            }
            (None, Err(error)) => Err(error.into()),
        })
    }
}

impl Keeps {
    fn admit(&self, needs: &Self) -> bool {
        self.confinement.admits(&needs.confinement)
            && needs.holders.iter().all(|holder| self.holders.contains(holder))
    }
}

impl Worker {
    fn signal(&self, signal: Signal) {
        // It may have ended, and is not waited for yet.
        let _ = kill_process(Pid::from_child(&self.process), signal);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Only where this process ends early; it was waited for otherwise.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            self.signal(Signal::TERM);
        }
    }
}

/// Passes on what a worker says, until it ends.
async fn attend(number: u32, stream: UnixStream, events: mpsc::UnboundedSender<Event>) {
    // What goes wrong is its end, too.
    let _ = converse(number, &stream, &events).await;
    let _ = events.send((number, Happened::Ended));
}

async fn converse(number: u32, stream: &UnixStream, events: &mpsc::UnboundedSender<Event>) -> io::Result<()> {
    let mut heard = Vec::new();
    loop {
        stream.readable().await?;
        match stream.try_read_buf(&mut heard) {
            Ok(0) => return Ok(()),
            Ok(_) if heard.len() > MAX_LINE => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            let happened = match serde_json::from_slice(&line)? {
                Said::Listen(address) => {
                    let (answer, answered) = oneshot::channel();
                    let endpoint = address.parse().map_err(io::Error::other)?;
                    if events.send((number, Happened::Listen(endpoint, answer))).is_err() {
                        return Ok(());
                    }
                    let socket =
                        answered.await.unwrap_or_else(|_| Err("this process is about to end".into()));
                    send(stream, socket).await?;
                    continue;
                }
                said => Happened::Said(said),
            };
            if events.send((number, happened)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Answers with a socket, or why there is none.
async fn send(stream: &UnixStream, socket: Result<OwnedFd, String>) -> io::Result<()> {
    let answer: Answer = socket.as_ref().map(drop).map_err(String::clone);
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let sockets: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&sockets));
            }
            // So short a line goes as a whole.
            sendmsg(stream, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)
                .map(drop)
                .map_err(io::Error::from)
        })
        .await
}
