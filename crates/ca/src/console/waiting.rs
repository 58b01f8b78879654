//! What waits for a person: devices whose profile demands it, replicas that want to join.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, Redirect};
use maud::{Markup, html};
use serde::Deserialize;

use super::Console;
use super::admission::{Change, Operator, Role};
use super::certificates::Done;
use super::page::{self, Part, form_token, moment, page};
use super::problem::Problem;
use crate::{Waiting, WaitsFor};

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Approve,
    Deny,
}

impl Decision {
    /// As it stands in the address.
    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "approve" => Ok(Self::Approve),
            "deny" => Ok(Self::Deny),
            _ => Err(Problem::no_page()),
        }
    }
}

/// The form has nothing but its token.
#[derive(Debug, Deserialize)]
pub(super) struct Nothing {}

/// `GET /waiting`.
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
    Query(Done { done }): Query<Done>,
) -> Result<Html<String>, Problem> {
    let (waiting, now) = (console.authority.waiting().await?, SystemTime::now());
    let body = html! {
        h1 { "Waiting for a person" }
        @match done.as_str() {
            "approved" => { (page::done("Approved: it gets its certificate when it asks again.")) }
            "denied" => { (page::done("Turned away.")) }
            _ => {}
        }
        @if waiting.is_empty() {
            p.empty { "Nothing waits." }
        } @else {
            (table(&waiting, &operator, now))
        }
    };
    Ok(page(&operator, Part::Waiting, "Waiting for a person", &body))
}

fn table(waiting: &[Waiting], operator: &Operator, now: SystemTime) -> Markup {
    let is_admin = operator.role == Role::Admin;
    html! {
        table {
            caption { "Those that asked first come first" }
            thead {
                tr {
                    th scope="col" { "Name" }
                    th.wide scope="col" { "Wants" }
                    th.wide scope="col" { "Asked" }
                    @if is_admin { th scope="col" { "Decide" } }
                }
            }
            tbody {
                @for one in waiting {
                    tr {
                        th scope="row" {
                            (one.subject)
                            span.names { "key " code { (one.key_sha256) } }
                        }
                        td.wide { (wants(one)) }
                        td.wide { (moment(one.asked, now)) }
                        @if is_admin {
                            td.actions {
                                a href={ "/waiting/" (one.id) "/approve" } aria-label={ "Approve " (one.subject) } { "Approve…" }
                                " "
                                a href={ "/waiting/" (one.id) "/deny" } aria-label={ "Deny " (one.subject) } { "Deny…" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn wants(waiting: &Waiting) -> String {
    match &waiting.wants {
        WaitsFor::Certificate { profile, .. } => format!("a certificate of the profile {profile}"),
        WaitsFor::Admission => "to join as a replica".into(),
    }
}

/// `GET /waiting/{id}/{decision}`.
pub(super) async fn ask(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
    Path((id, decision)): Path<(String, String)>,
) -> Result<Html<String>, Problem> {
    let decision = Decision::parse(&decision)?;
    operator.must_be_admin()?;
    let waiting = console.authority.waiting().await?.into_iter().find(|one| one.id == id);
    let waiting = waiting.ok_or_else(gone)?;
    let title = match decision {
        Decision::Approve => "Approve this request?",
        Decision::Deny => "Deny this request?",
    };
    let body = html! {
        p { a href="/waiting" { "Waiting" } }
        h1 { (title) }
        @match (decision, &waiting.wants) {
            (Decision::Approve, WaitsFor::Certificate { .. }) => p {
                "Compare the key with what the device shows. It gets its certificate when it asks again."
            },
            (Decision::Approve, WaitsFor::Admission) => p {
                "Compare the key with what the replica shows. It gets an issuing certificate, signed with the \
                 root's key, and can then certify whatever it wants."
            },
            (Decision::Deny, WaitsFor::Certificate { .. }) => p { "A denial is for good: the token is of no use any more." },
            (Decision::Deny, WaitsFor::Admission) => p { "The replica has to ask again with another key." },
        }
        dl {
            dt { "Subject" }
            dd { (waiting.subject) }
            dt { "Wants" }
            dd { (wants(&waiting)) }
            @if let WaitsFor::Certificate { subject_alt_names, .. } = &waiting.wants {
                dt { "Alternative names" }
                dd {
                    @if subject_alt_names.is_empty() { "none" } @else {
                        ul { @for name in subject_alt_names { li { (name) } } }
                    }
                }
            }
            dt { "SHA-256 of its key" }
            dd { code { (waiting.key_sha256) } }
            dt { "Asked" }
            dd { (moment(waiting.asked, SystemTime::now())) }
        }
        form method="post" {
            (form_token(&operator))
            p.actions {
                @match decision {
                    Decision::Approve => button type="submit" { "Approve" },
                    Decision::Deny => button.danger type="submit" { "Deny" },
                }
                a href="/waiting" { "Let it wait" }
            }
        }
    };
    Ok(page(&operator, Part::Waiting, title, &body))
}

/// `POST /waiting/{id}/{decision}`.
pub(super) async fn decide(
    State(console): State<Arc<Console>>,
    Path((id, decision)): Path<(String, String)>,
    Change { operator, form: Nothing {} }: Change<Nothing>,
) -> Result<Redirect, Problem> {
    match Decision::parse(&decision)? {
        Decision::Approve => {
            operator.authority.approve(console.keystore.clone(), &id).await?;
            Ok(Redirect::to("/waiting?done=approved"))
        }
        Decision::Deny => {
            operator.authority.deny(&id).await?;
            Ok(Redirect::to("/waiting?done=denied"))
        }
    }
}

fn gone() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "That does not wait: it may be decided already, or its token has ended.",
    )
}
