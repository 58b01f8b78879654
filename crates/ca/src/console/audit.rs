//! The audit log, the latest record first.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::Html;
use form_urlencoded::Serializer;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Console;
use super::admission::Operator;
use super::page::{MAX_TEXT, Part, page};
use super::problem::Problem;
use crate::store::AuditRecord;

/// How many records there are on a page.
const PAGE: usize = 50;

/// A part of the log, as its address says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// Whose log.
    chain: String,
    text: String,
    /// Where the page before ended.
    before: Option<i64>,
}

/// `GET /audit`.
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Html<String>, Problem> {
    let Query(mut wanted) = wanted?;
    let store = console.authority.store();
    let chains: Vec<_> = store.chain_ends().await?.into_iter().map(|end| end.chain).collect();
    if wanted.chain.is_empty() {
        wanted.chain = console.authority.issuing().fingerprint_hex();
    }
    wanted.text = wanted.text.trim().chars().take(MAX_TEXT).collect();
    let before = wanted.before.unwrap_or(i64::MAX);
    let mut records = store.search_audit(&wanted.chain, &wanted.text, before, PAGE + 1).await?;
    let more = records.len() > PAGE;
    records.truncate(PAGE);
    let next = records.last().filter(|_| more).map(|last| wanted.link(Some(last.position)));
    let body = html! {
        h1 { "Audit log" }
        (wanted.form(&chains))
        @if records.is_empty() {
            p.empty { "There is no such record." }
        } @else {
            (table(&records))
        }
        @if wanted.before.is_some() || next.is_some() {
            nav.pages aria-label="Pages" {
                @if wanted.before.is_some() { a href=(wanted.link(None)) rel="first" { "First page" } }
                @if let Some(next) = &next { a href=(next) rel="next" { "Next page" } }
            }
        }
        p.hint { "Whether nobody changed it is checked by " code { "enclasp ca audit verify" } "." }
    };
    Ok(page(&operator, Part::Audit, "Audit log", &body))
}

impl Wanted {
    /// The address of the page of this list that follows on the position `before`.
    fn link(&self, before: Option<i64>) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("chain", &self.chain);
        if !self.text.is_empty() {
            query.append_pair("text", &self.text);
        }
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        format!("/audit?{}", query.finish())
    }

    fn form(&self, chains: &[String]) -> Markup {
        html! {
            form.search method="get" action="/audit" role="search" {
                div {
                    label for="text" { "Text in a record" }
                    input #text type="search" name="text" value=(self.text) maxlength=(MAX_TEXT);
                }
                @if chains.len() > 1 {
                    div {
                        label for="chain" { "Replica" }
                        select #chain name="chain" {
                            @for chain in chains {
                                option value=(chain) selected[*chain == self.chain] { (chain.get(..16).unwrap_or(chain)) }
                            }
                        }
                    }
                }
                button type="submit" { "Search" }
            }
        }
    }
}

fn table(records: &[AuditRecord]) -> Markup {
    html! {
        table.audit {
            caption { "The latest record comes first" }
            thead {
                tr {
                    th.wide scope="col" { "Number" }
                    th scope="col" { "When" }
                    th scope="col" { "What" }
                }
            }
            tbody {
                @for record in records {
                    @let event: Map<String, Value> = serde_json::from_str(&record.event).unwrap_or_default();
                    @let of = |field: &str| event.get(field).map(shown).unwrap_or_default();
                    @let at = of("at");
                    tr {
                        td.wide { (record.position) }
                        td { time datetime=(at) { (at.replace('T', " ").replace('Z', " UTC")) } }
                        th scope="row" {
                            (of("event"))
                            @if event.contains_key("by") { span.by { " by " (of("by")) } }
                            ul.facts {
                                @for (field, value) in event.iter().filter(|(field, _)| !["event", "at", "by"].contains(&field.as_str())) {
                                    li {
                                        span.field { (field.replace('_', " ")) ": " }
                                        @if field == "serial" {
                                            a href={ "/certificates/" (shown(value)) } { (shown(value)) }
                                        } @else {
                                            (shown(value))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A value of a record as people read it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".into(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
