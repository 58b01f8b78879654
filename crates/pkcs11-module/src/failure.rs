//! What a host is told when something failed, and what is logged of it.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use cryptoki_sys::*;
use enclasp_keystore::Error;

/// The environment variable that names a file to append to what went wrong.
const LOG: &str = "ENCLASP_PKCS11_LOG";

/// The return value for a failure of a keystore, which goes to the log.
pub(crate) fn code(call: &str, error: &Error) -> CK_RV {
    log(call, error, error.hint());
    match error {
        Error::Absent { .. } => CKR_KEY_HANDLE_INVALID,
        Error::Locked { .. } => CKR_PIN_LOCKED,
        Error::WrongPin { .. } => CKR_PIN_INCORRECT,
        Error::Denied { .. } => CKR_FUNCTION_REJECTED,
        Error::Unsupported { .. } => CKR_MECHANISM_INVALID,
        Error::Deadline { .. } | Error::Cancelled { .. } => CKR_FUNCTION_CANCELED,
        Error::Busy { .. } => CKR_FUNCTION_FAILED,
        Error::WrongSignature { .. } | Error::Unavailable { .. } => CKR_DEVICE_ERROR,
        _ => CKR_GENERAL_ERROR,
    }
}

/// Appends a line to the log, if there is one.
pub(crate) fn log(call: &str, what: impl Display, hint: Option<String>) {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::var_os(LOG).filter(|path| !path.is_empty()).map(PathBuf::from));
    let Some(path) = path else { return };
    let hint = hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    let line = format!("{} {call}: {what}{hint}\n", std::process::id());
    // There is nowhere to say that the log cannot be written.
    let _ = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut log| log.write_all(line.as_bytes()));
}
