//! The console: web pages for the people who run the authority.
//!
//! Whoever has a certificate of the profile `admin` or `viewer`, issued here and not revoked, gets in; that is
//! looked up for each request, so that a revocation ends an open connection's rights, too. A browser
//! shows its certificate with every request, whichever page makes it send one. So every change takes, besides,
//! a page's form token, bound to the certificate, and an `Origin` that is the console's own; and a
//! `Host` that is not one of the console's names is refused, whatever is asked for: a name that somebody
//! else's DNS has pointed here makes their page no page of ours.
//!
//! The pages are HTML without scripts. All that is not ours in them (names in certificates are what somebody
//! else chose) goes through `maud`, which escapes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use axum::{Router, http::header};
use enclasp_keystore::Keystore;

use self::problem::Problem;
use crate::own_certificate::names;
use crate::{Authority, Error, Result};

mod admission;
mod audit;
mod certificates;
mod overview;
mod page;
mod problem;
mod revocation;
mod tokens;
mod waiting;

/// The longest form, in bytes.
const MAX_FORM: usize = 64 * 1024;

/// What the pages are made of.
struct Console {
    authority: Authority,
    keystore: Arc<dyn Keystore>,
    /// What the console may be called: lower-case hosts, IPv6 addresses without brackets.
    hosts: Vec<String>,
    /// Makes form tokens. It lives as long as this process: older pages have to be loaded again.
    forms: hmac::Key,
    /// When somebody was here last, by the serial number of the certificate and whether it let them in.
    seen: Mutex<HashMap<(String, bool), Instant>>,
}

/// The routes of the console.
///
/// # Errors
/// [`Error::Random`].
pub(crate) fn router(authority: Authority, keystore: Arc<dyn Keystore>) -> Result<Router> {
    let hosts = names(&authority.config().url)?;
    let hosts = hosts.iter().map(|name| name.to_string().split_once(':').map(|(_, host)| host.to_owned()));
    let console = Arc::new(Console {
        hosts: hosts.flatten().chain(admission::LOOPBACK.map(str::to_owned)).collect(),
        forms: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| Error::Random)?,
        seen: Mutex::default(),
        authority,
        keystore,
    });
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/devices", get(certificates::list))
        .route("/certificates/{serial}", get(certificates::show))
        .route("/certificates/{serial}/revoke", get(revocation::ask).post(revocation::revoke))
        .route("/waiting", get(waiting::list))
        .route("/waiting/{id}/{decision}", get(waiting::ask).post(waiting::decide))
        .route("/tokens/new", get(tokens::ask).post(tokens::make))
        .route("/audit", get(audit::list))
        .fallback(|| async { Problem::no_page() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This page does not take such requests.")
        })
        .layer(from_fn_with_state(console.clone(), admission::admit))
        .route("/style.css", get(style))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn_with_state(console.clone(), admission::guard))
        .layer(from_fn(page::harden))
        .with_state(console);
    Ok(pages)
}

async fn style() -> ([(header::HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("console/style.css"))
}
