//! Revoking a certificate.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{Html, Redirect};
use enclasp_pki::RevocationReason;
use maud::html;
use serde::Deserialize;

use super::Console;
use super::admission::{Change, Operator};
use super::certificates::{find, name_of};
use super::page::{Part, form_token, moment, page};
use super::problem::Problem;
use crate::Record;

/// What stands in the form.
#[derive(Debug, Deserialize)]
pub(super) struct Revocation {
    reason: String,
    /// [`ALL`], or only this one.
    which: String,
}

/// All valid certificates of the subject.
const ALL: &str = "all";

/// `GET /certificates/{serial}/revoke`.
pub(super) async fn ask(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
    Path(serial): Path<String>,
) -> Result<Html<String>, Problem> {
    operator.must_be_admin()?;
    let record = find_good(&console, &serial).await?;
    let back = format!("/certificates/{}", record.serial);
    let body = html! {
        p { a href=(back) { (name_of(&record)) } }
        h1 { "Revoke this certificate?" }
        p {
            "Whoever asks for its CRL or its OCSP answer learns that it is not good any more, within seconds. "
            strong { "There is no way back." }
        }
        @if record.serial == operator.record.serial {
            p.warning { "It is your own: with this you lock yourself out of the console." }
        }
        dl {
            dt { "Subject" }
            dd { (name_of(&record)) }
            dt { "Serial number" }
            dd { code { (record.serial) } }
            dt { "Valid until" }
            dd { (moment(record.not_after, SystemTime::now())) }
        }
        form method="post" {
            (form_token(&operator))
            fieldset {
                legend { "Which" }
                div.check {
                    input #one type="radio" name="which" value="this" checked;
                    label for="one" { "This certificate" }
                }
                @if !record.subject.is_empty() {
                    div.check {
                        input #all type="radio" name="which" value=(ALL);
                        label for="all" { "Every valid certificate of " (record.subject) ", this one included" }
                    }
                }
            }
            div {
                label for="reason" { "Reason (RFC 5280)" }
                select #reason name="reason" {
                    @for reason in RevocationReason::ALL {
                        option value=(reason) { (in_words(reason)) }
                    }
                }
            }
            p.actions {
                button.danger type="submit" { "Revoke" }
                a href=(back) { "Leave it as it is" }
            }
        }
    };
    Ok(page(&operator, Part::Devices, "Revoke a certificate", &body))
}

/// `POST /certificates/{serial}/revoke`.
pub(super) async fn revoke(
    State(console): State<Arc<Console>>,
    Path(serial): Path<String>,
    Change { operator, form }: Change<Revocation>,
) -> Result<Redirect, Problem> {
    let record = find_good(&console, &serial).await?;
    let reason: RevocationReason = form.reason.parse().map_err(crate::Error::from)?;
    if form.which == ALL && !record.subject.is_empty() {
        operator.authority.revoke(&record.subject, reason).await?;
    }
    // The other way does not find one that has ended.
    operator.authority.revoke(&record.serial, reason).await?;
    Ok(Redirect::to(&format!("/certificates/{}?done=revoked", record.serial)))
}

async fn find_good(console: &Console, serial: &str) -> Result<Record, Problem> {
    let record = find(console, serial).await?;
    if record.revoked.is_some() {
        return Err(Problem::new(StatusCode::CONFLICT, "The certificate is revoked already."));
    }
    Ok(record)
}

fn in_words(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "keyCompromise: somebody else may have the key",
        RevocationReason::AffiliationChanged => "affiliationChanged: a name in it has changed",
        RevocationReason::Superseded => "superseded: another certificate takes its place",
        RevocationReason::CessationOfOperation => "cessationOfOperation: what it was for is no more",
        RevocationReason::PrivilegeWithdrawn => "privilegeWithdrawn: its holder may not do this any more",
    }
}
