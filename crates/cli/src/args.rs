//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use enclasp_identity::State;

use crate::command;
use crate::command::tunnel::LogFlags;
use crate::failure::Outcome;
use crate::output::LogLevel;

/// Mutual TLS with private keys that are born in a keystore and never leave it.
#[derive(Parser)]
#[command(name = "enclasp", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  enclasp demo                                    the whole story on this machine, in seconds
  enclasp key create soft:name=web                a key that never leaves its keystore
  enclasp enroll --token-file token --identity web   key, CSR, certificate and identity in one step
  enclasp connect db.internal:5432 --identity web    standard input and output over mutual TLS

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.";

/// Flags of every command.
#[derive(ClapArgs, Clone)]
pub(crate) struct Global {
    /// Folder for keys, identities and the agent's socket [default: under the XDG folders].
    #[arg(long, global = true, env = "ENCLASP_STATE", value_name = "DIR", help_heading = "Global options")]
    pub(crate) state: Option<PathBuf>,
    /// Print facts as JSON.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Say more on standard error; twice for debugging.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

impl Global {
    pub(crate) fn state(&self) -> Outcome<State> {
        Ok(match &self.state {
            Some(root) => State::at(root)?,
            None => State::from_environment()?,
        })
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the whole story on this machine: key, CSR, certificate, mutual TLS, refusals.
    Demo(command::demo::Demo),
    /// Make, show, prove and delete keys.
    Key(command::key::Key),
    /// Make certification requests (PKCS#10).
    Csr(command::csr::Csr),
    /// Run a certification authority.
    Ca(command::ca::Ca),
    /// Get a certificate from an authority with a token: key, CSR, certificate, identity.
    Enroll(command::enroll::Enroll),
    /// Renew an identity's certificate, with its key or with a new one.
    Renew(command::renew::Renew),
    /// Import, list, show and delete identities.
    Identity(command::identity::Identity),
    /// Connect standard input and output to a server over mutual TLS.
    Connect(command::connect::Connect),
    /// Accept mutual TLS and pass it on in the clear to a local service.
    Server(command::tunnel::Server),
    /// Accept connections in the clear and pass them on over mutual TLS.
    Client(command::tunnel::Client),
    /// Say what is wrong with a handshake, a file or a key, why, and what to do.
    Doctor(command::doctor::Doctor),
    /// Run many tunnels, servers and clients, from one file.
    Tunnel(command::tunnel::Many),
    /// Check files of settings.
    #[command(subcommand)]
    Config(command::config::Config),
    /// Run an agent, the process that holds keys of software or of one kind of hardware.
    Agent(command::agent::Agent),
    /// Print a completion script for a shell.
    Completions(command::completions::Completions),
    /// Asks people, for the agent. Not for the command line.
    #[command(hide = true)]
    AgentPrompter,
    /// Starts agents, for a tunnel. Not for the command line.
    #[command(hide = true)]
    AgentSupervisor(command::agent::Supervisor),
}

impl Command {
    pub(crate) fn log_level(&self) -> LogLevel {
        match self {
            Self::Demo(_) => LogLevel::Nothing,
            Self::Ca(ca) if ca.serves() => LogLevel::Events,
            Self::Renew(renew) if renew.keeps_to_a_plan() => LogLevel::Events,
            Self::Agent(_) | Self::Client(_) | Self::Server(_) | Self::Tunnel(_) => LogLevel::Events,
            _ => LogLevel::Warnings,
        }
    }

    /// What was said about the log; only tunnels take such flags.
    pub(crate) fn log_flags(&self) -> LogFlags {
        match self {
            Self::Server(server) => server.log.clone(),
            Self::Client(client) => client.log.clone(),
            Self::Tunnel(many) => many.log.clone(),
            _ => LogFlags::default(),
        }
    }
}
