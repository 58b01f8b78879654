//! `enclasp completions`: completion scripts.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::failure::Outcome;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "Example:
  enclasp completions bash > /etc/bash_completion.d/enclasp")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(completions: Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Args::command(), "enclasp", &mut script);
    output::raw(&script)
}
