//! `enclasp config`: files of settings.

use std::path::PathBuf;

use crate::command::tunnel;
use crate::failure::Outcome;

#[derive(clap::Subcommand)]
#[command(after_help = "Examples:
  enclasp config check tunnels.toml")]
pub(crate) enum Config {
    /// Check a file of tunnels, without opening what it names.
    Check {
        /// The file, TOML.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn run(config: Config) -> Outcome {
    match config {
        Config::Check { file } => tunnel::check(file),
    }
}
