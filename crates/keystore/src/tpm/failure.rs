//! What a TPM's response codes mean: what to do about them, and what to say.

use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Code;

use crate::Error;

/// Why a command did not succeed.
pub(super) enum Failure {
    /// The TPM, or the way to it, answered with this.
    Tpm(tss_esapi::Error),
    /// It is not worth another try.
    Final(Error),
}

/// What came of a command.
pub(super) type Outcome<T> = Result<T, Failure>;

impl From<tss_esapi::Error> for Failure {
    fn from(error: tss_esapi::Error) -> Self {
        Self::Tpm(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// What to do about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The TPM will take the same command later.
    Later,
    /// No slot is free for an object or a session.
    NoSlot,
    /// Handles are not what they were: the TPM was reset, or somebody flushed or evicted them. The
    /// command was not carried out.
    Stale,
    /// The way to the TPM is broken. The command may have been carried out or not.
    Lost,
    /// An auth value is wrong. `counted` if the TPM counted it as a guess.
    WrongAuth { counted: bool },
    /// Too many guesses.
    Lockout,
    /// The private part was not encrypted by this parent.
    Foreign,
    /// The TPM does not have this algorithm, curve, hash or scheme.
    Unsupported,
    /// The hierarchy is switched off.
    Disabled,
    /// Anything else.
    Other,
}

impl Meaning {
    pub(super) fn of(error: &tss_esapi::Error) -> Self {
        let tss_esapi::Error::Tss2Error(code) = error else { return Self::Other };
        // Codes of the layers beneath, such as a refused connection, are none that a TPM has.
        let Some(code) = code.kind() else { return Self::Lost };
        match code {
            Code::Failure => Self::Lost,
            Code::Retry
            | Code::Yielded
            | Code::Testing
            | Code::Canceled
            | Code::NvRate
            | Code::NvUnavailable => Self::Later,
            Code::ObjectMemory
            | Code::SessionMemory
            | Code::Memory
            | Code::ObjectHandles
            | Code::SessionHandles => Self::NoSlot,
            Code::Initialize
            | Code::Handle
            | Code::ContextGap
            | Code::ReferenceH0
            | Code::ReferenceH1
            | Code::ReferenceH2
            | Code::ReferenceS0
            | Code::ReferenceS1
            | Code::ReferenceS2 => Self::Stale,
            Code::AuthFail => Self::WrongAuth { counted: true },
            Code::BadAuth => Self::WrongAuth { counted: false },
            Code::Lockout => Self::Lockout,
            Code::Integrity => Self::Foreign,
            Code::Asymmetric
            | Code::Attributes
            | Code::CommandCode
            | Code::Curve
            | Code::Hash
            | Code::Key
            | Code::KeySize
            | Code::Mgf
            | Code::Mode
            | Code::Scheme
            | Code::Size
            | Code::Type
            | Code::Value => Self::Unsupported,
            Code::Hierarchy | Code::Disabled => Self::Disabled,
            _ => Self::Other,
        }
    }
}

/// Whether the TPM has not been started since it was reset.
pub(super) fn is_not_started(error: &tss_esapi::Error) -> bool {
    is(error, Code::Initialize)
}

/// Whether the TPM found itself broken.
pub(super) fn is_failed(error: &tss_esapi::Error) -> bool {
    is(error, Code::Failure)
}

fn is(error: &tss_esapi::Error, wanted: Code) -> bool {
    matches!(error, tss_esapi::Error::Tss2Error(code) if code.kind() == Some(wanted))
}
