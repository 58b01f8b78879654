//! How the authority is: numbers, the issuance of the last days, and what it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Extension, State};
use axum::response::Html;
use enclasp_pki::rfc3339;
use maud::{Markup, html};

use super::Console;
use super::admission::Operator;
use super::page::{Part, moment, page};
use super::problem::Problem;
use crate::store::{DAYS, MANY, Search, State as CertificateState};

/// `GET /`.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Extension(operator): Extension<Operator>,
) -> Result<Html<String>, Problem> {
    let (authority, now) = (&console.authority, SystemTime::now());
    let waiting = authority.waiting().await?.len();
    let mut counts = Vec::new();
    for state in [CertificateState::Valid, CertificateState::Expiring, CertificateState::Revoked] {
        let search = Search { text: String::new(), profile: None, state: Some(state), replaced: false, now };
        counts.push((state.name(), authority.store().count_found(&search).await?));
    }
    let days = authority.store().issued_by_day(now).await?;
    let config = authority.config();
    let body = html! {
        h1 { (config.name) }
        ul.tiles {
            @for (state, count) in counts {
                li { a href={ "/devices?state=" (state) } { strong { (at_most(count)) } " " (state) } }
            }
            li { a href="/waiting" { strong { (waiting) } " waiting" } }
        }
        (chart(&days, now))
        h2 { "This authority" }
        dl {
            dt { "URL" }
            dd { (config.url) }
            dt { "Issuing certificate" }
            dd { (authority.issuing().name()) ", until " (moment(authority.issuing().not_after(), now)) }
            dt { "Root certificate" }
            dd { (authority.root().name()) ", until " (moment(authority.root().not_after(), now)) }
            dt { "SHA-256 of the root" }
            dd { code { (authority.root().fingerprint_hex()) } }
        }
    };
    Ok(page(&operator, Part::Overview, "Overview", &body))
}

fn at_most(count: i64) -> String {
    if count > MANY { format!("more than {MANY}") } else { count.to_string() }
}

/// Issuance by day. The axes' texts are HTML around the drawing, so that they keep their size whatever its width.
fn chart(days: &[u64], now: SystemTime) -> Markup {
    const BAR: usize = 10;
    const HEIGHT: u64 = 100;
    let most = days.iter().copied().max().unwrap_or_default();
    let total: u64 = days.iter().sum();
    let day = |index: usize| {
        let back = Duration::from_secs(86_400 * (days.len() - 1 - index) as u64);
        let date = rfc3339(now.checked_sub(back).unwrap_or(SystemTime::UNIX_EPOCH));
        date.get(..10).unwrap_or(&date).to_owned()
    };
    let description = format!("{total} certificates in {DAYS} days, on one day {most} at most");
    html! {
        figure {
            figcaption { h2 { "Certificates issued a day" } p.hint { (description) ". Days are in UTC." } }
            @if total > 0 {
                svg viewBox={ "0 0 " (days.len() * BAR) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(description) {
                    @for (index, count) in days.iter().enumerate() {
                        // A day with few beside a day with many still shows.
                        @let height = if *count == 0 { 0 } else { (count * HEIGHT).div_ceil(most).max(2) };
                        rect x=(index * BAR + 1) y=(HEIGHT - height) width=(BAR - 2) height=(height) {
                            title { (day(index)) ": " (count) }
                        }
                    }
                }
                p.axis aria-hidden="true" {
                    span { (day(0)) } span { (day(days.len() / 2)) } span { (day(days.len() - 1)) }
                }
                details {
                    summary { "The same as a table" }
                    table {
                        thead { tr { th scope="col" { "Day" } th scope="col" { "Certificates" } } }
                        tbody {
                            @for (index, count) in days.iter().enumerate().rev().filter(|(_, count)| **count > 0) {
                                tr { th scope="row" { (day(index)) } td { (count) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
