//! `enclasp doctor`: what is wrong, why, and what to do.

mod file;
mod key;

use clap::Subcommand;
use enclasp_doctor::Report;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong, 1 something is, 2 wrong usage. Each finding has a code, and a
page of that name in docs/doctor."
)]
pub(crate) struct Doctor {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Try a key: what it can sign with, what it demands, how long it takes.
    Key(key::Key),
    /// Say what is wrong with a certification request (PKCS#10).
    Csr(file::Csr),
}

pub(crate) fn run(global: &Global, doctor: Doctor) -> Outcome {
    match doctor.verb {
        Verb::Key(key) => key::run(global, key),
        Verb::Csr(csr) => file::csr(global, &csr),
    }
}

/// Prints a report, and fails if it says that something is wrong.
pub(crate) fn conclude(global: &Global, report: &Report) -> Outcome {
    if global.json {
        output::json(report)?;
    } else {
        output::raw(report.to_string().as_bytes())?;
    }
    match report.verdict() {
        None => Ok(()),
        Some(verdict) => Err(Failure::new(format!("{}: {}", verdict.code, verdict.code.summary))
            .hint(format!("{} says more", verdict.code.page()))),
    }
}
