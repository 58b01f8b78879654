//! The words of a command line that was written for ghostunnel: flags may stand before `server` or
//! `client`, and some of its flags are known and have another answer here.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command};

use crate::failure::{Failure, Outcome};

/// The commands that this is about.
const COMMANDS: [&str; 2] = ["server", "client"];

/// Flags of ghostunnel's that have no twin here: how they begin, why not, and what to do instead.
const ELSEWHERE: [(&str, &str, &str); 10] = [
    (
        "auto-acme-",
        "the tunnel gets no certificates itself",
        "`enclasp enroll` gets one from an authority and tunnels take up its renewals: --identity NAME",
    ),
    (
        "keychain-",
        "the keychains of macOS and Windows are not read by the tunnel",
        "import the certificate beside its key with `enclasp identity import`, then --identity NAME",
    ),
    (
        "use-workload-api",
        "the SPIFFE workload API is not there yet",
        "give the SVID with --cert, --key and --cacert",
    ),
    ("allow-policy", "OPA policies are not there yet", "combine rules with --allow 'cn=web and ou=Ops'"),
    ("allow-query", "OPA policies are not there yet", "combine rules with --allow 'cn=web and ou=Ops'"),
    ("verify-policy", "OPA policies are not there yet", "combine rules with --verify 'dns=db and ou=Data'"),
    ("verify-query", "OPA policies are not there yet", "combine rules with --verify 'dns=db and ou=Data'"),
    ("enable-pprof", "there is no Go runtime to profile", "perf(1) shows where the time goes"),
    ("cipher-suites", "all cipher suites here are good ones", "leave it out; --tls-min 1.3 is stricter"),
    ("allow-unsafe-cipher-suites", "there are no unsafe cipher suites", "leave it out"),
];

/// Puts `server` or `client` before its flags.
///
/// # Errors
/// A flag of ghostunnel's that is not supported, with what to do instead.
pub(crate) fn prepare(mut words: Vec<OsString>, commands: &Command) -> Outcome<Vec<OsString>> {
    let is_command = |word: &OsString| COMMANDS.iter().any(|command| word == command);
    let begins_so = words.get(1).is_some_and(|word| is_command(word) || flag(word).is_some());
    if !begins_so || !words.iter().any(is_command) {
        return Ok(words);
    }
    for name in words.iter().filter_map(|word| flag(word)).map(|(name, _)| name) {
        let found = ELSEWHERE.iter().find(|(begin, ..)| name.starts_with(begin));
        if let Some((_, reason, instead)) = found {
            return Err(Failure::usage(format!("--{name} is not supported: {reason}")).hint(instead));
        }
    }
    if let Some(position) = position_of_command(&words, commands) {
        words[1..=position].rotate_right(1);
    }
    Ok(words)
}

/// Where `server` or `client` stands, if it is the first word that is neither flag nor value.
fn position_of_command(words: &[OsString], commands: &Command) -> Option<usize> {
    let takes_value = |name: &str| {
        let tunnels = COMMANDS.iter().filter_map(|command| commands.find_subcommand(command));
        let arguments = tunnels.chain([commands]).flat_map(Command::get_arguments);
        let mut named = arguments.filter(|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            argument.get_long() == Some(name) || aliases.contains(&name)
        });
        // What is unknown is complained about later.
        named.any(|argument| matches!(argument.get_action(), ArgAction::Set | ArgAction::Append))
    };
    let mut index = 1;
    loop {
        let word = words.get(index)?;
        match flag(word) {
            Some((name, value)) => index += 1 + usize::from(value.is_none() && takes_value(name)),
            None if word.as_encoded_bytes().starts_with(b"-") => index += 1,
            None => return COMMANDS.iter().any(|command| word == OsStr::new(command)).then_some(index),
        }
    }
}

/// The name of a long flag, and its value if that is in the same word.
fn flag(word: &OsStr) -> Option<(&str, Option<&str>)> {
    let text = word.to_str()?.strip_prefix("--").filter(|text| !text.is_empty())?;
    Some(text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value))))
}
