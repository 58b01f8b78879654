//! What Windows answers, as what the caller can do about it.

use crate::Error;

/// An `HRESULT`, `SECURITY_STATUS` or `NTSTATUS` of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) i32);

/// What a failure means to whoever asked.
enum Meaning {
    Absent,
    Exists,
    Denied(&'static str),
    Locked(&'static str),
    Busy(&'static str),
    WrongPin,
    Unsupported,
    Unavailable(&'static str),
}

/// What our messages say, and what [`hint`] looks for.
const BLOCKED: &str = "the PIN of the card is blocked";
const LOCKOUT: &str = "the TPM is in lockout";
const MAY_NOT_ASK: &str = "it has to ask a person, and may not";

impl Failure {
    /// The failure of `operation` on the key `key` (a URI).
    pub(super) fn into_error(self, key: &str, operation: &str) -> Error {
        let (meaning, name) = self.meaning();
        let code = format!("{name} {:#010x}", self.0);
        let (key, operation) = (key.to_owned(), operation.to_owned());
        match meaning {
            Meaning::Absent => Error::Absent { key },
            Meaning::Exists => Error::Exists { key },
            Meaning::Denied(why) => Error::Denied { key, operation, reason: format!("{why}: {code}") },
            Meaning::Locked(why) => Error::Locked { key, operation, reason: format!("{why}: {code}") },
            Meaning::Busy(why) => Error::Busy { key, operation, reason: format!("{why}: {code}") },
            Meaning::WrongPin => {
                Error::WrongPin { key, operation, reason: format!("the PIN is wrong: {code}") }
            }
            Meaning::Unsupported => Error::Unsupported { key, operation, reason: code },
            Meaning::Unavailable(why) => Error::Unavailable { at: key, reason: format!("{why}: {code}") },
        }
    }

    fn meaning(self) -> (Meaning, &'static str) {
        use Meaning::*;
        // An HRESULT is negative; its digits are what the headers write.
        match self.0 as u32 {
            0x8009_0016 => (Absent, "NTE_BAD_KEYSET"),
            0x8009_000d => (Absent, "NTE_NO_KEY"),
            0x8009_0011 => (Absent, "NTE_NOT_FOUND"),
            0x8009_2004 => (Absent, "CRYPT_E_NOT_FOUND"),
            0x8009_000f => (Exists, "NTE_EXISTS"),
            0x8009_0010 => (Denied("this user may not"), "NTE_PERM"),
            0x8007_0005 => (Denied("this user may not"), "E_ACCESSDENIED"),
            0x8009_0036 => (Denied("the person cancelled"), "NTE_USER_CANCELLED"),
            0x8007_04c7 => (Denied("the person cancelled"), "ERROR_CANCELLED"),
            0x8010_006e => (Denied("the person cancelled"), "SCARD_W_CANCELLED_BY_USER"),
            0x8010_006f => (Denied("the card wants its PIN first"), "SCARD_W_CARD_NOT_AUTHENTICATED"),
            0x8010_006b => (WrongPin, "SCARD_W_WRONG_CHV"),
            0x8010_006c => (Locked(BLOCKED), "SCARD_W_CHV_BLOCKED"),
            0x8028_0921 => (Locked(LOCKOUT), "TPM_20_E_LOCKOUT"),
            0x8009_0022 => (Locked(MAY_NOT_ASK), "NTE_SILENT_CONTEXT"),
            0x8009_002e => (Locked(MAY_NOT_ASK), "NTE_UI_REQUIRED"),
            0x8009_000e => (Busy("there is no memory left"), "NTE_NO_MEMORY"),
            0x8010_000b => (Busy("another program has the card"), "SCARD_E_SHARING_VIOLATION"),
            0x8009_0008 => (Unsupported, "NTE_BAD_ALGID"),
            0x8009_0009 => (Unsupported, "NTE_BAD_FLAGS"),
            0x8009_0026 => (Unsupported, "NTE_INVALID_HANDLE"),
            0x8009_0027 => (Unsupported, "NTE_INVALID_PARAMETER"),
            0x8009_0029 => (Unsupported, "NTE_NOT_SUPPORTED"),
            0x8009_000a => (Unsupported, "NTE_BAD_TYPE"),
            0x8009_0004 => (Unsupported, "NTE_BAD_LEN"),
            0xc000_000d => (Unsupported, "STATUS_INVALID_PARAMETER"),
            0xc000_00bb => (Unsupported, "STATUS_NOT_SUPPORTED"),
            0x8009_0030 => (Unavailable("the device is not ready"), "NTE_DEVICE_NOT_READY"),
            0x8009_0035 => (Unavailable("there is no such device"), "NTE_DEVICE_NOT_FOUND"),
            0x8028_400f => (Unavailable("there is no TPM"), "TBS_E_TPM_NOT_FOUND"),
            0x8029_0401 => (Unavailable("the TPM is not ready"), "TPM_E_PCP_DEVICE_NOT_READY"),
            0x8010_0069 => (Unavailable("the card was pulled"), "SCARD_W_REMOVED_CARD"),
            0x8010_000c => (Unavailable("there is no card"), "SCARD_E_NO_SMARTCARD"),
            0x8010_002e => (Unavailable("there is no reader"), "SCARD_E_NO_READERS_AVAILABLE"),
            0x8010_001d => (Unavailable("the smart card service does not run"), "SCARD_E_NO_SERVICE"),
            _ => (Unavailable("it failed"), "error"),
        }
    }
}

/// The next step after an error of a `windows:` key, by its reason.
pub(crate) fn hint(reason: &str) -> Option<&'static str> {
    let hints = [
        (BLOCKED, "the card's own tool unblocks its PIN, with the PUK"),
        (LOCKOUT, "wait: the TPM counts down by itself; `tpmtool getdeviceinformation` shows the lockout"),
        (MAY_NOT_ASK, "use the key from a program in the session of a person, not from a service"),
    ];
    hints.into_iter().find(|(beginning, _)| reason.starts_with(beginning)).map(|(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32) -> Error {
        Failure(code as i32).into_error("windows:name=web", "sign with")
    }

    #[test]
    fn what_has_a_next_step_says_it() {
        for (code, next) in [(0x8010_006c, "PUK"), (0x8028_0921, "lockout"), (0x8009_0022, "service")] {
            let error = error(code);
            assert!(matches!(error, Error::Locked { .. }), "{error}");
            assert!(error.hint().unwrap_or_default().contains(next), "{error}");
        }
        assert!(error(0x8028_400f).hint().unwrap().contains("certutil"));
    }

    #[test]
    fn codes_become_what_the_caller_can_act_on() {
        assert!(matches!(error(0x8009_0016), Error::Absent { .. }));
        assert!(matches!(error(0x8009_000f), Error::Exists { .. }));
        assert!(matches!(error(0x8009_0036), Error::Denied { .. }));
        assert!(matches!(error(0x8010_006b), Error::WrongPin { .. }));
        assert!(matches!(error(0x8010_000b), Error::Busy { .. }));
        assert!(matches!(error(0x8009_0029), Error::Unsupported { .. }));
        assert!(matches!(error(0x8009_ffff), Error::Unavailable { .. }));
        assert_eq!(
            error(0x8028_0921).to_string(),
            "cannot sign with `windows:name=web`: locked: the TPM is in lockout: TPM_20_E_LOCKOUT 0x80280921"
        );
    }
}
