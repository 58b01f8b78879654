//! How a command fails: a line that says what happened, a line that says what to do, an exit code.

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::args::Args;

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A refusal, or a failure that the user can fix: exit code 1.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None, code: 1 }
    }

    /// Wrong usage: exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None, code: 2 }
    }

    /// The next step.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with the place that it is about before it.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Prints it to standard error.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(self.code)
    }

    /// The line that says what happened.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is wrong usage.
    pub(crate) fn is_usage(&self) -> bool {
        self.code == 2
    }

    /// The line that says what to do, if there is one.
    pub(crate) fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Reports a command line that cannot be read.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        // clap shows the help where a word is missing and nothing else was given, but takes a
        // variable for something that was given.
        ErrorKind::MissingSubcommand => {
            eprint!("{}", help_of(std::env::args_os().skip(1)));
            ExitCode::from(2)
        }
        // Help and version go to standard output and are no failure; help that stands in for a
        // missing word is one.
        kind if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand || !error.use_stderr() => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
        _ => usage(error).report(),
    }
}

/// What is wrong with flags. A value that one of our types refused is told in that type's words,
/// which have a hint and do not repeat a PIN.
pub(crate) fn usage(error: &clap::Error) -> Failure {
    let refused = std::error::Error::source(error).and_then(|source| {
        None.or_else(|| source.downcast_ref::<enclasp_keystore::Error>().map(|e| (e.to_string(), e.hint())))
            .or_else(|| source.downcast_ref::<enclasp_pki::Error>().map(|e| (e.to_string(), e.hint())))
            .or_else(|| source.downcast_ref::<enclasp_tunnel::Error>().map(|e| (e.to_string(), e.hint())))
            .or_else(|| source.downcast_ref::<enclasp_enroll::Error>().map(|e| (e.to_string(), e.hint())))
            .or_else(|| source.downcast_ref::<enclasp_ca::Error>().map(|e| (e.to_string(), e.hint())))
    });
    match refused {
        Some((message, hint)) => Failure { message, hint, code: 2 },
        None => in_two_lines(&error.to_string()),
    }
}

/// What clap says in several paragraphs: what is wrong, what was probably meant, the usage.
fn in_two_lines(text: &str) -> Failure {
    let mut paragraphs =
        text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let wrong = paragraphs.next().unwrap_or_default();
    let (tips, rest): (Vec<_>, Vec<_>) = paragraphs.partition(|paragraph| paragraph.starts_with("tip: "));
    let failure = Failure::usage(wrong.trim_start_matches("error: "));
    let usage = rest.into_iter().find(|paragraph| paragraph.starts_with("Usage: "));
    match (tips.first(), usage) {
        (Some(tip), _) => failure.hint(tip.trim_start_matches("tip: ")),
        (None, Some(usage)) => failure.hint(usage.replacen("Usage", "usage", 1)),
        (None, None) => failure.hint("`enclasp help` lists the commands, `enclasp help COMMAND` the flags"),
    }
}

/// The help of the command that `words` begin with.
fn help_of(words: impl Iterator<Item = OsString>) -> impl fmt::Display {
    let mut command = Args::command();
    command.build();
    for word in words {
        if let Some(verb) = command.find_subcommand(&word).cloned() {
            command = verb;
        }
    }
    command.render_help()
}

/// Takes over an error of one of our crates, with its hint.
macro_rules! from_error {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { message: in_full(&error), hint: error.hint(), code: 1 }
            }
        }
    )*};
}

from_error!(
    enclasp_agent::Error,
    enclasp_ca::Error,
    enclasp_doctor::Error,
    enclasp_enroll::Error,
    enclasp_identity::Error,
    enclasp_keystore::Error,
    enclasp_pki::Error,
    enclasp_tls::Error,
    enclasp_tunnel::Error,
);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

/// The error and its sources, where these say something that it does not.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
