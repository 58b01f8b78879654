//! Many tunnels from one file. Its keys are the names of the flags, and its values are read as those of
//! the flags are, so that there is one definition of what a tunnel can be.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Command, FromArgMatches};
use enclasp_tunnel::Endpoint;
use toml::{Table, Value};

use super::flags::{ClientFlags, ServerFlags};
use super::plan::Plan;
use super::process::{LogFlags, Process};
use crate::failure::{Failure, Outcome, usage};
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp tunnel --config tunnels.toml
  enclasp config check tunnels.toml

The file has a table for each tunnel, whose keys are the flags of `enclasp server` or `client`:

  status = \"http://127.0.0.1:6060\"

  [[server]]
  listen = \":8443\"
  target = \"127.0.0.1:8080\"
  identity = \"srv\"
  allow-cn = [\"laptop-17\", \"laptop-18\"]

  [[client]]
  listen = \"127.0.0.1:5432\"
  target = \"db.internal:5432\"
  identity = \"laptop\"

SIGHUP has it read again, as a whole: if anything is wrong, all stays as it was; tunnels that changed
take over the sockets of those before them.")]
pub(crate) struct Many {
    /// The file, TOML.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Be the worker of the process at the other end of standard input, of so many before. Not for the
    /// command line.
    #[arg(long, hide = true)]
    pub(super) worker: Option<u32>,
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// A file of tunnels, as it was read.
pub(crate) struct Config {
    path: PathBuf,
    text: String,
}

impl Config {
    /// Reads a file: what it asks for is checked as far as that goes without opening anything.
    ///
    /// # Errors
    /// The first thing that is wrong, with the table that it is in.
    pub(super) fn read(path: PathBuf) -> Outcome<(Self, Vec<Plan>, Process)> {
        let text = String::from_utf8(input::file(&path)?)
            .map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?;
        let (plans, process) = parse(&text).map_err(|failure| failure.within(path.display()))?;
        Ok((Self { path, text }, plans, process))
    }

    /// The tunnels that the file asks for now, if it has changed. What is said of the process as a
    /// whole is looked at when it starts.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn changed(&self) -> Outcome<Option<(Self, Vec<Plan>)>> {
        let (new, plans, _) = Self::read(self.path.clone())?;
        Ok((new.text != self.text).then_some((new, plans)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Checks a file and says what it asks for.
pub(crate) fn check(path: PathBuf) -> Outcome {
    let (_, plans, _) = Config::read(path)?;
    for plan in &plans {
        output::line(format_args!("{} -> {}", plan.listen, plan.target))?;
    }
    Ok(())
}

fn parse(text: &str) -> Outcome<(Vec<Plan>, Process)> {
    let mut top: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        Failure::usage(format!("line {line}: {}", error.message()))
            .hint("`enclasp help tunnel` shows what the file looks like")
    })?;
    let mut plans = Vec::new();
    let tables = [("server", true), ("client", false)];
    for (name, is_server) in tables {
        for (index, table) in take_tables(&mut top, name)?.into_iter().enumerate() {
            let plan = match is_server {
                true => read_as::<ServerFlags>(&table).and_then(ServerFlags::plan),
                false => read_as::<ClientFlags>(&table).and_then(ClientFlags::plan),
            };
            plans.push(plan.map_err(|failure| failure.within(format_args!("[[{name}]] {}", index + 1)))?);
        }
    }
    let process = read_as::<Process>(&top)?;
    if plans.is_empty() {
        return Err(
            Failure::usage("there is no tunnel in it").hint("begin one with [[server]] or [[client]]")
        );
    }
    let mut taken = HashSet::new();
    let any_port = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { port: 0, .. });
    if let Some(twice) = plans.iter().find(|plan| !any_port(&plan.listen) && !taken.insert(&plan.listen)) {
        return Err(Failure::usage(format!("two tunnels listen on {}", twice.listen))
            .hint("each needs an address of its own"));
    }
    process.check(plans.iter().any(Plan::presents))?;
    Ok((plans, process))
}

fn take_tables(top: &mut Table, name: &str) -> Outcome<Vec<Table>> {
    let wrong = || {
        Failure::usage(format!("`{name}` is not a list of tables"))
            .hint(format!("begin each with [[{name}]]"))
    };
    match top.remove(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values
            .into_iter()
            .map(|value| match value {
                Value::Table(table) => Ok(table),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// Reads a table as flags.
fn read_as<F: Args + FromArgMatches>(table: &Table) -> Outcome<F> {
    let command = F::augment_args(Command::new("tunnel").no_binary_name(true));
    let mut words = Vec::new();
    for (key, value) in table {
        let flag = command.get_arguments().find(|argument| argument.get_long() == Some(key));
        let flag = flag.ok_or_else(|| unknown(key, &command))?;
        let is_switch = matches!(flag.get_action(), ArgAction::SetTrue);
        let values = match value {
            Value::Array(values) => values.iter().collect(),
            value => vec![value],
        };
        for value in values {
            match value {
                Value::Boolean(said) if is_switch => words.extend(said.then(|| format!("--{key}"))),
                Value::String(text) if !is_switch => words.push(format!("--{key}={text}")),
                Value::Integer(number) if !is_switch => words.push(format!("--{key}={number}")),
                _ if is_switch => {
                    return Err(Failure::usage(format!("`{key}` is not true or false"))
                        .hint("write true without quotes"));
                }
                other => {
                    let kind = other.type_str();
                    return Err(Failure::usage(format!("`{key}` cannot be a {kind}"))
                        .hint("write it in quotes, as on the command line"));
                }
            }
        }
    }
    let matches = command.try_get_matches_from(words).map_err(|error| usage(&error))?;
    F::from_arg_matches(&matches).map_err(|error| usage(&error))
}

fn unknown(key: &str, command: &Command) -> Failure {
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let near = known.iter().find(|name| name.replace('-', "_") == key.replace('-', "_"));
    let failure = Failure::usage(format!("there is no setting `{key}` here"));
    match near {
        Some(name) => failure.hint(format!("did you mean `{name}`?")),
        None => failure.hint(format!("there are {}", known.join(", "))),
    }
}
