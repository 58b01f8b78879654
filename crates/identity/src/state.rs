//! Where a user's state lives, and how the keys in it are reached.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::AgentKeystore;
use enclasp_keystore::{Cancel, Key, KeyUri, Keystore, durable};

use crate::supervisor::Supervisor;
use crate::{Error, Holder, Result, Store};

/// The folders of one user: identities, keys, the agent's socket.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
    socket: PathBuf,
    /// Who starts agents, if not this process.
    supervisor: Option<Supervisor>,
}

/// An agent that this process started.
pub(crate) struct Agent {
    pub(crate) pid: u32,
    /// Its end, when it comes.
    pub(crate) ended: Receiver<ExitStatus>,
}

/// The agent's socket below the state: in a folder of its own, since the agent may remove files
/// there.
const SOCKET: &str = "run/agent.sock";

/// How long an agent may take to listen after it was started.
const START_TIMEOUT: Duration = Duration::from_secs(20);

impl State {
    /// `ENCLASP_STATE` if it is set, else `$XDG_STATE_HOME/enclasp` or `~/.local/state/enclasp`.
    /// The agent's socket is `ENCLASP_AGENT_SOCKET` if that is set.
    ///
    /// # Errors
    /// [`Error::State`] if there is no home folder either.
    pub fn from_environment() -> Result<Self> {
        if let Some(root) = path_variable("ENCLASP_STATE") {
            return Self::at(&root);
        }
        let root = path_variable("XDG_STATE_HOME")
            .or_else(|| path_variable("HOME").map(|home| home.join(".local/state")))
            .ok_or_else(|| Error::State { reason: "HOME is not set".into() })?
            .join("enclasp");
        let socket = path_variable("XDG_RUNTIME_DIR")
            .map_or_else(|| root.join(SOCKET), |runtime| runtime.join("enclasp/agent.sock"));
        let socket = path_variable("ENCLASP_AGENT_SOCKET").unwrap_or(socket);
        Ok(Self { root, socket, supervisor: None })
    }

    /// Everything in one folder, the agent's socket too, unless `ENCLASP_AGENT_SOCKET` names
    /// another.
    ///
    /// # Errors
    /// [`Error::State`] if the current folder is gone.
    pub fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| Error::State { reason: e.to_string() })?;
        let socket = path_variable("ENCLASP_AGENT_SOCKET").unwrap_or_else(|| root.join(SOCKET));
        Ok(Self { root, socket, supervisor: None })
    }

    /// The same with another agent's socket.
    pub fn with_socket(mut self, socket: PathBuf) -> Self {
        self.socket = socket;
        self
    }

    /// The same, but agents are started, and started again, by a supervisor: a process that is
    /// started now, and starts the agents of `holders` and nothing else. For a program that closes
    /// a sandbox in which it can start none itself.
    ///
    /// # Errors
    /// [`Error::Supervisor`].
    pub fn supervised(mut self, holders: &[Holder]) -> Result<Self> {
        self.supervisor = Some(Supervisor::start(&self, holders)?);
        Ok(self)
    }

    /// Says so in the log if the supervisor ends before it is dropped. To be called once the sandbox
    /// is closed, as it starts a thread.
    pub fn wait_for_supervisor(&self) {
        self.supervisor.iter().for_each(Supervisor::wait_for);
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The socket of the agent that holds software keys.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The socket of an agent; those of hardware are beside that of software keys.
    pub fn socket_of(&self, holder: &Holder) -> PathBuf {
        let beside = |label| self.socket.with_file_name(format!("{label}.sock"));
        holder.label().map_or_else(|| self.socket.clone(), beside)
    }

    /// The folder of an agent's keys, or of what it knows of them.
    pub fn keys_of(&self, holder: &Holder) -> PathBuf {
        self.root.join(holder.label().as_deref().unwrap_or("keys"))
    }

    /// The folder of enrolments that are under way.
    pub fn enrolling(&self) -> PathBuf {
        self.root.join("enrolling")
    }

    /// The identities.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn identities(&self) -> Result<Store> {
        Store::open(&self.root.join("identities"))
    }

    /// The software keys. Their agent is started when it is first needed and does not run: by the
    /// program `enclasp`, this one if it is that, else the one in `PATH`.
    pub fn agent(&self) -> AgentKeystore {
        self.agent_of(Holder::Soft)
    }

    /// The keys of an agent, which is started likewise.
    pub fn agent_of(&self, holder: Holder) -> AgentKeystore {
        let state = self.clone();
        AgentKeystore::starting(&self.socket_of(&holder), move |until, cancel| match &state.supervisor {
            Some(supervisor) => supervisor.have_listen(&holder, until, cancel),
            None => state.start_agent(&holder, until, cancel).map(drop),
        })
    }

    /// The command that runs an agent, which ends when nobody used it for ten minutes.
    pub fn agent_command(&self, holder: &Holder) -> Command {
        let mut command = Command::new(program());
        command.args(["agent", "--exit-idle", "10m", "--state"]).arg(&self.root);
        command.arg("--socket").arg(self.socket_of(holder)).args(holder.arguments());
        command.env_remove("ENCLASP_STATE").env_remove("ENCLASP_AGENT_SOCKET");
        without_pins(&mut command);
        if std::env::var_os("TSS2_LOG").is_none() {
            // libtss2 writes to standard error what comes back as an error as well.
            command.env("TSS2_LOG", "all+none");
        }
        command
    }

    /// Opens the key that `uri` names.
    ///
    /// # Errors
    /// Those of [`Holder::of`], and what the keystore says.
    pub fn open_key(&self, uri: &KeyUri) -> Result<Arc<dyn Key>> {
        Ok(Arc::from(self.keystore(uri)?.open(uri)?))
    }

    /// The keystore that `uri` names.
    ///
    /// # Errors
    /// Those of [`Holder::of`].
    pub fn keystore(&self, uri: &KeyUri) -> Result<AgentKeystore> {
        Ok(self.agent_of(Holder::of(uri)?))
    }

    /// Starts an agent in a process group of its own, and waits until it listens.
    pub(crate) fn start_agent(
        &self,
        holder: &Holder,
        until: Instant,
        cancel: &Cancel,
    ) -> std::result::Result<Agent, enclasp_keystore::Error> {
        let socket = self.socket_of(holder);
        let failed = |reason: String| enclasp_keystore::Error::Unavailable {
            at: socket.display().to_string(),
            reason: format!("the agent did not start: {reason}"),
        };
        durable::private_folder(&self.root)?;
        let log_path = self.root.join(format!("{}.log", holder.name()));
        let mut options = OpenOptions::new();
        let log = options.create(true).append(true).mode(0o600).open(&log_path);
        let log = log.map_err(|e| failed(format!("{}: {e}", log_path.display())))?;
        let logged = log.metadata().map_or(0, |metadata| metadata.len());
        let mut command = self.agent_command(holder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/").process_group(0);
        let mut child = command.spawn().map_err(|e| failed(format!("{}: {e}", program().display())))?;
        let started = Instant::now();
        let outcome = loop {
            if UnixStream::connect(&socket).is_ok() {
                break Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                // Another may have started one at the same time, and won.
                if UnixStream::connect(&socket).is_ok() {
                    break Ok(());
                }
                break Err(failed(last_words(&log_path, logged).unwrap_or_else(|| status.to_string())));
            }
            let waited = started.elapsed();
            if waited > START_TIMEOUT {
                let _ = child.kill();
            }
            if waited > START_TIMEOUT || Instant::now() > until || cancel.is_cancelled() {
                break Err(failed(format!("it does not listen after {waited:.1?}")));
            }
            thread::sleep(Duration::from_millis(5));
        };
        let (pid, (end, ended)) = (child.id(), mpsc::channel());
        in_a_thread("agent's end", move || {
            // Mostly nobody wants to know.
            let _ = child.wait().map(|status| end.send(status));
        });
        outcome.map(|()| Agent { pid, ended })
    }
}

/// An agent is given a PIN by the client whose it is.
pub(crate) fn without_pins(command: &mut Command) {
    command.env_remove("ENCLASP_PIN").env_remove("ENCLASP_PIN_FILE");
}

/// Waits for a child, or talks to one, aside. A program that outlives a child has to wait for it, or
/// the dead child stays a zombie; without a thread to spare it does, which harms nobody.
pub(crate) fn in_a_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().name(name.into()).spawn(work);
}

/// The `enclasp` program.
pub(crate) fn program() -> PathBuf {
    let this = std::env::current_exe().ok();
    let is_enclasp = |path: &PathBuf| path.file_name().is_some_and(|name| name == "enclasp");
    path_variable("ENCLASP_PROGRAM").or(this.filter(is_enclasp)).unwrap_or_else(|| PathBuf::from("enclasp"))
}

/// The last line that was written to the log after `from`.
fn last_words(log: &Path, from: u64) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut text = String::new();
    file.take(64 * 1024).read_to_string(&mut text).ok()?;
    let mut errors = text.lines().filter(|line| line.starts_with("error: "));
    let line = errors.next_back().or(text.lines().next_back())?;
    Some(line.trim_start_matches("error: ").to_owned())
}

fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
