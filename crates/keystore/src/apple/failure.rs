//! What Apple's frameworks answer, as what the caller can do about it.

use crate::Error;

/// An error of one of the frameworks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) domain: Domain,
    pub(super) code: i64,
    /// The framework's own words, in the language of the user.
    pub(super) text: String,
}

/// Whose error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// Security.framework: an `OSStatus`, `errSec…`.
    Security,
    /// LocalAuthentication: an `LAError`.
    LocalAuthentication,
    /// CryptoTokenKit, a smart card's driver: a `TKError`.
    Token,
    /// Another one.
    Other,
}

impl Domain {
    /// The domain of an `NSError` or `CFError`.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "NSOSStatusErrorDomain" => Self::Security,
            "com.apple.LocalAuthentication" => Self::LocalAuthentication,
            "CryptoTokenKit" => Self::Token,
            _ => Self::Other,
        }
    }
}

/// `errSecItemNotFound`.
pub(super) const NOT_FOUND: i64 = -25300;

/// What a failure means to whoever asked.
enum Meaning {
    Absent,
    Exists,
    Denied(&'static str),
    Locked(&'static str),
    Unsupported(&'static str),
    Cancelled,
    Unavailable,
}

/// What our messages say of a program without the entitlement, and what [`hint`] looks for.
const ENTITLEMENT: &str = "the program has no entitlement for the keychain";
const NOT_AUTHENTICATED: &str = "the person was not recognized";
const NO_UI: &str = "the device is locked, or nobody may be asked now";
const BIOMETRY_LOCKED: &str = "there were too many failed tries";
const NOTHING_ENROLLED: &str = "no finger or face is enrolled";
const NO_PASSCODE: &str = "the device has no passcode";

impl Failure {
    pub(super) fn is_not_found(&self) -> bool {
        self.domain == Domain::Security && self.code == NOT_FOUND
    }

    /// The failure of `operation` on the key `key` (a URI).
    pub(super) fn into_error(self, key: &str, operation: &str) -> Error {
        let meaning = self.meaning();
        let code = self.name();
        let text = if self.text.is_empty() { code } else { format!("{} ({code})", self.text) };
        let (key, operation) = (key.to_owned(), operation.to_owned());
        let because = |reason: &str| format!("{reason}: {text}");
        match meaning {
            Meaning::Absent => Error::Absent { key },
            Meaning::Exists => Error::Exists { key },
            Meaning::Denied(reason) => Error::Denied { key, operation, reason: because(reason) },
            Meaning::Locked(reason) => Error::Locked { key, operation, reason: because(reason) },
            Meaning::Unsupported(reason) => Error::Unsupported { key, operation, reason: because(reason) },
            Meaning::Cancelled => Error::Cancelled { key, operation },
            Meaning::Unavailable => Error::Unavailable { at: "apple:".into(), reason: text },
        }
    }

    fn meaning(&self) -> Meaning {
        use Meaning::*;
        match (self.domain, self.code) {
            (Domain::Security, NOT_FOUND) | (Domain::Token, -6) => Absent,
            (Domain::Security, -25299) => Exists,
            (Domain::Security, -34018) => Denied(ENTITLEMENT),
            (Domain::Security, -128) | (Domain::LocalAuthentication, -2) | (Domain::Token, -4) => {
                Denied("the person cancelled")
            }
            (Domain::Security, -25293) | (Domain::LocalAuthentication, -1) | (Domain::Token, -5) => {
                Denied(NOT_AUTHENTICATED)
            }
            (Domain::LocalAuthentication, -3) => Denied("the person chose another way that this key has not"),
            (Domain::LocalAuthentication, -4) => Denied("the system took the screen away"),
            (Domain::Security, -25308) | (Domain::LocalAuthentication, -1004) | (Domain::Token, -9) => {
                Locked(NO_UI)
            }
            (Domain::LocalAuthentication, -5) => Locked(NO_PASSCODE),
            (Domain::LocalAuthentication, -7) => Locked(NOTHING_ENROLLED),
            (Domain::LocalAuthentication, -8) => Locked(BIOMETRY_LOCKED),
            (Domain::LocalAuthentication, -6) => Unsupported("there is no Touch ID or Face ID to be had"),
            (Domain::LocalAuthentication, -9 | -10) => Cancelled,
            (Domain::Security, -4 | -50) | (Domain::Token, -1 | -8) => {
                Unsupported("the keystore does not do that")
            }
            _ => Unavailable,
        }
    }

    /// The name that Apple's headers give the code.
    fn name(&self) -> String {
        let known = match (self.domain, self.code) {
            (Domain::Security, -4) => "errSecUnimplemented",
            (Domain::Security, -50) => "errSecParam",
            (Domain::Security, -128) => "errSecUserCanceled",
            (Domain::Security, -25291) => "errSecNotAvailable",
            (Domain::Security, -25293) => "errSecAuthFailed",
            (Domain::Security, -25299) => "errSecDuplicateItem",
            (Domain::Security, NOT_FOUND) => "errSecItemNotFound",
            (Domain::Security, -25308) => "errSecInteractionNotAllowed",
            (Domain::Security, -34018) => "errSecMissingEntitlement",
            (Domain::LocalAuthentication, -1) => "LAErrorAuthenticationFailed",
            (Domain::LocalAuthentication, -2) => "LAErrorUserCancel",
            (Domain::LocalAuthentication, -3) => "LAErrorUserFallback",
            (Domain::LocalAuthentication, -4) => "LAErrorSystemCancel",
            (Domain::LocalAuthentication, -5) => "LAErrorPasscodeNotSet",
            (Domain::LocalAuthentication, -6) => "LAErrorBiometryNotAvailable",
            (Domain::LocalAuthentication, -7) => "LAErrorBiometryNotEnrolled",
            (Domain::LocalAuthentication, -8) => "LAErrorBiometryLockout",
            (Domain::LocalAuthentication, -1004) => "LAErrorNotInteractive",
            (Domain::Security, _) => "OSStatus",
            (Domain::LocalAuthentication, _) => "LAError",
            (Domain::Token, _) => "TKError",
            (Domain::Other, _) => "error",
        };
        format!("{known} {}", self.code)
    }
}

/// The next step after an error of an `apple:` key, by its reason.
pub(crate) fn hint(reason: &str) -> Option<&'static str> {
    let hints = [
        (
            ENTITLEMENT,
            "sign the program with the entitlement `keychain-access-groups`; docs/apple.md says what a tool \
             that cannot be signed can do",
        ),
        (
            NOT_AUTHENTICATED,
            "try again; a key with `presence=biometry` never signs again once fingers or faces changed: make \
             a new one, and have it certified",
        ),
        (NO_UI, "unlock the device, and use the key while the program is in front"),
        (BIOMETRY_LOCKED, "unlock the device with its passcode; that lets biometry in again"),
        (NOTHING_ENROLLED, "enrol a finger or face in the system's settings, then make the key anew"),
        (NO_PASSCODE, "set a passcode; a key that demands a person exists only while there is one"),
    ];
    hints.into_iter().find(|(beginning, _)| reason.starts_with(beginning)).map(|(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(domain: &str, code: i64) -> Error {
        let failure = Failure { domain: Domain::named(domain), code, text: "In words".into() };
        failure.into_error("apple:label=web", "sign with")
    }

    const OS: &str = "NSOSStatusErrorDomain";
    const LA: &str = "com.apple.LocalAuthentication";

    #[test]
    fn what_has_a_next_step_says_it() {
        for (domain, code, next) in [
            (OS, -34018, "keychain-access-groups"),
            (OS, -25308, "unlock the device"),
            (OS, -25293, "make a new one"),
            (LA, -1, "make a new one"),
            (LA, -1004, "unlock the device"),
            (LA, -5, "passcode"),
            (LA, -7, "enrol"),
            (LA, -8, "passcode"),
        ] {
            let error = error(domain, code);
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains(next), "{error}: {hint}");
        }
    }

    #[test]
    fn codes_become_what_the_caller_can_act_on() {
        assert!(matches!(error(OS, NOT_FOUND), Error::Absent { .. }));
        assert!(matches!(error(OS, -25299), Error::Exists { .. }));
        assert!(matches!(error(OS, -128), Error::Denied { .. }));
        assert!(matches!(error(LA, -2), Error::Denied { .. }));
        assert!(matches!(error(LA, -9), Error::Cancelled { .. }));
        assert!(matches!(error(LA, -6), Error::Unsupported { .. }));
        assert!(matches!(error("CryptoTokenKit", -5), Error::Denied { .. }));
        assert!(matches!(error("CryptoTokenKit", -7), Error::Unavailable { .. }));
        assert!(matches!(error("NSCocoaErrorDomain", -25300), Error::Unavailable { .. }));
        assert_eq!(
            error(OS, -25308).to_string(),
            "cannot sign with `apple:label=web`: locked: the device is locked, or nobody may be asked now: In \
             words (errSecInteractionNotAllowed -25308)"
        );
        let silent = Failure { domain: Domain::Security, code: NOT_FOUND, text: String::new() };
        assert!(silent.is_not_found());
    }
}
