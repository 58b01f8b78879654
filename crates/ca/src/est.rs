//! The EST server (RFC 7030): what stands between HTTP and [`Issuance`].
//!
//! Every refusal is one line of plain text that says what is wrong. What cannot be done at all is
//! told from what this client may not do, and neither spends a token.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Extension, FromRequestParts, Path, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use enclasp_enroll::{TokenSecret, est};
use enclasp_keystore::Algorithm;
use enclasp_pki::{CertificationRequest, certs_only, extension_request};
use http_body_util::{BodyExt, Limited};
use rustls_pki_types::CertificateDer;

use crate::Record;
use crate::https::Peer;
use crate::issuance::Issuance;
use crate::metrics::{Reason, measured};
use crate::refusal::Refusal;

/// How long a client has to send a request's body, and the authority to answer it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the database has to answer, before others do better.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

type Answer = Result<Response, Refusal>;

/// What the label in a request's path says (RFC 7030 §3.2.2); without one, nothing.
#[derive(Default)]
struct Place {
    /// The one profile that is issued under there.
    profile: Option<String>,
    wrap_base64: bool,
}

impl FromRequestParts<Arc<Issuance>> for Place {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, issuance: &Arc<Issuance>) -> Result<Self, Refusal> {
        let Ok(Path(name)) = Path::<String>::from_request_parts(parts, issuance).await else {
            return Ok(Self::default());
        };
        let label = issuance.authority().config().labels.get(&name);
        let label = label.ok_or_else(|| Refusal::NotFound(format!("there is no label `{name}` here")))?;
        Ok(Self { profile: Some(label.profile.clone()), wrap_base64: label.wrap_base64 })
    }
}

/// The routes of EST.
pub(crate) fn router(issuance: Arc<Issuance>) -> Router {
    let mut router = Router::new();
    for (path, method) in [
        (est::CACERTS, get(cacerts)),
        (est::CSRATTRS, get(csrattrs)),
        (est::SIMPLEENROLL, post(simpleenroll)),
        (est::SIMPLEREENROLL, post(simplereenroll)),
        (est::SERVERKEYGEN, any(serverkeygen)),
        (est::FULLCMC, any(fullcmc)),
    ] {
        router = router.route(path, method.clone()).route(&est::labelled(path, "{label}"), method);
    }
    router
        .route(&est::labelled(est::SIMPLEREENROLL, est::BISECT), post(bisect))
        .route("/health", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .fallback(|| async {
            line(StatusCode::NOT_FOUND, "there is nothing here; EST is at /.well-known/est/")
        })
        .method_not_allowed_fallback(|| async {
            line(
                StatusCode::METHOD_NOT_ALLOWED,
                "cacerts and csrattrs are read with GET, the others use POST",
            )
        })
        .layer(middleware::from_fn(bounded))
        .layer(middleware::from_fn_with_state(issuance.clone(), measured))
        .with_state(issuance)
}

/// Whether it can answer requests now: a load balancer sends them elsewhere if not.
async fn ready(State(issuance): State<Arc<Issuance>>) -> Response {
    let asked = tokio::time::timeout(READY_TIMEOUT, issuance.authority().store().shared()).await;
    match asked {
        Ok(Ok(_)) => "ready\n".into_response(),
        Ok(Err(_)) | Err(_) => line(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"),
    }
}

async fn cacerts(State(issuance): State<Arc<Issuance>>, place: Place) -> Answer {
    certificates(&issuance.authority().authorities().await?, &place)
}

/// What this client should ask for: known by a token or by a certificate, its very names, too (RFC
/// 9908 §3.2).
async fn csrattrs(
    State(issuance): State<Arc<Issuance>>,
    Extension(Peer(peer)): Extension<Peer>,
    place: Place,
    headers: HeaderMap,
) -> Answer {
    let secret = headers.contains_key(AUTHORIZATION).then(|| secret_of(&headers)).transpose()?;
    let profile = place.profile.as_deref();
    let (profile, names) = issuance.suggestion(secret.as_ref(), peer.as_ref(), profile).await?;
    let names = match &names {
        Some((subject, names)) if !names.is_empty() => Some(extension_request(subject, names)?),
        _ => None,
    };
    let recommended = profile.key_types.first().copied().unwrap_or(Algorithm::P256);
    let attributes = est::suggested_attributes(recommended, names.as_deref())?;
    Ok(encoded(est::CSR_ATTRIBUTES, &est::encode_csr_attributes(&attributes)?, &place))
}

async fn simpleenroll(
    State(issuance): State<Arc<Issuance>>,
    place: Place,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let claim = issuance.claim(&secret_of(&headers)?, SystemTime::now()).await?;
    let request = certification_request(&headers, body).await?;
    // Not before the body is there: nobody shall hold a place by sending it slowly.
    let _place = issuance.place()?;
    issued(&issuance.enroll(claim, request, place.profile.as_deref()).await?, &place)
}

async fn simplereenroll(
    State(issuance): State<Arc<Issuance>>,
    Extension(Peer(peer)): Extension<Peer>,
    place: Place,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let peer = peer.ok_or_else(|| {
        Refusal::Forbidden("renewal needs the certificate to be renewed as the TLS client certificate".into())
    })?;
    let request = certification_request(&headers, body).await?;
    let _place = issuance.place()?;
    issued(&issuance.renew(&peer, request, place.profile.as_deref()).await?, &place)
}

/// A certificate for a software key, beside the one that authenticates the connection.
async fn bisect(
    State(issuance): State<Arc<Issuance>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let peer = peer.ok_or_else(|| {
        Refusal::Forbidden(
            "a comparison needs the certificate to be compared as the TLS client certificate".into(),
        )
    })?;
    let request = certification_request(&headers, body).await?;
    let _place = issuance.place()?;
    issued(&issuance.bisect(&peer, request).await?, &Place::default())
}

async fn serverkeygen() -> Response {
    line(
        StatusCode::NOT_IMPLEMENTED,
        "serverkeygen is not offered: a private key is made where it is used, and never travels",
    )
}

async fn fullcmc() -> Response {
    line(StatusCode::NOT_IMPLEMENTED, "fullcmc is not offered: use simpleenroll and simplereenroll")
}

/// A body that is announced as too large is refused unread, and nothing takes for ever.
async fn bounded(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > est::MAX_REQUEST as u64 {
        return Refusal::TooLarge.into_response();
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => line(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    }
}

/// The secret of the token in the request's HTTP Basic credentials.
fn secret_of(headers: &HeaderMap) -> Result<TokenSecret, Refusal> {
    let header = headers.get(AUTHORIZATION).ok_or_else(|| {
        Refusal::Unauthorized(
            "send an enrolment token as the password of HTTP Basic, with any user name".into(),
        )
    })?;
    // strongSwan cuts what it finds too long, and the line's end with it.
    let password = est::basic_password(header.as_bytes()).ok_or_else(|| {
        Refusal::Unauthorized(
            "the Authorization header is not HTTP Basic with a user name and a password; \
             if your client cuts long passwords, send the token up to its dot"
                .into(),
        )
    })?;
    TokenSecret::parse(&password).map_err(|e| Refusal::Unauthorized(e.to_string()))
}

/// The request in a body, whose own signature was verified.
async fn certification_request(headers: &HeaderMap, body: Body) -> Result<CertificationRequest, Refusal> {
    // Clients that say nothing of the type, or leave curl's default, mean PKCS#10.
    const FORM: &str = "application/x-www-form-urlencoded";
    if let Some(stated) = headers.get(CONTENT_TYPE) {
        let stated = String::from_utf8_lossy(stated.as_bytes());
        let essence = stated.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case(est::PKCS10) && !essence.eq_ignore_ascii_case(FORM) {
            let shown: String = essence.chars().filter(|c| !c.is_control()).take(60).collect();
            return Err(Refusal::MediaType(format!("a request is of type {}, not `{shown}`", est::PKCS10)));
        }
    }
    let body = Limited::new(body, est::MAX_REQUEST).collect().await.map_err(|e| {
        if e.is::<http_body_util::LengthLimitError>() {
            Refusal::TooLarge
        } else {
            Refusal::BadRequest("the body broke off".into())
        }
    })?;
    let refused = |reason: String| Refusal::BadRequest(reason);
    let der = est::decode_body(&body.to_bytes()).map_err(|e| refused(e.to_string()))?;
    let request = CertificationRequest::from_der(&der).map_err(|e| refused(e.to_string()))?;
    request.verify().map_err(|e| refused(e.to_string()))?;
    // It could bind the request to the connection (RFC 7030 §3.5), which TLS 1.3 does not support and
    // nobody verifies here. What cannot be verified is not taken for verified.
    if request.has_challenge_password() {
        return Err(refused(
            "the request has a challengePassword, which is not verified here: leave it out".into(),
        ));
    }
    Ok(request)
}

fn issued(record: &Record, place: &Place) -> Answer {
    certificates(&[CertificateDer::from(record.der.clone())], place)
}

fn certificates(certificates: &[CertificateDer<'_>], place: &Place) -> Answer {
    Ok(encoded(est::CERTS_ONLY, &certs_only::encode(certificates)?, place))
}

/// Base64 on one line, unless the label says otherwise, with a Content-Length: strongSwan reads nothing else.
fn encoded(media_type: &'static str, der: &[u8], place: &Place) -> Response {
    let headers = [(CONTENT_TYPE.as_str(), media_type), ("content-transfer-encoding", "base64")];
    let body = if place.wrap_base64 { est::encode_wrapped_body(der) } else { est::encode_body(der) };
    (headers, body).into_response()
}

/// A refusal. What clients wrote may stand in `text`, so it is made one line of moderate length.
fn line(status: StatusCode, text: &str) -> Response {
    const MAX_CHARS: usize = 500;
    let text: String = text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    tracing::info!(status = status.as_u16(), reason = %text, "refused");
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, format!("{text}\n")).into_response()
}

/// In how many seconds one of many shall come back, so that they do not come together again.
fn spread() -> u16 {
    let mut random = [0];
    // Without randomness they come in the middle.
    if rand::fill(&mut random).is_err() {
        random = [127];
    }
    5 + u16::from(random[0]) * 55 / 255
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let reason = Reason(self.name());
        let (status, text) = match self {
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, text),
            Self::Unauthorized(text) => (StatusCode::UNAUTHORIZED, text),
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, text),
            Self::NotFound(text) => (StatusCode::NOT_FOUND, text),
            Self::Waiting(text) => (StatusCode::ACCEPTED, text),
            Self::MediaType(text) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, text),
            Self::Busy => {
                (StatusCode::TOO_MANY_REQUESTS, "too many devices are here now: come back later".into())
            }
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the request is larger than {} KiB", est::MAX_REQUEST / 1024),
            ),
            Self::Internal(error) => {
                tracing::error!(%error, "a request failed");
                let text = "the authority cannot do this now, and its log says why; the token is not lost";
                (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
            }
        };
        let mut response = line(status, &text);
        response.extensions_mut().insert(reason);
        let (name, value) = match status {
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Basic realm=\"Enclasp enrolment token\""),
            StatusCode::TOO_MANY_REQUESTS => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(spread()));
                return response;
            }
            // The rest of the body is not worth reading.
            StatusCode::PAYLOAD_TOO_LARGE => (CONNECTION, "close"),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::ACCEPTED => (RETRY_AFTER, "5"),
            _ => return response,
        };
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    }
}
