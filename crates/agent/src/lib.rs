//! The process that owns a keystore and signs for others over a Unix socket.
//!
//! [`run`] serves the software keystore in a folder by the protocol of
//! [`enclasp_keystore::agent`]: it takes the folder for itself, makes itself hard to look into,
//! opens the keys, listens, closes its sandbox, and only then accepts a connection. Each
//! connection has a thread; a signature that asks a person has one of its own, so that nothing
//! waits behind it. `docs/agent.md` says what this protects from and what not.
//!
//! Invariant: after [`run`] calls `ready`, this process cannot start programs, open network
//! connections, or touch files outside the folder of its keys, where the kernel can enforce that.
//! What it could not be closed off by is in [`Status::protections`](enclasp_keystore::agent::Status).
#![deny(unsafe_code)]

mod admission;
mod connection;
mod error;
mod listen;
mod prompt;
mod sandbox;
mod server;
mod system;

use std::path::PathBuf;
use std::time::Duration;

use enclasp_keystore::agent::Status;
use enclasp_keystore::durable;
use enclasp_keystore::soft::{Protection, SoftKeystore};

pub use error::Error;
pub use prompt::{PROMPTER_COMMAND, prompter_main};

/// What to serve, where, and to whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub socket: Socket,
    /// The folder of the keys. One agent at a time serves it.
    pub state: PathBuf,
    /// What encrypts the keys in it.
    pub protection: Protection,
    /// Lets every user connect, so that keys can be used by those whom their
    /// [`Access`](enclasp_keystore::Access) lists. Otherwise only the agent's own user and root can.
    pub shared: bool,
    /// Ends the agent when no connection was open for so long.
    pub exit_idle: Option<Duration>,
    /// The pinentry program that asks a person; `/usr/bin/pinentry` otherwise.
    pub pinentry: Option<PathBuf>,
    /// Makes it an error if Landlock or seccomp cannot be put in force.
    pub require_sandbox: bool,
}

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// At a path. Folders that are missing are made; the socket is removed at the end.
    Path(PathBuf),
    /// On the socket that systemd opened and passed (`LISTEN_FDS`). Its permissions are systemd's.
    Systemd,
}

impl Config {
    /// The keys of `state`, encrypted with a key file, for this user alone.
    pub fn new(socket: Socket, state: impl Into<PathBuf>) -> Self {
        Self {
            socket,
            state: state.into(),
            protection: Protection::KeyFile,
            shared: false,
            exit_idle: None,
            pinentry: None,
            require_sandbox: false,
        }
    }
}

/// Serves until SIGTERM, SIGINT, or the end of [`Config::exit_idle`]. Calls `ready` once, when
/// connections are accepted and everything that protects the agent is in force.
///
/// Call it before any other thread exists, as the sandbox holds only for this thread and those
/// that it starts. The program must call [`prompter_main`] when its first argument is
/// [`PROMPTER_COMMAND`], since the agent runs it again so to have a process that can ask a person.
///
/// # Errors
/// [`Error::AlreadyServed`], [`Error::Listen`], [`Error::Sandbox`]; [`Error::Keystore`] if the keys
/// cannot be opened.
pub fn run(config: Config, ready: impl FnOnce(&Status)) -> Result<(), Error> {
    durable::private_folder(&config.state)?;
    let _lock = listen::Lock::take(&config.state, &config.socket)?;
    // Before anything secret is in memory, and while this process may still start others.
    let prompter = prompt::Prompter::start(config.pinentry.as_deref())?;
    let signals = system::termination_signals().map_err(Error::system("receive signals"))?;
    let mut protections = sandbox::harden();
    let keystore = SoftKeystore::open(&config.state, &config.protection, prompter.clone())?;
    drop(config.protection);
    let endpoint = listen::Endpoint::open(&config.socket, config.shared)?;
    let uid = rustix::process::geteuid().as_raw();
    protections.extend(sandbox::close(&config.state, endpoint.folder()));
    sandbox::report(&protections, config.require_sandbox)?;
    prompter.receive()?;
    let server = server::Server::new(keystore, uid, protections);
    ready(&server.status());
    server.serve(endpoint, &signals, config.exit_idle)
}
