//! What a module answers (`CKR_*`), as what the caller can do about it.

use cryptoki::error::{Error as ModuleError, RvError};

use crate::Error;

/// The outcome of something that may be worth beginning anew.
pub(super) type Attempt<T> = std::result::Result<T, Failure>;

/// Why an operation on a token failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The module said so.
    Module(ModuleError),
    /// The module said so of a PIN. Whatever it said, the PIN may have been counted as a wrong one.
    Pin(ModuleError),
    /// The token is in none of the module's slots.
    NoToken(Error),
    /// We said so; nothing is gained by trying again.
    Ours(Error),
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        Self::Module(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Failure {
    /// The failure of a login. Only if the module had no session to check the PIN in may it be
    /// given again: there are tokens that say CKR_GENERAL_ERROR of a wrong one.
    pub(super) fn of_login(error: ModuleError) -> Self {
        use RvError::*;
        match error {
            ModuleError::Pkcs11(
                SessionHandleInvalid
                | SessionClosed
                | DeviceRemoved
                | TokenNotPresent
                | CryptokiNotInitialized,
                _,
            ) => Self::Module(error),
            _ => Self::Pin(error),
        }
    }

    /// Whether what we hold (sessions, the login, handles) may be out of date, because the token
    /// was pulled or the module began anew, so that it is worth beginning anew.
    pub(super) fn is_stale(&self) -> bool {
        use RvError::*;
        matches!(self, Self::NoToken(_))
            || matches!(
                self,
                Self::Module(ModuleError::Pkcs11(
                    SessionHandleInvalid
                        | SessionClosed
                        | ObjectHandleInvalid
                        | KeyHandleInvalid
                        | UserNotLoggedIn
                        | DeviceRemoved
                        | DeviceError
                        | TokenNotPresent
                        | TokenNotRecognized
                        | SlotIdInvalid
                        | CryptokiNotInitialized
                        | OperationActive
                        | GeneralError
                        | FunctionFailed,
                    _,
                ))
            )
    }

    /// The failure of `operation` on the key `key`, at the token or module `device` (a URI).
    pub(super) fn into_error(self, device: &str, key: &str, operation: &str) -> Error {
        use RvError::*;
        let error = match self {
            Self::NoToken(error) | Self::Ours(error) => return error,
            Self::Module(error) | Self::Pin(error) => error,
        };
        let reason = describe(&error);
        let (key, operation) = (key.to_owned(), operation.to_owned());
        let code = match error {
            ModuleError::Pkcs11(code, _) => code,
            ModuleError::NullFunctionPointer | ModuleError::NotSupported => {
                return Error::Unsupported { key, operation, reason };
            }
            _ => return Error::Unavailable { at: device.to_owned(), reason },
        };
        match code {
            PinLocked => Error::Locked { key, operation, reason: format!("the PIN of {device} is locked") },
            PinExpired => {
                Error::Locked { key, operation, reason: format!("the PIN of {device} must be changed first") }
            }
            UserPinNotInitialized => {
                Error::Locked { key, operation, reason: format!("{device} has no user PIN yet") }
            }
            UserNotLoggedIn => Error::Locked { key, operation, reason },
            PinIncorrect | PinInvalid | PinLenRange | PinTooWeak => {
                Error::WrongPin { key, operation, reason }
            }
            Cancel | FunctionCanceled | FunctionRejected => Error::Denied { key, operation, reason },
            SessionCount | HostMemory | DeviceMemory => Error::Busy { key, operation, reason },
            MechanismInvalid
            | MechanismParamInvalid
            | FunctionNotSupported
            | CurveNotSupported
            | DomainParamsInvalid
            | KeySizeRange
            | KeyTypeInconsistent
            | KeyFunctionNotPermitted
            | DataLenRange
            | DataInvalid
            | TemplateInconsistent
            | TemplateIncomplete
            | AttributeValueInvalid
            | AttributeTypeInvalid
            | AttributeReadOnly
            | SessionReadOnly
            | TokenWriteProtected
            | ActionProhibited => Error::Unsupported { key, operation, reason },
            _ => Error::Unavailable { at: device.to_owned(), reason },
        }
    }
}

/// `C_Sign: CKR_DEVICE_REMOVED`.
pub(super) fn describe(error: &ModuleError) -> String {
    match error {
        ModuleError::Pkcs11(code, function) => format!("C_{function:?}: {}", name(*code)),
        other => other.to_string(),
    }
}

/// The name that PKCS#11 gives the code: `DeviceRemoved` is CKR_DEVICE_REMOVED.
fn name(code: RvError) -> String {
    match code {
        RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => format!("code {code:#x}"),
        code => format!("{code:?}").chars().fold("CKR".to_owned(), |mut name, c| {
            if c.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
            name
        }),
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn failure(code: RvError) -> Failure {
        Failure::Module(ModuleError::Pkcs11(code, Function::Sign))
    }

    #[test]
    fn codes_become_what_the_caller_can_act_on() {
        let error = |code| failure(code).into_error("pkcs11:token=t", "pkcs11:object=k", "sign with");
        assert!(matches!(error(RvError::PinLocked), Error::Locked { .. }));
        assert!(matches!(error(RvError::PinIncorrect), Error::WrongPin { .. }));
        assert!(matches!(error(RvError::FunctionCanceled), Error::Denied { .. }));
        assert!(matches!(error(RvError::SessionCount), Error::Busy { .. }));
        assert!(matches!(error(RvError::MechanismInvalid), Error::Unsupported { .. }));
        assert!(matches!(error(RvError::VendorDefined(0x8000_0001)), Error::Unavailable { .. }));
        assert_eq!(
            error(RvError::DeviceRemoved).to_string(),
            "cannot reach the keystore at pkcs11:token=t: C_Sign: CKR_DEVICE_REMOVED"
        );
    }

    #[test]
    fn only_what_a_new_session_may_heal_is_tried_again() {
        for code in [RvError::SessionHandleInvalid, RvError::DeviceRemoved, RvError::UserNotLoggedIn] {
            assert!(failure(code).is_stale(), "{code:?}");
        }
        for code in [RvError::PinIncorrect, RvError::PinLocked, RvError::MechanismInvalid] {
            assert!(!failure(code).is_stale(), "{code:?}");
        }
        // A PIN is not given again unless it cannot have been looked at.
        let login = |code| Failure::of_login(ModuleError::Pkcs11(code, Function::Login));
        for code in
            [RvError::PinIncorrect, RvError::GeneralError, RvError::FunctionFailed, RvError::DeviceError]
        {
            assert!(!login(code).is_stale(), "{code:?}");
        }
        assert!(login(RvError::SessionHandleInvalid).is_stale());
    }
}
