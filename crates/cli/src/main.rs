//! The `enclasp` command.
#![forbid(unsafe_code)]

mod args;
mod command;
mod failure;
mod input;
mod keystores;
mod output;
mod session;
mod signals;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
use failure::Outcome;
use output::LogLevel;

fn main() -> ExitCode {
    let words = match command::tunnel::prepare(std::env::args_os().collect(), &Args::command()) {
        Ok(words) => words,
        Err(failure) => return failure.report(),
    };
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => return failure::report_usage(&error),
    };
    let level = args.command.log_level();
    if level == LogLevel::Events {
        raise_file_limit();
    }
    if let Err(failure) = output::start_log(args.global.verbose, level, &args.command.log_flags()) {
        return failure.report();
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(args: Args) -> Outcome {
    let global = &args.global;
    match args.command {
        // The agent closes itself off while it has one thread, so it starts without a runtime.
        Command::Agent(agent) => command::agent::run(global, agent),
        Command::AgentPrompter => command::agent::prompter(),
        Command::AgentSupervisor(supervisor) => command::agent::supervise(global, supervisor),
        Command::Key(key) => command::key::run(global, key),
        Command::Csr(csr) => command::csr::run(global, csr),
        Command::Identity(identity) => command::identity::run(global, identity),
        Command::Doctor(doctor) => in_runtime(command::doctor::run(global, doctor)),
        Command::Completions(completions) => command::completions::run(completions),
        Command::Ca(ca) => in_runtime(command::ca::run(global, ca)),
        Command::Enroll(enroll) => in_runtime(command::enroll::run(global, enroll)),
        Command::Renew(renew) => in_runtime(command::renew::run(global, renew)),
        Command::Connect(connect) => in_runtime(command::connect::run(global, connect)),
        // A tunnel closes itself off while it has one thread, too.
        Command::Server(server) => command::tunnel::server(global, server),
        Command::Client(client) => command::tunnel::client(global, client),
        Command::Tunnel(many) => command::tunnel::many(global, many),
        Command::Config(config) => command::config::run(config),
        Command::Demo(demo) => in_runtime(command::demo::run(global, demo)),
    }
}

/// Each connection takes two descriptors, and the usual limit of 1024 is for programs that use
/// select(2). Where it cannot be raised, connections beyond it wait.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

pub(crate) fn in_runtime(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A read of standard input cannot be cancelled; nothing waits for it.
    runtime.shutdown_background();
    outcome
}
