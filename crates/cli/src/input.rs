//! Files and secrets that a command is given.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use enclasp_pki::Certificate;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// No file that a command reads is larger.
const MAX_FILE: u64 = 16 << 20;

/// The bytes of a file; `-` is standard input.
pub(crate) fn file(path: &Path) -> Outcome<Vec<u8>> {
    let failed = |e: io::Error| {
        let failure = Failure::new(format!("cannot read {}: {e}", path.display()));
        match e.kind() {
            io::ErrorKind::NotFound => failure.hint("check the path; `-` reads standard input"),
            _ => failure,
        }
    };
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::new(format!("{} is larger than {} MiB", path.display(), MAX_FILE >> 20)));
    }
    Ok(bytes)
}

/// The certificates in a file: PEM, any number, or one in DER.
pub(crate) fn certificates(path: &Path) -> Outcome<Vec<Certificate>> {
    let bytes = file(path)?;
    enclasp_pki::certificates_from(&bytes).map_err(|e| {
        let failure = Failure::new(format!("{}: {e}", path.display()));
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// The same as DER, for a TLS stack.
pub(crate) fn certificate_ders(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    Ok(certificates(path)?.iter().map(|certificate| certificate.der().clone()).collect())
}

/// A secret: from a file, whose last line break does not count, else from the environment, else by
/// asking on the terminal. Never from the command line, which everybody can read.
pub(crate) fn secret(
    what: &str,
    file_path: Option<&Path>,
    variable: &str,
    flag: &str,
) -> Outcome<Zeroizing<String>> {
    if let Some(path) = file_path {
        return secret_file(what, path);
    }
    if let Ok(text) = std::env::var(variable) {
        return Ok(Zeroizing::new(text));
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("a {what} is needed"))
            .hint(format!("give it with {flag} FILE or in the environment variable {variable}")));
    }
    ask_hidden(what)
}

/// The secret in a file, without the line break at its end.
pub(crate) fn secret_file(what: &str, path: &Path) -> Outcome<Zeroizing<String>> {
    let bytes = Zeroizing::new(file(path)?);
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::new(format!("the {what} in {} is not UTF-8", path.display())))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Asks on the terminal without showing what is typed.
fn ask_hidden(what: &str) -> Outcome<Zeroizing<String>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).map_err(io::Error::from)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    eprint!("{what}: ");
    io::stderr().flush()?;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(io::Error::from)?;
    let mut text = Zeroizing::new(String::new());
    let read = stdin.read_line(&mut text);
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(io::Error::from)?;
    eprintln!();
    read?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Asks for a yes on the terminal. Without one there is nobody to ask, and nothing is done: `flag`
/// says yes beforehand.
pub(crate) fn confirm(question: &str, flag: &str) -> Outcome<bool> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("there is no terminal to ask on: {question}"))
            .hint(format!("{flag} says yes without being asked")));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
