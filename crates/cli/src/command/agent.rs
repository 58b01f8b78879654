//! `enclasp agent`: the process that owns the software keys.

use std::path::PathBuf;
use std::time::Duration;

use enclasp_agent::{Config, Socket};
use enclasp_enroll::duration;
use enclasp_keystore::soft::Protection;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp agent                            in the foreground; other commands start one when needed
  enclasp agent --passphrase-file FILE     keys encrypted with a passphrase instead of a key file
  enclasp agent --status                   what protects the agent that runs

A program of the same user can ask the agent for signatures, and can read a key file that the agent
can read. A system agent under a user of its own is closed to that: see docs/agent.md.")]
pub(crate) struct Agent {
    /// Where to listen: a path, or `systemd` for the socket that systemd passes.
    #[arg(long, value_name = "PATH", env = "ENCLASP_AGENT_SOCKET")]
    socket: Option<PathBuf>,
    /// Encrypt the keys with a passphrase, asked on the terminal [env: ENCLASP_PASSPHRASE].
    #[arg(long)]
    passphrase: bool,
    /// The same, read from a file.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Let every user connect, for keys with --allow-uid or --allow-gid.
    #[arg(long)]
    shared: bool,
    /// End when nobody was connected for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    exit_idle: Option<Duration>,
    /// The pinentry program that asks people [default: /usr/bin/pinentry].
    #[arg(long, value_name = "PROGRAM", env = "ENCLASP_PINENTRY")]
    pinentry: Option<PathBuf>,
    /// Refuse to run where the kernel cannot sandbox the agent.
    #[arg(long)]
    require_sandbox: bool,
    /// Show how the agent that runs is, and what protects it.
    #[arg(long, conflicts_with_all = ["passphrase", "passphrase_file", "shared", "exit_idle"])]
    status: bool,
}

pub(crate) fn run(global: &Global, agent: Agent) -> Outcome {
    let state = global.state()?;
    if agent.status {
        let state = match agent.socket {
            Some(socket) => state.with_socket(socket),
            None => state,
        };
        return status(global, &enclasp_keystore::agent::AgentKeystore::new(state.socket()));
    }
    let socket = match agent.socket {
        Some(socket) if socket.as_os_str() == "systemd" => Socket::Systemd,
        Some(socket) => Socket::Path(socket),
        None => Socket::Path(state.socket().to_owned()),
    };
    let protection = if agent.passphrase || agent.passphrase_file.is_some() {
        let file = agent.passphrase_file.as_deref();
        Protection::Passphrase(input::secret("passphrase", file, "ENCLASP_PASSPHRASE", "--passphrase-file")?)
    } else {
        Protection::KeyFile
    };
    let config = Config {
        protection,
        shared: agent.shared,
        exit_idle: agent.exit_idle,
        pinentry: agent.pinentry,
        require_sandbox: agent.require_sandbox,
        ..Config::new(socket, state.keys())
    };
    let listens = match &config.socket {
        Socket::Path(path) => path.display().to_string(),
        Socket::Systemd => "the socket of systemd".to_owned(),
    };
    enclasp_agent::run(config, |_| output::note(format_args!("the agent listens on {listens}")))?;
    Ok(())
}

/// Asks people, for the agent.
pub(crate) fn prompter() -> Outcome {
    enclasp_agent::prompter_main().map_err(Failure::from)
}

fn status(global: &Global, agent: &enclasp_keystore::agent::AgentKeystore) -> Outcome {
    let status = agent.status()?;
    if global.json {
        let protections: serde_json::Map<String, serde_json::Value> = status
            .protections
            .iter()
            .map(|(measure, outcome)| {
                let value = outcome.as_ref().err().map_or("in force".to_owned(), |e| format!("missing: {e}"));
                (measure.clone(), value.into())
            })
            .collect();
        return output::json(&serde_json::json!({
            "pid": status.pid,
            "version": status.version,
            "signatures": status.signatures,
            "protections": protections,
        }));
    }
    let mut rows = vec![
        vec!["pid".to_owned(), status.pid.to_string()],
        vec!["version".to_owned(), status.version],
        vec!["signatures".to_owned(), status.signatures.to_string()],
    ];
    rows.extend(status.protections.into_iter().map(|(measure, outcome)| {
        vec![measure, outcome.err().map_or("in force".to_owned(), |e| format!("missing: {e}"))]
    }));
    output::table(&rows)
}
