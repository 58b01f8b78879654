//! `enclasp doctor`: what is wrong, why, and what to do.

mod authority;
mod bisect;
mod capture;
mod connect;
mod file;
mod key;
mod listen;
mod starttls;
mod tee;

use std::path::Path;

use clap::Subcommand;
use enclasp_doctor::observe::Event;
use enclasp_doctor::{Report, html};
use serde::Serialize;

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
    /// A server to point any client at, which says what is wrong with the client.
    Listen(listen::Listen),
    /// Say what a server asks for, what became of the handshake, and why it refuses.
    Connect(connect::Connect),
    /// Make the same connection with a software key, to see whether the key in hardware is what is wrong.
    Bisect(bisect::Bisect),
    /// Look at the handshakes in a capture of network packets.
    Capture(capture::Capture),
    /// Compare what both ends of one connection saw.
    Both(capture::Both),
    /// Try a key: what it can sign with, what it demands, how long it takes. Or look at a key file.
    Key(key::Key),
    /// Say what is wrong with a certification request (PKCS#10).
    Csr(file::Csr),
    /// Say what is wrong with a certificate or a chain.
    Cert(file::Cert),
    /// Say what is in a PKCS#12 file, and what is wrong with it.
    P12(file::P12),
    /// Say what is wrong with a certificate revocation list.
    Crl(file::Crl),
}

pub(crate) async fn run(global: &Global, doctor: Doctor) -> Outcome {
    match doctor.verb {
        Verb::Listen(listen) => listen::run(global, listen),
        Verb::Connect(connect) => connect::run(global, connect).await,
        Verb::Bisect(bisect) => bisect::run(global, &bisect).await,
        Verb::Capture(capture) => capture::run(global, &capture),
        Verb::Both(both) => capture::both(global, &both),
        Verb::Key(key) => key::run(global, key),
        Verb::Csr(csr) => file::csr(global, &csr),
        Verb::Cert(cert) => file::cert(global, &cert),
        Verb::P12(p12) => file::p12(global, &p12),
        Verb::Crl(crl) => file::crl(global, &crl),
    }
}

/// A report of a handshake with what happened.
#[derive(Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    pub(crate) report: Report,
    pub(crate) events: Vec<Event>,
}

/// Prints a report, and fails if it says that something is wrong.
pub(crate) fn conclude(global: &Global, report: &Report) -> Outcome {
    if global.json {
        output::json(report)?;
    } else {
        output::raw(report.to_string().as_bytes())?;
    }
    verdict([report])
}

/// The same of handshakes: as JSON an array, and `html` on request.
pub(crate) fn conclude_all(global: &Global, shown: &[Shown], html_file: Option<&Path>) -> Outcome {
    if global.json {
        output::json(&shown)?;
    } else {
        for (index, Shown { report, .. }) in shown.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            output::raw(format!("{gap}{report}").as_bytes())?;
        }
    }
    if let Some(path) = html_file {
        write_html(shown, path)?;
    }
    verdict(shown.iter().map(|shown| &shown.report))
}

/// Writes the report for people.
pub(crate) fn write_html(shown: &[Shown], path: &Path) -> Outcome {
    let parts: Vec<(&Report, &[Event])> =
        shown.iter().map(|shown| (&shown.report, shown.events.as_slice())).collect();
    output::file(path, html(&parts))
}

fn verdict<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Outcome {
    match reports.into_iter().find_map(Report::verdict) {
        None => Ok(()),
        Some(verdict) => Err(Failure::new(format!("{}: {}", verdict.code, verdict.code.summary))
            .hint(format!("{} says more", verdict.code.page()))),
    }
}
