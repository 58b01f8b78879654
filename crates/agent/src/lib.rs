//! The process that owns a keystore and signs for others over a Unix socket.
//!
//! [`run`] serves a keystore by the protocol of [`enclasp_keystore::agent`]: it takes its folder for
//! itself, makes itself hard to look into, opens the keys, closes its sandbox, and only then lets
//! others connect. Each connection has a thread, and another one for its lane; what takes long (hardware,
//! a person) is done in a queue for each key, so that nothing waits behind it. `docs/agent.md` says what this
//! protects from and what not.
//!
//! Invariant: after [`run`] calls `ready`, this process cannot start programs, and can open neither
//! files nor connections but those that its keystore needs ([`Reach`]), where the kernel can enforce
//! that. What it could not be closed off by is in
//! [`Status::protections`](enclasp_keystore::agent::Status). The code of a PKCS#11 module or a TPM
//! driver is loaded inside the sandbox, and never beside software keys. What it takes of memory is
//! bounded ([`Reach::memory`]).
#![deny(unsafe_code)]

mod admission;
mod backend;
mod confinement;
mod connection;
mod error;
mod lane;
mod leaks;
mod listen;
mod needs;
mod pins;
mod prompt;
mod queue;
mod sandbox;
mod served;
mod server;
mod system;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use enclasp_keystore::agent::Status;
use enclasp_keystore::durable;
use enclasp_keystore::soft::Protection;

pub use backend::Backend;
pub use confinement::Confinement;
pub use error::Error;
pub use needs::Reach;
pub use prompt::{PROMPTER_COMMAND, prompter_main};
pub use system::close_inherited;

/// What to serve, where, and to whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub socket: Socket,
    /// The folder of the keys, or of what is to be known of them. One agent at a time serves it.
    pub state: PathBuf,
    /// Whose keys they are.
    pub backend: Backend,
    /// What the sandbox admits for a keystore whose code is not ours, beside what it is known to
    /// need.
    pub reach: Reach,
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
    /// The software keys of `state`, encrypted with a key file, for this user alone.
    pub fn new(socket: Socket, state: impl Into<PathBuf>) -> Self {
        Self {
            socket,
            state: state.into(),
            backend: Backend::Soft { protection: Protection::KeyFile },
            reach: Reach::default(),
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
/// [`Error::AlreadyServed`], [`Error::Listen`], [`Error::Sandbox`]; [`Error::NoKeystore`] if this
/// build lacks it, [`Error::Keystore`] if the keys cannot be opened.
pub fn run(config: Config, ready: impl FnOnce(&Status)) -> Result<(), Error> {
    durable::private_folder(&config.state)?;
    let _lock = listen::Lock::take(&config.state, &config.socket)?;
    // Before anything secret is in memory, and while this process may still start others.
    let prompter = prompt::Prompter::start(config.pinentry.as_deref())?;
    let signals = system::termination_signals().map_err(Error::system("receive signals"))?;
    let mut protections = sandbox::harden();
    let pins = pins::Pins::new(prompter.clone());
    let (width, needs) = (config.backend.width(), config.backend.needs(&config.reach));
    let limits = needs.memory.map(leaks::Limits::set).and_then(|limited| {
        let outcome = limited.as_ref().map(drop).map_err(ToString::to_string);
        protections.push(("leaks-limited".into(), outcome));
        limited.ok()
    });
    let open = |backend: Backend| backend.open(&config.state, &pins);
    let endpoint = listen::Endpoint::open(&config.socket, config.shared)?;
    let uid = rustix::process::geteuid().as_raw();
    let close = |protections: &mut Vec<_>| {
        protections.extend(sandbox::close(&config.state, endpoint.folder(), &needs));
        sandbox::report(protections, config.require_sandbox)
    };
    let opened = if needs.foreign {
        close(&mut protections)?;
        open(config.backend)?
    } else {
        let opened = open(config.backend)?;
        close(&mut protections)?;
        opened
    };
    prompter.receive()?;
    let server = server::Server::new(served::Served::new(opened), pins, width, uid, protections, limits)?;
    endpoint.listen()?;
    ready(&server.status());
    server.serve(endpoint, &signals, config.exit_idle)
}
