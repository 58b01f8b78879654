//! The listener in the clear: what it serves is public, and signed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclasp_pki::{MAX_OCSP_REQUEST, OcspRefusal, hex, sha256};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::publication::{INTERVAL, Publication};
use crate::{Error, Result};

/// How many connections may be open at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client has to send the head of a request, and may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may be, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a cache on the way may pass on a CRL or an answer without asking again. It adds to the
/// time until everybody knows of a revocation.
const MAX_AGE: Duration = Duration::from_secs(5);

/// A bound listener.
pub(crate) struct PlainServer {
    listener: TcpListener,
    address: SocketAddr,
    publication: Arc<Publication>,
}

impl PlainServer {
    /// Listens on `listen`, which is `HOST:PORT`.
    pub(crate) async fn bind(listen: &str, publication: Publication) -> Result<Self> {
        let failed = |e: std::io::Error| Error::Listen { address: listen.to_owned(), reason: e.to_string() };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        publication.refresh().await?;
        Ok(Self { listener, address, publication: Arc::new(publication) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever, and keeps what it serves up to date.
    pub(crate) async fn run(self) {
        let router = router(self.publication.clone());
        tokio::join!(keep_up_to_date(&self.publication), accept(&self.listener, &router));
    }
}

async fn keep_up_to_date(publication: &Publication) {
    loop {
        sleep(INTERVAL).await;
        if let Err(error) = publication.refresh().await {
            tracing::error!(%error, "cannot bring CRLs and OCSP up to date");
        }
    }
}

/// Serves whoever connects in the clear, for ever.
pub(crate) async fn accept(listener: &TcpListener, router: &Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection in the clear");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(tcp), service);
            // However it ends, this end does now.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn router(publication: Arc<Publication>) -> Router {
    Router::new()
        .route("/crl/{name}", get(crl))
        .route("/ca/{name}", get(issuer))
        .route("/ocsp", post(ocsp_by_post))
        .route("/ocsp/", post(ocsp_by_post))
        .route("/ocsp/{*request}", get(ocsp_by_get))
        .layer(DefaultBodyLimit::max(MAX_OCSP_REQUEST))
        .with_state(publication)
}

async fn crl(
    State(publication): State<Arc<Publication>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(published) = publication.crl(&name) else {
        return (StatusCode::NOT_FOUND, "there is no such CRL\n").into_response();
    };
    let tag = format!("\"{}\"", published.state.number);
    let until = published.state.next_update;
    cached(&headers, "application/pkix-crl", &tag, Some(until), || published.der.clone())
}

async fn issuer(
    State(publication): State<Arc<Publication>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(issuer) = publication.issuer(&name) else {
        return (StatusCode::NOT_FOUND, "there is no such issuer\n").into_response();
    };
    let (tag, until) = (format!("\"{}\"", issuer.fingerprint_hex()), Some(issuer.not_after()));
    cached(&headers, "application/pkix-cert", &tag, until, || issuer.der().to_vec())
}

async fn ocsp_by_post(
    State(publication): State<Arc<Publication>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    ocsp(&publication, &headers, &body).await
}

/// The request in base64 in the path (RFC 6960 §A.1).
async fn ocsp_by_get(
    State(publication): State<Arc<Publication>>,
    Path(request): Path<String>,
    headers: HeaderMap,
) -> Response {
    // What is not base64 is no request either.
    let request = STANDARD.decode(request.trim_start_matches('/')).unwrap_or_default();
    ocsp(&publication, &headers, &request).await
}

async fn ocsp(publication: &Publication, headers: &HeaderMap, request: &[u8]) -> Response {
    const TYPE: &str = "application/ocsp-response";
    match publication.ocsp(request).await {
        Ok(answer) => {
            let tag = format!("\"{}\"", hex(&sha256(&answer.der)));
            cached(headers, TYPE, &tag, answer.until, || answer.der.to_vec())
        }
        Err(error) => {
            tracing::error!(%error, "cannot answer an OCSP request");
            let refusal = OcspRefusal::TryLater.to_der().unwrap_or_default();
            ([(CONTENT_TYPE, TYPE), (CACHE_CONTROL, "no-store")], refusal).into_response()
        }
    }
}

/// An answer that caches may keep for a moment, or none if the client has it.
fn cached(
    headers: &HeaderMap,
    media_type: &'static str,
    tag: &str,
    until: Option<SystemTime>,
    body: impl FnOnce() -> Vec<u8>,
) -> Response {
    let left = until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
    let control = match left {
        Some(left) => format!("public, max-age={}, must-revalidate", left.min(MAX_AGE).as_secs()),
        None => "no-store".to_owned(),
    };
    let known = headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default();
    let known = until.is_some() && known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag);
    let headers = [(ETAG, tag.to_owned()), (CACHE_CONTROL, control)];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(CONTENT_TYPE, media_type)], body()).into_response()
}
