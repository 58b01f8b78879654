//! What somebody is told who does not get the page.

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::page;
use crate::Error;

/// A refusal or a failure, as a page.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    reason: String,
    /// Whether it is told to somebody who is not let in.
    outside: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), outside: false }
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// Nothing is at that address.
    pub(super) fn no_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is no such page.")
    }

    /// A problem of somebody who is not let in.
    pub(super) fn outside(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { outside: true, ..Self::new(status, reason) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NotIssued { .. } | Error::NotWaiting { .. } => StatusCode::NOT_FOUND,
            Error::Setting { .. }
            | Error::NoProfile { .. }
            | Error::NotAllowed { .. }
            | Error::Pki(enclasp_pki::Error::Name { .. }) => StatusCode::BAD_REQUEST,
            Error::NoRootKey => StatusCode::CONFLICT,
            _ => {
                tracing::error!(%error, "a page of the console failed");
                let reason = "The authority cannot do this now, and its log says why.";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, reason);
            }
        };
        Self::new(status, page::sentence(&error.to_string()))
    }
}

impl From<FormRejection> for Problem {
    fn from(rejection: FormRejection) -> Self {
        Self::new(rejection.status(), "The form lacks a field, or is too long.")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "The address of this page is not one that a page here links to.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = match self.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::CONFLICT => "Not possible",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::SERVICE_UNAVAILABLE => "Not now",
            StatusCode::REQUEST_TIMEOUT => "Too slow",
            StatusCode::MISDIRECTED_REQUEST => "Wrong address",
            _ => "Not understood",
        };
        tracing::info!(status = self.status.as_u16(), reason = %self.reason, "refused at the console");
        let body = html! {
            h1 { (title) }
            p { (self.reason) }
            @if !self.outside {
                p { a href="/" { "To the overview" } }
            }
        };
        (self.status, page::bare(title, self.outside, &body)).into_response()
    }
}
