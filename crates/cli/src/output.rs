//! Data to standard output, everything else to standard error.

mod syslog;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::command::tunnel::{LogFlags, Quiet};
use crate::failure::{Failure, Outcome};
use syslog::Syslog;

/// Prints a line of data. A reader that has gone away ends the program quietly, as it would end
/// any other filter.
pub(crate) fn line(text: impl std::fmt::Display) -> Outcome {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Failure::new(format!("cannot write to standard output: {e}"))),
    }
}

/// Writes a file that a command was asked for.
pub(crate) fn file(path: &Path, bytes: impl AsRef<[u8]>) -> Outcome {
    std::fs::write(path, bytes).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    line(serde_json::to_string_pretty(value).map_err(Failure::new)?)
}

/// Says something to the person, on standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Warns the person.
pub(crate) fn warn(text: impl std::fmt::Display) {
    note(format_args!("warning: {text}"));
}

/// RFC 3339 in UTC.
pub(crate) fn time(time: SystemTime) -> String {
    enclasp_pki::rfc3339(time)
}

/// A table with aligned columns; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> Outcome {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = if column + 1 == row.len() { 0 } else { widths[column] + 2 - cell.chars().count() };
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', pad));
        }
        line(text)?;
    }
    Ok(())
}

/// A spinner on standard error that appears only on a terminal, and goes away when dropped.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn start(text: impl Into<String>) -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(text.into());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn say(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }

    /// A line that stays.
    pub(crate) fn note(&self, text: &str) {
        self.0.suspend(|| note(text));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How much a command logs when nobody asks for more with `-v`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// Nothing: what goes wrong is part of the show.
    Nothing,
    /// Warnings, for commands that do one thing.
    Warnings,
    /// An event a line, for commands that serve.
    Events,
}

/// Starts the log, on standard error or to syslog: `ENCLASP_LOG` in tracing's filter syntax, or
/// `level` and as much more as `-v` was given, without the lines that `quiet` leaves out.
///
/// # Errors
/// If nobody takes what is sent to syslog.
pub(crate) fn start_log(verbose: u8, level: LogLevel, flags: &LogFlags) -> Outcome {
    use tracing_subscriber::EnvFilter;
    let (ours, others) = match level as u8 + verbose {
        0 => ("off", "off"),
        1 => ("warn", "warn"),
        2 => ("info", "warn"),
        3 => ("debug", "info"),
        _ => ("debug", "debug"),
    };
    let crates =
        ["", "_agent", "_ca", "_doctor", "_enroll", "_identity", "_keystore", "_pki", "_tls", "_tunnel"];
    let default = crates.map(|name| format!("enclasp{name}={ours}")).join(",") + "," + others;
    let asked = std::env::var("ENCLASP_LOG").ok().filter(|text| EnvFilter::try_new(text).is_ok());
    let quiet = flags.quiet.iter().map(|quiet| format!(",{}", quiet.directive())).collect::<String>();
    let filter = match flags.quiet.contains(&Quiet::All) {
        true => EnvFilter::new("off"),
        false => EnvFilter::new(asked.unwrap_or(default) + &quiet),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        // Who reads the log may go away; that must not disturb what is logged about.
        .log_internal_errors(false);
    if flags.syslog {
        log.with_writer(Syslog::open(Path::new(SYSLOG))?)
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .init();
    } else {
        log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// Where syslog listens.
const SYSLOG: &str = "/dev/log";
