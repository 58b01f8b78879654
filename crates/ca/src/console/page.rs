//! What all pages have in common.

use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use enclasp_enroll::duration::in_words;
use enclasp_pki::rfc3339;
use maud::{DOCTYPE, Markup, html};

use super::admission::{FORM_TOKEN, Operator};
use super::problem::Problem;

/// How long a page may take, the time to send its form included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many characters of what somebody searches for count.
pub(super) const MAX_TEXT: usize = 200;

/// What goes with every answer. Forms tell where they come from (`same-origin`) because that is checked; with
/// `no-referrer` browsers send an `Origin` of `null`.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Bounds the time of a request, and adds what browsers are told to every answer.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "That took too long.").into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The parts of the console that its navigation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Overview,
    Devices,
    Waiting,
    Token,
    Audit,
}

impl Part {
    const ALL: [Self; 5] = [Self::Overview, Self::Devices, Self::Waiting, Self::Token, Self::Audit];

    fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Devices => "Devices",
            Self::Waiting => "Waiting",
            Self::Token => "New token",
            Self::Audit => "Audit log",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Devices => "/devices",
            Self::Waiting => "/waiting",
            Self::Token => "/tokens/new",
            Self::Audit => "/audit",
        }
    }
}

/// A page for somebody who is let in.
pub(super) fn page(operator: &Operator, part: Part, title: &str, body: &Markup) -> Html<String> {
    let who = html! {
        p.who {
            span.label { (operator.role.name()) }
            " " (operator.record.subject)
        }
    };
    let title = format!("{title} · {}", operator.authority.config().name);
    Html(document(&title, Some(part), true, &who, body).into_string())
}

/// A page that says no more than what is wrong.
pub(super) fn bare(title: &str, outside: bool, body: &Markup) -> Html<String> {
    Html(document(title, None, !outside, &html! {}, body).into_string())
}

fn document(title: &str, part: Option<Part>, inside: bool, who: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Enclasp" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    p.brand { "Enclasp" }
                    @if inside {
                        nav aria-label="Parts of the console" {
                            ul {
                                @for one in Part::ALL {
                                    li { a href=(one.path()) aria-current=[(part == Some(one)).then_some("page")] { (one.name()) } }
                                }
                            }
                        }
                    }
                    (who)
                }
                main #content tabindex="-1" { (body) }
            }
        }
    }
}

/// That something was done, where a page follows on a form.
pub(super) fn done(what: &str) -> Markup {
    html! { p.done role="status" { (what) } }
}

/// The hidden field that makes a form one of ours.
pub(super) fn form_token(operator: &Operator) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN) value=(operator.form_token); }
}

/// A moment in UTC, and how far from `now` it is.
pub(super) fn moment(time: SystemTime, now: SystemTime) -> Markup {
    let text = rfc3339(time);
    let distance = match time.duration_since(now) {
        Ok(left) => format!("in {}", in_words(left)),
        Err(e) => format!("{} ago", in_words(e.duration())),
    };
    html! {
        time datetime=(text) { (text.get(..16).unwrap_or(&text).replace('T', " ")) " UTC" }
        " " span.aside { (distance) }
    }
}

/// A line of an error as a sentence.
pub(super) fn sentence(line: &str) -> String {
    let mut letters = line.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
