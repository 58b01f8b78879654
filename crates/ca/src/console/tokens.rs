//! Making tokens.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use enclasp_enroll::duration;
use enclasp_pki::rfc3339;
use maud::{Markup, html};
use serde::Deserialize;

use super::Console;
use super::admission::{Change, Operator};
use super::page::{Part, form_token, page, sentence};
use super::problem::Problem;
use crate::{Error, TokenRequest};

/// The form, as it was filled in.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Filled {
    common_name: String,
    /// One a line.
    names: String,
    profile: String,
    lifetime: String,
    /// Whether what is asked for was shown once more: [`CONFIRMED`].
    confirmed: String,
}

const CONFIRMED: &str = "yes";

impl Default for Filled {
    fn default() -> Self {
        Self {
            common_name: String::new(),
            names: String::new(),
            profile: "client".into(),
            lifetime: "10m".into(),
            confirmed: String::new(),
        }
    }
}

/// A field that is not right.
struct Fault {
    field: &'static str,
    reason: String,
}

/// `GET /tokens/new`.
pub(super) async fn ask(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
) -> Result<Html<String>, Problem> {
    operator.must_be_admin()?;
    Ok(form(&console, &operator, &Filled::default(), None))
}

/// `POST /tokens/new`: what is asked for once more, or the token.
pub(super) async fn make(
    State(console): State<Arc<Console>>,
    Change { operator, form: filled }: Change<Filled>,
) -> Result<Response, Problem> {
    let request = match filled.request(&console) {
        Ok(request) => request,
        Err(fault) => {
            let page = form(&console, &operator, &filled, Some(&fault));
            return Ok((StatusCode::BAD_REQUEST, page).into_response());
        }
    };
    if filled.confirmed != CONFIRMED {
        return Ok(confirmation(&operator, &filled, &request).into_response());
    }
    let token = operator.authority.token(request).await?;
    let line = token.to_line().map_err(Error::from)?;
    let body = html! {
        h1 { "A token for " (token.contents().common_name) }
        p {
            "It is shown this once, and good once, until "
            time { (rfc3339(token.contents().expires)) }
            ". Whoever has it first, has the certificate: bring it to its device by a way that nobody else reads."
        }
        pre.secret tabindex="0" aria-label="The token" { (*line) }
        p { "On the device, with the token in a file:" }
        pre tabindex="0" { "enclasp enroll --token-file token --identity NAME" }
        p { a href="/tokens/new" { "Another token" } }
    };
    Ok(page(&operator, Part::Token, "A token", &body).into_response())
}

impl Filled {
    fn request(&self, console: &Console) -> Result<TokenRequest, Fault> {
        let fault = |field, reason: &dyn ToString| Fault { field, reason: sentence(&reason.to_string()) };
        let names = self.names.lines().map(str::trim).filter(|line| !line.is_empty());
        let names = names.map(str::parse).collect::<Result<_, _>>();
        let request = TokenRequest {
            common_name: self.common_name.trim().to_owned(),
            subject_alt_names: names.map_err(|e: enclasp_pki::Error| fault("names", &e))?,
            profile: self.profile.clone(),
            lifetime: duration::parse(self.lifetime.trim()).map_err(|e| fault("lifetime", &e))?,
        };
        console.authority.check_token(&request).map_err(|e| match &e {
            Error::Setting { .. } => fault("lifetime", &e),
            Error::NoProfile { .. } => fault("profile", &e),
            Error::NotAllowed { .. } => fault("names", &e),
            _ => fault("common_name", &e),
        })?;
        Ok(request)
    }
}

fn form(console: &Console, operator: &Operator, filled: &Filled, fault: Option<&Fault>) -> Html<String> {
    let is_faulty = |field: &str| fault.is_some_and(|fault| fault.field == field);
    let invalid = |field: &str| is_faulty(field).then_some("true");
    // What a screen reader reads with a field: its hint, and what is wrong with it.
    let described = |field: &str, hint: &'static str| {
        let error = if is_faulty(field) { format!("{field}-error") } else { String::new() };
        Some(format!("{hint} {error}").trim().to_owned()).filter(|ids| !ids.is_empty())
    };
    let error = |field: &str| -> Markup {
        html! {
            @if let Some(fault) = fault.filter(|fault| fault.field == field) {
                p.error id={ (field) "-error" } { (fault.reason) }
            }
        }
    };
    let body = html! {
        h1 { "New token" }
        p { "With a token, one key gets one certificate for these names." }
        @if fault.is_some() {
            p.warning role="alert" { "No token was made: something in the form is not right." }
        }
        form method="post" {
            (form_token(operator))
            div {
                label for="common_name" { "Common name" }
                input #common_name type="text" name="common_name" value=(filled.common_name) required maxlength="64"
                    autocomplete="off" aria-invalid=[invalid("common_name")] aria-describedby=[described("common_name", "")] autofocus[is_faulty("common_name")];
                (error("common_name"))
            }
            div {
                label for="names" { "Alternative names, one a line" }
                p.hint #names-hint { "dns:HOST, ip:ADDRESS, uri:URI, email:ADDRESS, permanentIdentifier:VALUE" }
                textarea #names name="names" rows="4" autocomplete="off" spellcheck="false"
                    aria-invalid=[invalid("names")] aria-describedby=[described("names", "names-hint")] autofocus[is_faulty("names")] {
                    "\n" (filled.names)
                }
                (error("names"))
            }
            div {
                label for="profile" { "Profile" }
                select #profile name="profile" aria-invalid=[invalid("profile")] aria-describedby=[described("profile", "")] autofocus[is_faulty("profile")] {
                    @for profile in console.authority.config().profile_names() {
                        option value=(profile) selected[filled.profile == profile] { (profile) }
                    }
                }
                (error("profile"))
            }
            div {
                label for="lifetime" { "How long the token is good" }
                p.hint #lifetime-hint { "10m, 12h, 3d; 90 days at most" }
                input #lifetime type="text" name="lifetime" value=(filled.lifetime) required autocomplete="off"
                    aria-invalid=[invalid("lifetime")] aria-describedby=[described("lifetime", "lifetime-hint")] autofocus[is_faulty("lifetime")];
                (error("lifetime"))
            }
            p.actions { button type="submit" { "Continue" } }
        }
    };
    page(operator, Part::Token, "New token", &body)
}

fn confirmation(operator: &Operator, filled: &Filled, request: &TokenRequest) -> Html<String> {
    let fields = [
        ("common_name", &filled.common_name),
        ("names", &filled.names),
        ("profile", &filled.profile),
        ("lifetime", &filled.lifetime),
    ];
    let body = html! {
        h1 { "Make this token?" }
        dl {
            dt { "Common name" }
            dd { (request.common_name) }
            dt { "Alternative names" }
            dd {
                @if request.subject_alt_names.is_empty() { "none" } @else {
                    ul { @for name in &request.subject_alt_names { li { (name) } } }
                }
            }
            dt { "Profile" }
            dd { (request.profile) }
            dt { "Good for" }
            dd { (duration::format(request.lifetime)) }
        }
        @if operator.record.profile == request.profile {
            p.warning { "Whoever gets it can do in this console what you can." }
        }
        form method="post" {
            (form_token(operator))
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            input type="hidden" name="confirmed" value=(CONFIRMED);
            p.actions {
                button type="submit" { "Make the token" }
                a href="/tokens/new" { "Begin again" }
            }
        }
    };
    page(operator, Part::Token, "Make this token?", &body)
}
