//! The processes at the other end, each ended by its guard.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use enclasp_agent::{Backend, Config, PROMPTER_COMMAND, Socket, prompter_main};
use enclasp_keystore::agent::AgentKeystore;
use tempfile::TempDir;

use crate::authority::{self, AUTHORITY};
use crate::bare::{self, BARE};
use crate::load::{self, ECHO};
use crate::proxies::{self, PLAIN};

const AGENT: &str = "play-agent";

/// Of hardware: what follows is the module's path, or the TCTI.
const MODULE: &str = "module";
const TPM: &str = "tpm";

/// Does what this program was run again for, if it was. Benches call it first.
pub fn played_a_role() -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [PROMPTER_COMMAND] => prompter_main().expect("the prompter failed"),
        [AGENT, socket, state, ref hardware @ ..] => {
            let mut config = Config::new(Socket::Path(socket.into()), state);
            config.backend = match *hardware {
                [MODULE, path] => Backend::Pkcs11 { module: path.into() },
                [TPM, tcti] => Backend::Tpm { tcti: tcti.into() },
                _ => config.backend,
            };
            enclasp_agent::run(config, |_| println!("ready")).expect("the agent failed");
        }
        [BARE, request, response, algorithm] => {
            bare::play(request, response, algorithm).expect("the bare process failed");
        }
        [AUTHORITY, folder, socket] => {
            authority::play_authority(folder, socket).expect("the authority failed");
        }
        [ECHO] => load::play_echo().expect("the service failed"),
        [PLAIN, ref arguments @ ..] => proxies::play_plain(arguments).expect("the plain proxy failed"),
        _ => return false,
    }
    true
}

/// Ends its process when dropped.
pub struct Guard(Child);

impl Guard {
    /// Takes charge of a process.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// Runs this program again in a role, and waits for the first line that it prints; which is empty if it
    /// ends without one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn of_role(role: &mut Command) -> io::Result<(Self, String)> {
        let mut guard = Self(role.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        if let Some(output) = guard.0.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        Ok((guard, line))
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The real agent, in a process of its own, with an empty folder of keys.
pub struct Agent {
    guard: Guard,
    folder: TempDir,
}

impl Agent {
    /// Starts one of software keys, and waits until it listens.
    ///
    /// # Errors
    /// What the system says, or that the agent ended.
    pub fn start() -> io::Result<Self> {
        Self::of(&[], &[])
    }

    /// The same of the tokens of a PKCS#11 module, with a place for its settings in its environment.
    pub(crate) fn of_module(path: &str, environment: &[(&str, &Path)]) -> io::Result<Self> {
        Self::of(&[MODULE, path], environment)
    }

    /// The same of a TPM.
    pub(crate) fn of_tpm(tcti: &str) -> io::Result<Self> {
        Self::of(&[TPM, tcti], &[])
    }

    fn of(hardware: &[&str], environment: &[(&str, &Path)]) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (guard, line) = Guard::of_role(
            Command::new(std::env::current_exe()?)
                .arg(AGENT)
                .args([folder.path().join("socket"), folder.path().join("state")])
                .args(hardware)
                .envs(environment.iter().copied()),
        )?;
        let agent = Self { guard, folder };
        if line.is_empty() { Err(io::Error::other("the agent did not start")) } else { Ok(agent) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Its keys.
    pub fn keystore(&self) -> AgentKeystore {
        AgentKeystore::new(&self.socket())
    }
}
