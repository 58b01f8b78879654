//! `enclasp agent`: the process that holds keys, of software or of one kind of hardware.

use std::path::PathBuf;
use std::time::Duration;

use enclasp_agent::{Backend, Config, Reach, Socket};
use enclasp_enroll::duration;
use enclasp_identity::Holder;
use enclasp_keystore::soft::Protection;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp agent                            in the foreground; other commands start one when needed
  enclasp agent --passphrase-file FILE     keys encrypted with a passphrase instead of a key file
  enclasp agent --status                   what protects the agent that runs
  enclasp agent --module /usr/lib/x.so     the keys on the tokens of a PKCS#11 module
  enclasp agent --tpm                      the keys of this machine's TPM

A program of the same user can ask the agent for signatures, and can read a key file that the agent
can read. A system agent under a user of its own is closed to that: see docs/agent.md.")]
pub(crate) struct Agent {
    /// Hold the keys on the tokens of this PKCS#11 module, a shared library.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["tpm", "passphrase", "passphrase_file"])]
    module: Option<PathBuf>,
    /// Hold the keys of a TPM 2.0 [default TCTI: device:/dev/tpmrm0].
    #[arg(long, value_name = "TCTI", num_args = 0..=1, default_missing_value = "device:/dev/tpmrm0",
        conflicts_with_all = ["passphrase", "passphrase_file"])]
    tpm: Option<String>,
    /// A folder that the module or the TPM's driver may use besides those that it is known to need.
    #[arg(long, value_name = "DIR", env = "ENCLASP_AGENT_FOLDERS", value_delimiter = ':')]
    allow_folder: Vec<PathBuf>,
    /// Let the module connect to network addresses, as a network HSM needs.
    #[arg(long, env = "ENCLASP_AGENT_NETWORK", value_parser = clap::builder::BoolishValueParser::new())]
    allow_network: bool,
    /// How many MiB of memory a module or a TPM's driver may take before its agent ends, to be
    /// started again [default: 512].
    #[arg(long, value_name = "MIB", env = "ENCLASP_AGENT_MEMORY", value_parser = clap::value_parser!(u64).range(32..=1 << 20))]
    max_memory: Option<u64>,
    /// Where to listen: a path, or `systemd` for the socket that systemd passes.
    #[arg(long, value_name = "PATH", env = "ENCLASP_AGENT_SOCKET")]
    socket: Option<PathBuf>,
    /// Encrypt the keys with a passphrase: that in the environment variable ENCLASP_PASSPHRASE, which
    /// implies this, or one that is asked for on the terminal.
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
    enclasp_agent::close_inherited();
    let state = global.state()?;
    let holder = match (&agent.module, &agent.tpm) {
        (Some(module), _) => Holder::Pkcs11(std::path::absolute(module)?),
        (None, Some(tcti)) => Holder::Tpm(tcti.clone()),
        (None, None) => Holder::Soft,
    };
    if agent.status {
        let socket = agent.socket.unwrap_or_else(|| state.socket_of(&holder));
        return status(global, &enclasp_keystore::agent::AgentKeystore::new(&socket));
    }
    let socket = match agent.socket.clone() {
        Some(socket) if socket.as_os_str() == "systemd" => Socket::Systemd,
        Some(socket) => Socket::Path(socket),
        None => Socket::Path(state.socket_of(&holder)),
    };
    let folder = state.keys_of(&holder);
    let backend = match holder {
        Holder::Soft => Backend::Soft { protection: protection(&agent)? },
        Holder::Pkcs11(module) => Backend::Pkcs11 { module },
        Holder::Tpm(tcti) => Backend::Tpm { tcti },
    };
    let config = Config {
        backend,
        reach: Reach {
            folders: agent.allow_folder,
            network: agent.allow_network,
            memory: agent.max_memory.map(|mib| mib << 20),
        },
        shared: agent.shared,
        exit_idle: agent.exit_idle,
        pinentry: agent.pinentry,
        require_sandbox: agent.require_sandbox,
        ..Config::new(socket, folder)
    };
    let listens = match &config.socket {
        Socket::Path(path) => path.display().to_string(),
        Socket::Systemd => "the socket of systemd".to_owned(),
    };
    enclasp_agent::run(config, |_| output::note(format_args!("the agent listens on {listens}")))?;
    Ok(())
}

fn protection(agent: &Agent) -> Outcome<Protection> {
    const VARIABLE: &str = "ENCLASP_PASSPHRASE";
    let file = agent.passphrase_file.as_deref();
    if !agent.passphrase && file.is_none() && std::env::var_os(VARIABLE).is_none() {
        return Ok(Protection::KeyFile);
    }
    let passphrase = input::secret("passphrase", file, VARIABLE, "--passphrase-file")?;
    if passphrase.is_empty() {
        return Err(Failure::new("the passphrase is empty, and would protect nothing")
            .hint(format!("--passphrase-file FILE gives one; without it, --passphrase and {VARIABLE}, a key file protects the keys")));
    }
    Ok(Protection::Passphrase(passphrase))
}

/// Which agents a supervisor starts.
#[derive(clap::Args)]
pub(crate) struct Supervisor {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    soft: bool,
    #[arg(long)]
    module: Vec<PathBuf>,
    #[arg(long)]
    tpm: Vec<String>,
}

/// Starts agents, for a tunnel.
pub(crate) fn supervise(global: &Global, supervisor: Supervisor) -> Outcome {
    enclasp_agent::close_inherited();
    let state = global.state()?.with_socket(supervisor.socket);
    let soft = supervisor.soft.then_some(Holder::Soft);
    let modules = supervisor.module.into_iter().map(Holder::Pkcs11);
    let tpms = supervisor.tpm.into_iter().map(Holder::Tpm);
    Ok(enclasp_identity::supervise(&state, soft.into_iter().chain(modules).chain(tpms).collect())?)
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
            "keys": status.keys,
            "protections": protections,
        }));
    }
    let mut rows = vec![
        vec!["pid".to_owned(), status.pid.to_string()],
        vec!["version".to_owned(), status.version],
        vec!["signatures".to_owned(), status.signatures.to_string()],
    ];
    rows.extend(status.keys.iter().map(|usage| vec![usage.key.clone(), usage.to_string()]));
    rows.extend(status.protections.into_iter().map(|(measure, outcome)| {
        vec![measure, outcome.err().map_or("in force".to_owned(), |e| format!("missing: {e}"))]
    }));
    output::table(&rows)
}
