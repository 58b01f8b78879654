//! Who gets in, by which name of the console, and what makes a change one.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use axum::extract::{Extension, Form, FromRequest, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use enclasp_pki::{Certificate, hex, rfc3339};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Console;
use super::problem::Problem;
use crate::https::Peer;
use crate::profile::{ADMIN, VIEWER};
use crate::{Authority, IssuedBy, Record};

/// What a browser calls the machine that it is on: `enclasp client` listens there for it.
pub(super) const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Whoever comes back after that long has come anew, as the audit log says it.
const VISIT: Duration = Duration::from_secs(30 * 60);

/// The field of a form that has its token.
pub(super) const FORM_TOKEN: &str = "form-token";

/// Who is here.
#[derive(Clone)]
pub(super) struct Operator {
    /// The certificate that shows it, as the authority recorded it.
    pub(super) record: Arc<Record>,
    pub(super) role: Role,
    /// What the audit log calls them.
    who: String,
    /// A handle whose changes are theirs.
    pub(super) authority: Authority,
    /// What their forms have to carry.
    pub(super) form_token: String,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Everything.
    Admin,
    /// Look.
    Viewer,
}

impl Role {
    fn of(profile: &str) -> Option<Self> {
        match profile {
            ADMIN => Some(Self::Admin),
            VIEWER => Some(Self::Viewer),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Admin => ADMIN,
            Self::Viewer => VIEWER,
        }
    }
}

/// Lets nobody in who calls the console by another name than its own.
pub(super) async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let host = one(request.headers(), HOST.as_str()).and_then(host_of);
    let is_known = host.is_some_and(|host| console.hosts.contains(&host));
    // A proxy's request names a host in its target, too.
    if !is_known || request.uri().authority().is_some() {
        let known = console.hosts.first().map_or("", String::as_str);
        let reason =
            format!("The console is not called that. Its name is {known}, and on this machine localhost.");
        return Problem::outside(StatusCode::MISDIRECTED_REQUEST, reason).into_response();
    }
    next.run(request).await
}

/// Lets in whoever has a certificate of the right kind, and tells the pages who it is.
pub(super) async fn admit(
    State(console): State<Arc<Console>>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(peer) = peer else {
        let reason = "The console opens to a client certificate of the profile admin or viewer, \
                      and your browser showed none.";
        return Problem::outside(StatusCode::FORBIDDEN, reason).into_response();
    };
    match console.operator(&peer).await {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Console {
    /// Who shows this certificate.
    async fn operator(&self, peer: &[u8]) -> Result<Operator, Problem> {
        let refused = |reason: String| Problem::outside(StatusCode::FORBIDDEN, reason);
        let peer = Certificate::from_der(peer).map_err(crate::Error::from)?;
        let known = self.authority.store().certificate(peer.serial()).await?;
        let Some(record) = known.filter(|record| record.der == peer.der().as_ref()) else {
            return Err(refused("This authority has no record of issuing your certificate.".into()));
        };
        let who = format!("certificate {}, {}", record.serial, record.subject);
        let now = SystemTime::now();
        let reason = match (&record.revoked, Role::of(&record.profile)) {
            (Some(revoked), _) => {
                format!("Your certificate was revoked at {}: {}.", rfc3339(revoked.at), revoked.reason)
            }
            // A connection may outlive the certificate that opened it.
            (None, _) if record.not_after < now => {
                format!("Your certificate ended at {}.", rfc3339(record.not_after))
            }
            (None, _) if record.issued_by == IssuedBy::Bisect => {
                "Your certificate is for a comparison of keys, and opens nothing here.".into()
            }
            (None, None) => format!(
                "Your certificate is of the profile {}; the console opens to admin and viewer.",
                record.profile
            ),
            (None, Some(role)) => {
                if self.is_new(&record.serial, true) {
                    let event = json!({ "event": "console opened", "role": role.name(), "by": who });
                    self.authority.store().note(event).await?;
                }
                let token = hex(hmac::sign(&self.forms, record.serial.as_bytes()).as_ref());
                let authority = self.authority.operated_by(&who);
                return Ok(Operator { record: Arc::new(record), role, who, authority, form_token: token });
            }
        };
        tracing::info!(serial = %record.serial, %reason, "refused at the console");
        if self.is_new(&record.serial, false) {
            self.authority.store().note(json!({ "event": "refused", "reason": reason, "by": who })).await?;
        }
        Err(refused(reason))
    }

    /// Whether this certificate has not been let in, or refused, for a while.
    fn is_new(&self, serial: &str, let_in: bool) -> bool {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, last| now.duration_since(*last) < VISIT);
        seen.insert((serial.to_owned(), let_in), now).is_none()
    }
}

impl Operator {
    /// # Errors
    /// For a viewer.
    pub(super) fn must_be_admin(&self) -> Result<(), Problem> {
        match self.role {
            Role::Admin => Ok(()),
            Role::Viewer => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "Your certificate is of the profile viewer, which sees everything and changes nothing.",
            )),
        }
    }
}

/// A change that an admin asks for, from a form on a page of the console.
pub(super) struct Change<F> {
    pub(super) operator: Operator,
    pub(super) form: F,
}

/// A form with its token.
#[derive(Deserialize)]
struct Guarded<F> {
    #[serde(rename = "form-token", default)]
    token: String,
    #[serde(flatten)]
    form: F,
}

impl<F: DeserializeOwned> FromRequest<Arc<Console>> for Change<F> {
    type Rejection = Problem;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Problem> {
        let operator = request.extensions().get::<Operator>().cloned();
        let operator = operator.ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "Nobody is here."))?;
        if let Err(problem) = operator.must_be_admin() {
            // Not each time, as the record is for ever: again only after it has kept away for a while.
            if console.is_new(&operator.record.serial, false) {
                let event = json!({ "event": "refused", "reason": problem.reason(), "by": operator.who });
                operator.authority.store().note(event).await?;
            }
            return Err(problem);
        }
        check_origin(request.headers())?;
        let Form(Guarded { token, form }) = Form::<Guarded<F>>::from_request(request, console).await?;
        if verify_slices_are_equal(token.as_bytes(), operator.form_token.as_bytes()).is_err() {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "The form is not of a page that this server showed you since it was started. \
                 Go back, load the page again, and send it once more.",
            ));
        }
        Ok(Self { operator, form })
    }
}

/// Checks that a page of the console sent this request: no other may.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = || {
        let reason = "Changes are made from the console's own pages, and this request came from another.";
        Problem::new(StatusCode::FORBIDDEN, reason)
    };
    // Known already, and so is that it is the only one.
    let host = one(headers, HOST.as_str()).ok_or_else(refused)?;
    let origin = one(headers, ORIGIN.as_str()).ok_or_else(refused)?;
    let is_ours = match origin.split_once("://") {
        Some(("https", origin)) => origin.eq_ignore_ascii_case(host),
        // In the clear as far as `enclasp client` on the same machine.
        Some(("http", origin)) => {
            origin.eq_ignore_ascii_case(host)
                && host_of(host).is_some_and(|host| LOOPBACK.contains(&host.as_str()))
        }
        _ => false,
    };
    let fetched_by_ours = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => true,
    };
    if is_ours && fetched_by_ours { Ok(()) } else { Err(refused()) }
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The host of `HOST` or `HOST:PORT`, in lower case; an IPv6 address without its brackets.
fn host_of(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let address: IpAddr = host.parse().ok()?;
            (address.to_string(), port.strip_prefix(':').or(port.is_empty().then_some("0"))?)
        }
        None => {
            let (host, port) = text.split_once(':').unwrap_or((text, "0"));
            (host.to_ascii_lowercase(), port)
        }
    };
    port.parse::<u16>().ok().map(|_| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn hosts_are_told_from_ports() {
        for (text, host) in [
            ("localhost", Some("localhost")),
            ("LocalHost:9443", Some("localhost")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:9443", Some("::1")),
            ("[0:0::1]", Some("::1")),
            ("::1", None),
            ("[::1", None),
            ("[::1]9443", None),
            ("[localhost]", None),
            ("localhost:", None),
            ("localhost:http", None),
            ("localhost:9443:1", None),
            ("127.0.0.1.evil.example", Some("127.0.0.1.evil.example")),
        ] {
            assert_eq!(host_of(text).as_deref(), host, "{text}");
        }
    }

    #[test]
    fn changes_come_from_pages_of_the_console() {
        for good in [
            vec![("host", "ca.acme.internal:9443"), ("origin", "https://ca.acme.internal:9443")],
            vec![("host", "127.0.0.1:9000"), ("origin", "http://127.0.0.1:9000")],
            vec![("host", "[::1]:9000"), ("origin", "http://[::1]:9000"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(check_origin(&headers(&good)).is_ok(), "{good:?}");
        }
        for bad in [
            vec![("host", "localhost:9000")],
            vec![("host", "localhost:9000"), ("origin", "null")],
            vec![("host", "localhost:9000"), ("origin", "http://localhost:9001")],
            vec![("host", "localhost:9000"), ("origin", "http://127.0.0.1:9000")],
            vec![("host", "localhost:9000"), ("origin", "localhost:9000")],
            vec![("host", "ca.acme.internal:9443"), ("origin", "http://ca.acme.internal:9443")],
            vec![("host", "ca.acme.internal"), ("origin", "https://ca.acme.internal.evil.example")],
            vec![
                ("host", "localhost:9000"),
                ("origin", "http://localhost:9000"),
                ("origin", "http://evil.example"),
            ],
            vec![
                ("host", "localhost:9000"),
                ("origin", "http://localhost:9000"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            assert!(check_origin(&headers(&bad)).is_err(), "{bad:?}");
        }
    }
}
