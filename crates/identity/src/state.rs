//! Where a user's state lives, and how the keys in it are reached.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::AgentKeystore;
use enclasp_keystore::{Key, KeyUri, Keystore, KeystoreKind, durable};

use crate::{Error, Result, Store};

/// The folders of one user: identities, keys, the agent's socket.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
    socket: PathBuf,
}

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
            .map_or_else(|| root.join("agent.sock"), |runtime| runtime.join("enclasp/agent.sock"));
        Ok(Self { socket: path_variable("ENCLASP_AGENT_SOCKET").unwrap_or(socket), root })
    }

    /// Everything in one folder, the agent's socket too, unless `ENCLASP_AGENT_SOCKET` names
    /// another.
    ///
    /// # Errors
    /// [`Error::State`] if the current folder is gone.
    pub fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|e| Error::State { reason: e.to_string() })?;
        let socket = path_variable("ENCLASP_AGENT_SOCKET").unwrap_or_else(|| root.join("agent.sock"));
        Ok(Self { root, socket })
    }

    /// The same with another agent's socket.
    pub fn with_socket(mut self, socket: PathBuf) -> Self {
        self.socket = socket;
        self
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The folder of the agent's keys.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
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

    /// The keys of the agent, which is started when it is first needed and does not run: by the
    /// program `enclasp`, this one if it is that, else the one in `PATH`.
    pub fn agent(&self) -> AgentKeystore {
        let state = self.clone();
        AgentKeystore::starting(&self.socket, move || state.start_agent())
    }

    /// Opens the key that `uri` names.
    ///
    /// # Errors
    /// [`Error::NoKeystore`] if this build has no such keystore, and what the keystore says.
    pub fn open_key(&self, uri: &KeyUri) -> Result<Arc<dyn Key>> {
        Ok(Arc::from(self.keystore(uri)?.open(uri)?))
    }

    /// The keystore that `uri` names.
    ///
    /// # Errors
    /// [`Error::NoKeystore`].
    pub fn keystore(&self, uri: &KeyUri) -> Result<AgentKeystore> {
        match uri.kind() {
            KeystoreKind::Soft => Ok(self.agent()),
            // Nothing falls back to software silently (invariant 5).
            other => Err(Error::NoKeystore { key: uri.to_string(), keystore: other.to_string() }),
        }
    }

    /// Starts an agent of its own session that ends when nobody used it for ten minutes, and waits
    /// until it listens.
    fn start_agent(&self) -> std::result::Result<(), enclasp_keystore::Error> {
        let failed = |reason: String| enclasp_keystore::Error::Unavailable {
            at: self.socket.display().to_string(),
            reason: format!("the agent did not start: {reason}"),
        };
        durable::private_folder(&self.root)?;
        let log_path = self.root.join("agent.log");
        let mut options = OpenOptions::new();
        let log = options.create(true).append(true).mode(0o600).open(&log_path);
        let log = log.map_err(|e| failed(format!("{}: {e}", log_path.display())))?;
        let logged = log.metadata().map_or(0, |metadata| metadata.len());
        let mut command = Command::new(program());
        command.args(["agent", "--exit-idle", "10m", "--state"]).arg(&self.root);
        command.arg("--socket").arg(&self.socket);
        command.env_remove("ENCLASP_STATE").env_remove("ENCLASP_AGENT_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/").process_group(0);
        let mut child = command.spawn().map_err(|e| failed(format!("{}: {e}", program().display())))?;
        let started = Instant::now();
        loop {
            if UnixStream::connect(&self.socket).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                // Another may have started one at the same time, and won.
                if UnixStream::connect(&self.socket).is_ok() {
                    return Ok(());
                }
                return Err(failed(last_words(&log_path, logged).unwrap_or_else(|| status.to_string())));
            }
            if started.elapsed() > START_TIMEOUT {
                let _ = child.kill();
                return Err(failed(format!("it does not listen after {} s", START_TIMEOUT.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The `enclasp` program.
fn program() -> PathBuf {
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
