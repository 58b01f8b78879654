//! PINs that are given beforehand, so that nobody has to be asked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Request, Secret};
use crate::{Error, KeyUri, Result, durable};

/// The environment variables that hold a PIN, or name the file of one, for keys whose URI has no
/// `pin-source`.
const PIN: &str = "ENCLASP_PIN";
const PIN_FILE: &str = "ENCLASP_PIN_FILE";

/// A PIN has some bytes, and its file perhaps a line break more.
const MAX_FILE: u64 = 4096;

/// Whether the PIN of `key` or its token comes from a file or the environment, so that nobody has to
/// be asked for it.
pub fn pin_is_given(key: &KeyUri) -> bool {
    key.query("pin-source").is_some() || [PIN, PIN_FILE].into_iter().any(|name| variable(name).is_some())
}

/// The file that the PIN of `key` or its token comes from, if it comes from one. This process reads it, again
/// whenever the agent was started again.
pub fn pin_file(key: &KeyUri) -> Option<PathBuf> {
    match key.query("pin-source") {
        Some(source) => file_of(key, source).ok(),
        None if variable(PIN).is_some() => None,
        None => variable(PIN_FILE).map(PathBuf::from),
    }
}

/// What gives the agent the PIN of `key` (a URI): from the file that its `pin-source` names, or from
/// the environment. `None` if neither says.
///
/// # Errors
/// [`Error::Uri`] for a source that is no file, [`Error::Storage`] for a file that cannot be read.
pub(super) fn unlocking(key: &str) -> Result<Option<Request<'static>>> {
    let key: KeyUri = key.parse()?;
    let pin = if let Some(source) = key.query("pin-source") {
        read(&file_of(&key, source)?)?
    } else if let Some(pin) = variable(PIN) {
        Zeroizing::new(pin.into_encoded_bytes())
    } else if let Some(path) = variable(PIN_FILE) {
        read(&PathBuf::from(path))?
    } else {
        return Ok(None);
    };
    Ok(Some(Request::Unlock { key, pin: Secret::new(pin) }))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// RFC 7512 §2.4: a `file:` URI or a path. A command (`|…`) would be run by whoever reads the URI.
fn file_of(key: &KeyUri, source: &str) -> Result<PathBuf> {
    let path = source.strip_prefix("file:").unwrap_or(source);
    let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
    if path.is_absolute() {
        return Ok(path);
    }
    let reason = "`pin-source` has to be a file with its full path: pin-source=file:/PATH";
    Err(Error::Uri { uri: key.to_string(), reason: reason.into() })
}

/// The contents without the line break at the end.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let missing = || Error::Storage {
        operation: "read the PIN in".into(),
        path: path.display().to_string(),
        reason: "there is no such file".into(),
    };
    let mut pin = Zeroizing::new(durable::read(path, MAX_FILE)?.ok_or_else(missing)?);
    while matches!(pin.last(), Some(b'\n' | b'\r')) {
        pin.pop();
    }
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_comes_from_the_file_that_the_uri_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let uri = |source: &str| format!("pkcs11:token=t?pin-source={source}");
        for source in ["pin", "file:pin", "%7Ccat%20/pin"] {
            assert!(matches!(unlocking(&uri(source)), Err(Error::Uri { .. })), "{source}");
        }
        let named = uri(&format!("file:{}", path.display()));
        assert!(matches!(unlocking(&named), Err(Error::Storage { .. })));
        std::fs::write(&path, b"1234\r\n").unwrap();
        for source in [path.display().to_string(), format!("file://{}", path.display())] {
            let Some(Request::Unlock { pin, .. }) = unlocking(&uri(&source)).unwrap() else { panic!() };
            assert_eq!(**pin.into_inner(), *b"1234");
            assert_eq!(pin_file(&uri(&source).parse().unwrap()).as_ref(), Some(&path));
        }
    }
}
