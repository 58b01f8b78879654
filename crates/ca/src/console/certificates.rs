//! The list of devices and identities, and what is known of one certificate.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use enclasp_pki::{Certificate, hex, sha256};
use form_urlencoded::Serializer;
use maud::{Markup, html};
use serde::Deserialize;

use super::Console;
use super::admission::{Operator, Role};
use super::page::{self, MAX_TEXT, Part, moment, page};
use super::problem::Problem;
use crate::store::{Place, Search, State as CertificateState};
use crate::{IssuedBy, Record};

/// How many there are on a page.
const PAGE: usize = 50;

/// A list, as its address says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    text: String,
    profile: String,
    state: String,
    replaced: String,
    /// Where the page before ended.
    at: Option<i64>,
    serial: String,
}

/// `GET /devices`.
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Html<String>, Problem> {
    let Query(wanted) = wanted?;
    let now = SystemTime::now();
    let search = wanted.search(now);
    let after = wanted.at.map(|at| Place { at, serial: wanted.serial.clone() });
    let mut records = console.authority.store().search(&search, after.as_ref(), PAGE + 1).await?;
    let more = records.len() > PAGE;
    records.truncate(PAGE);
    let next = records.last().filter(|_| more).map(|last| wanted.link(Some(&search.place_of(last))));
    let body = html! {
        h1 { "Devices and identities" }
        (wanted.form(console.authority.config().profile_names(), &search))
        @if records.is_empty() {
            p.empty { (nothing(&wanted, after.is_some())) }
        } @else {
            (table(&records, now, caption(&search)))
        }
        @if after.is_some() || next.is_some() {
            nav.pages aria-label="Pages" {
                @if after.is_some() { a href=(wanted.link(None)) rel="first" { "First page" } }
                @if let Some(next) = &next { a href=(next) rel="next" { "Next page" } }
            }
        }
    };
    Ok(page(&operator, Part::Devices, "Devices and identities", &body))
}

impl Wanted {
    fn search(&self, now: SystemTime) -> Search {
        Search {
            text: self.text.trim().chars().take(MAX_TEXT).collect(),
            profile: Some(self.profile.clone()).filter(|profile| !profile.is_empty()),
            state: CertificateState::ALL.into_iter().find(|state| state.name() == self.state),
            replaced: !self.replaced.is_empty(),
            now,
        }
    }

    /// The address of the page of this list that follows on `place`.
    fn link(&self, place: Option<&Place>) -> String {
        let mut query = Serializer::new(String::new());
        let fields = [
            ("text", &self.text),
            ("profile", &self.profile),
            ("state", &self.state),
            ("replaced", &self.replaced),
        ];
        query.extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty()));
        if let Some(place) = place {
            query.append_pair("at", &place.at.to_string()).append_pair("serial", &place.serial);
        }
        format!("/devices?{}", query.finish())
    }

    fn form<'a>(&self, profiles: impl Iterator<Item = &'a str>, search: &Search) -> Markup {
        html! {
            form.search method="get" action="/devices" role="search" {
                div {
                    label for="text" { "Name or serial number" }
                    input #text type="search" name="text" value=(search.text) maxlength=(MAX_TEXT);
                }
                div {
                    label for="state" { "State" }
                    select #state name="state" {
                        option value="" { "any" }
                        @for state in CertificateState::ALL {
                            option value=(state.name()) selected[search.state == Some(state)] { (state.name()) }
                        }
                    }
                }
                div {
                    label for="profile" { "Profile" }
                    select #profile name="profile" {
                        option value="" { "any" }
                        @for profile in profiles {
                            option value=(profile) selected[self.profile == profile] { (profile) }
                        }
                    }
                }
                div.check {
                    input #replaced type="checkbox" name="replaced" value="1" checked[search.replaced];
                    label for="replaced" { "with those that were replaced" }
                }
                button type="submit" { "Search" }
            }
        }
    }
}

fn caption(search: &Search) -> &'static str {
    match search.state {
        Some(CertificateState::Expiring) => "Those that end first come first",
        Some(CertificateState::Expired) => "Those that ended last come first",
        _ => "Those that were issued last come first",
    }
}

fn nothing(wanted: &Wanted, is_later_page: bool) -> &'static str {
    if is_later_page {
        "That was the last page."
    } else if wanted.text.is_empty() && wanted.profile.is_empty() && wanted.state.is_empty() {
        "No certificate was issued yet."
    } else {
        "Nothing fits this search."
    }
}

fn table(records: &[Record], now: SystemTime, caption: &str) -> Markup {
    html! {
        table {
            caption { (caption) }
            thead {
                tr {
                    th scope="col" { "Name" }
                    th.wide scope="col" { "Profile" }
                    th scope="col" { "State" }
                    th scope="col" { "Ends" }
                }
            }
            tbody {
                @for record in records {
                    tr {
                        th scope="row" {
                            a href={ "/certificates/" (record.serial) } { (name_of(record)) }
                            @if !record.subject_alt_names.is_empty() {
                                span.names { (some_names(record)) }
                            }
                        }
                        td.wide { (record.profile) }
                        td { (badge(CertificateState::of(record, now))) }
                        td { (moment(record.not_after, now)) }
                    }
                }
            }
        }
    }
}

/// What a person calls it: the subject, else an alternative name, else the serial number.
pub(super) fn name_of(record: &Record) -> String {
    if !record.subject.is_empty() {
        return record.subject.clone();
    }
    record.subject_alt_names.first().map_or_else(|| record.serial.clone(), ToString::to_string)
}

fn some_names(record: &Record) -> String {
    const SHOWN: usize = 3;
    let names = &record.subject_alt_names;
    let mut text = names.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

fn badge(state: CertificateState) -> Markup {
    html! { span class={ "badge " (state.name()) } { (state.name()) } }
}

/// What was done just before, as the address says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) done: String,
}

/// `GET /certificates/{serial}`.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
    Path(serial): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Html<String>, Problem> {
    let record = find(&console, &serial).await?;
    let certificate = record.certificate()?;
    let issuers = console.authority.store().issuers().await?;
    let issuer = issuers.iter().find(|issuer| issuer.fingerprint_hex() == record.issuer);
    let now = SystemTime::now();
    let body = html! {
        p { a href="/devices" { "Devices" } }
        h1 { (name_of(&record)) }
        @if done == "revoked" { (page::done("The certificate is revoked.")) }
        p { (badge(CertificateState::of(&record, now))) }
        @if operator.role == Role::Admin && record.revoked.is_none() {
            p { a.button.danger href={ "/certificates/" (record.serial) "/revoke" } { "Revoke…" } }
        }
        (facts(&record, &certificate, issuer, now))
        details {
            summary { "The certificate in PEM" }
            pre tabindex="0" { (certificate.to_pem()) }
        }
    };
    Ok(page(&operator, Part::Devices, &name_of(&record), &body))
}

/// The certificate of that serial number.
pub(super) async fn find(console: &Console, serial: &str) -> Result<Record, Problem> {
    let found = console.authority.store().certificate(serial).await?;
    found.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "This authority issued no certificate of that serial number.")
    })
}

fn facts(
    record: &Record,
    certificate: &Certificate,
    issuer: Option<&Certificate>,
    now: SystemTime,
) -> Markup {
    let key = certificate.algorithm().map_or_else(|_| "of an unknown type".to_owned(), |a| a.to_string());
    let how = match record.issued_by {
        IssuedBy::Token => "with a one-time token",
        IssuedBy::Renewal => "as the renewal of another certificate",
        IssuedBy::Hand => "by hand",
        IssuedBy::Server => "for the authority's own use",
        IssuedBy::Bisect => "to compare another certificate's key with one in software",
    };
    html! {
        dl {
            dt { "Subject" }
            dd { @if record.subject.is_empty() { "none" } @else { (record.subject) } }
            dt { "Alternative names" }
            dd {
                @if record.subject_alt_names.is_empty() { "none" } @else {
                    ul { @for name in &record.subject_alt_names { li { (name) } } }
                }
            }
            dt { "Profile" }
            dd { (record.profile) }
            dt { "Good for" }
            dd { (certificate.extended_key_usages().join(", ")) }
            dt { "Valid from" }
            dd { (moment(record.not_before, now)) }
            dt { "Valid until" }
            dd { (moment(record.not_after, now)) }
            @if let Some(revoked) = &record.revoked {
                dt { "Revoked" }
                dd { (moment(revoked.at, now)) ", " (revoked.reason) }
            }
            dt { "Issued" }
            dd { (moment(record.issued_at, now)) ", " (how) }
            dt { "Issuer" }
            dd { (issuer.map_or_else(|| certificate.issuer().to_string(), Certificate::name)) }
            dt { "Serial number" }
            dd { code { (record.serial) } }
            dt { "Key" }
            dd { (key) ", SHA-256 of its SubjectPublicKeyInfo " code { (hex(&sha256(certificate.spki()))) } }
            dt { "Attestation" }
            dd { "None: nothing was shown that says where the private key is." }
            dt { "SHA-256" }
            dd { code { (certificate.fingerprint_hex()) } }
        }
    }
}
