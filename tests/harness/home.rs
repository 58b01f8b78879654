//! A user of `enclasp`: a folder to work in, with a state of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::net::eventually;
use super::process::{Done, Running, run, run_with_input};

/// A folder with everything that one scenario makes. Programs run in it, so that their files are
/// named as a person would name them. Its agent ends with it.
pub(crate) struct Home {
    folder: TempDir,
    /// Environment variables of its programs.
    settings: Mutex<Vec<(&'static str, OsString)>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Not in TMPDIR: the path of a Unix socket has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("enclasp-test-").tempdir_in("/tmp").expect("a folder");
        Self { folder, settings: Mutex::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("cannot read {name}: {e}"))
    }

    /// Sets an environment variable for `enclasp` and what it starts.
    pub(crate) fn set(&self, variable: &'static str, value: impl Into<OsString>) {
        self.settings.lock().unwrap().push((variable, value.into()));
    }

    /// `command` with these variables.
    pub(crate) fn with_settings(&self, mut command: Command) -> Command {
        command.envs(self.settings.lock().unwrap().iter().cloned());
        command
    }

    /// `enclasp` with the words of `line` as its arguments.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.with_settings(enclasp_at(self.folder.path(), &self.state()));
        command.args(line.split_whitespace());
        command
    }

    /// Runs `enclasp` to its end.
    pub(crate) fn enclasp(&self, line: &str) -> Done {
        run(self.command(line))
    }

    /// The same with something on its standard input.
    pub(crate) fn enclasp_with_input(&self, line: &str, input: impl AsRef<[u8]>) -> Done {
        run_with_input(self.command(line), input.as_ref())
    }

    /// Starts `enclasp`.
    pub(crate) fn start(&self, line: &str) -> Running {
        Running::start(self.command(line))
    }

    /// Starts a command that listens on a port of its choice, and returns the port.
    pub(crate) fn start_listening(&self, line: &str) -> (Running, u16) {
        let running = self.start(line);
        let port = running.port();
        (running, port)
    }

    /// The search path of a person who has installed `enclasp`.
    pub(crate) fn path_with_enclasp(&self) -> String {
        let bin = Path::new(env!("CARGO_BIN_EXE_enclasp")).parent().expect("it is in a folder");
        format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
    }

    /// Another program, with the words of `line` as its arguments, in the folder.
    pub(crate) fn program(&self, program: &str, line: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).args(line.split_whitespace());
        command
    }

    /// A script for a person's shell.
    pub(crate) fn bash(&self, script: &str) -> Command {
        let mut command = self.program("bash", "-euo pipefail -c");
        command.arg(script);
        command.env("PATH", self.path_with_enclasp()).env("ENCLASP_STATE", self.state());
        command
    }

    /// Runs OpenSSL, which has to succeed.
    #[track_caller]
    pub(crate) fn openssl(&self, line: &str) -> Done {
        run(self.program("openssl", line)).succeeds()
    }

    /// The agents that serve keys in this home.
    pub(crate) fn agents(&self) -> Vec<Pid> {
        agents_of(self.folder.path())
    }

    /// Kills the agent as a crash would.
    pub(crate) fn kill_agent(&self) {
        kill_agent_of(&self.state());
    }

    /// Ends all agents.
    pub(crate) fn end_agents(&self) {
        for agent in self.agents() {
            // It may have gone by itself meanwhile.
            let _ = kill_process(agent, Signal::TERM);
        }
        if !std::thread::panicking() {
            eventually("the agents have ended", || self.agents().is_empty());
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_agents();
    }
}

/// Kills the agent of that state as a crash would.
pub(crate) fn kill_agent_of(state: &Path) {
    let agents = agents_of(state);
    assert_eq!(agents.len(), 1, "one agent serves {}", state.display());
    kill_process(agents[0], Signal::KILL).expect("it is ours");
    eventually("the agent is gone", || is_gone(agents[0]));
}

/// `enclasp` as a user whose home is `folder` and whose keys and identities are in `state`.
pub(crate) fn enclasp_at(folder: &Path, state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enclasp"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", folder).env("ENCLASP_STATE", state).current_dir(folder);
    command
}

/// Whether a process has ended and let go of its files, though nobody may have waited for it yet.
fn is_gone(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Agents that were started on demand, which have their folder among their arguments. Those that
/// are dead and not yet waited for have no arguments any more.
fn agents_of(folder: &Path) -> Vec<Pid> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let mentions = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_agent = arguments.split(|byte| *byte == 0).nth(1) == Some(b"agent");
        is_agent && arguments.windows(folder.len()).any(|window| window == folder)
    };
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(mentions)
        .filter_map(Pid::from_raw)
        .collect()
}
