//! What a device is told when it does not get what it asked for.

use crate::Error;

/// Why a device does not get what it asked for. The text is one line for the device.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The request itself is wrong, whoever sends it: 400.
    BadRequest(String),
    /// The token does not pay for this: 401.
    Unauthorized(String),
    /// The names are not for this client: 403.
    Forbidden(String),
    /// There is nothing of that name: 404.
    NotFound(String),
    /// A person has to approve first: 202.
    Waiting(String),
    /// Too many others are here: 429.
    Busy,
    /// The request is too long: 413.
    TooLarge,
    /// The body says that it is something else than a request: 415.
    MediaType(String),
    /// The authority failed; the details are for its log: 503.
    Internal(Error),
}

impl Refusal {
    /// What the metrics call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not-found",
            Self::Waiting(_) => "waiting",
            Self::Busy => "busy",
            Self::TooLarge => "too-large",
            Self::MediaType(_) => "media-type",
            Self::Internal(_) => "internal",
        }
    }

    /// What the audit log says of it; nothing of a failure, which the device did not bring about.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::BadRequest(text)
            | Self::Unauthorized(text)
            | Self::Forbidden(text)
            | Self::MediaType(text) => Some(text),
            Self::NotFound(_) | Self::Waiting(_) | Self::Busy | Self::TooLarge | Self::Internal(_) => None,
        }
    }
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}
