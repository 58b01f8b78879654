//! The status of tunnels and their metrics over HTTP or HTTPS: `/_status`, `/_metrics`,
//! `/_shutdown`.

use std::convert::Infallible;
use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use enclasp_pki::rfc3339;
use enclasp_tls::Server;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::current::Current;
use crate::endpoint::{Peer, Stream};
use crate::serve::Front;
use crate::{Bound, Endpoint, Error, Health, Limits, Metrics, Result};

/// How long a client of the status has for all it wants.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the status may take up.
const MAX_CONNECTIONS: usize = 64;

/// Where the status is shown: `[http(s)://]HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAddress {
    /// Where it listens.
    pub listen: Endpoint,
    /// Whether it is shown with TLS: unless `http://` is said, or the address is a Unix socket.
    pub tls: bool,
}

impl FromStr for StatusAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rest, tls) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => (text, !text.starts_with("unix:")),
        };
        Ok(Self { listen: rest.parse()?, tls })
    }
}

/// What the status is made of.
pub struct StatusConfig {
    /// Where it listens.
    pub listen: Bound,
    /// What it presents, to anyone; none is HTTP in the clear.
    pub tls: Option<Current<Server>>,
    /// The tunnels that it speaks of.
    pub tunnels: Current<Vec<Health>>,
    /// Their metrics.
    pub metrics: Metrics,
    /// What the names of metrics begin with.
    pub metrics_prefix: String,
    /// The name of this machine.
    pub hostname: String,
    /// What `POST /_shutdown` sets; without it there is no such thing.
    pub shutdown: Option<watch::Sender<bool>>,
}

/// Shows how tunnels are.
pub struct StatusServer {
    front: Front,
    shown: Arc<Shown>,
}

struct Shown {
    tls: Option<Current<Server>>,
    tunnels: Current<Vec<Health>>,
    metrics: Metrics,
    metrics_prefix: String,
    hostname: String,
    shutdown: Option<watch::Sender<bool>>,
}

impl StatusServer {
    /// Takes over what listens; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::Threads`].
    pub fn new(config: StatusConfig) -> Result<Self> {
        let StatusConfig { listen, tls, tunnels, metrics, metrics_prefix, hostname, shutdown } = config;
        let limits = Limits {
            max_connections: MAX_CONNECTIONS,
            drain_timeout: Duration::from_secs(1),
            threads: 1,
            ..Limits::default()
        };
        let front = Front::new(listen, limits)?;
        let shown = Shown { tls, tunnels, metrics, metrics_prefix, hostname, shutdown };
        Ok(Self { front, shown: Arc::new(shown) })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn bound_addr(&self) -> &Endpoint {
        self.front.bound_addr()
    }

    /// Serves until `shutdown` completes.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let shown = self.shown;
        let carry = move |stream: Stream, peer: Peer| {
            let shown = shown.clone();
            async move {
                // Who asks for the status and goes away, or stalls, is told nothing.
                let _ = timeout(PATIENCE, shown.serve(stream, &peer.name)).await;
            }
        };
        self.front.run(shutdown, carry).await;
    }
}

impl Shown {
    async fn serve(self: Arc<Self>, stream: Stream, peer: &str) {
        let Some(tls) = &self.tls else {
            return self.clone().serve_http(stream).await;
        };
        match tls.get().accept(stream, peer).await {
            Ok((stream, _)) => self.clone().serve_http(stream).await,
            Err(error) => tracing::debug!(peer, cause = %error, "refused at the status"),
        }
    }

    async fn serve_http(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
        // Dropped when the answer is out: the process may be gone a moment later.
        let stop = Arc::new(OnceLock::new());
        let service = service_fn(|request| {
            let (shown, stop) = (self.clone(), stop.clone());
            async move { Ok::<_, Infallible>(shown.answer(&request, &stop).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(cause = %error, "a client of the status went away");
        }
    }

    async fn answer(&self, request: &Request<Incoming>, stop: &OnceLock<Stop>) -> Response<Full<Bytes>> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let format = match request.uri().path() {
            "/_status" if reads => {
                let (code, report) = self.status().await;
                return json_answer(code, &report);
            }
            "/_metrics" if reads => {
                let asked = request.uri().query().unwrap_or_default().split('&');
                asked.filter_map(|pair| pair.strip_prefix("format=")).next().unwrap_or("json")
            }
            "/_metrics/json" if reads => "json",
            "/_metrics/prometheus" if reads => "prometheus",
            "/_shutdown" => return self.shut_down(request.method(), stop),
            "/_status" | "/_metrics" | "/_metrics/json" | "/_metrics/prometheus" => {
                return text_answer(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            }
            _ => return text_answer(StatusCode::NOT_FOUND, "there are /_status and /_metrics\n"),
        };
        match format {
            "json" => json_answer(StatusCode::OK, &self.metrics.json(&self.metrics_prefix, &self.hostname)),
            "prometheus" => text_answer(StatusCode::OK, self.metrics.prometheus(&self.metrics_prefix)),
            _ => text_answer(StatusCode::BAD_REQUEST, "the format is json or prometheus\n"),
        }
    }

    /// Of one tunnel, its report; of several, a summary with the reports below it.
    async fn status(&self) -> (StatusCode, Value) {
        // Targets that do not answer are waited for together.
        let mut asked = JoinSet::new();
        for (index, tunnel) in self.tunnels.get().into_iter().enumerate() {
            asked.spawn(async move { (index, tunnel.report().await) });
        }
        let mut reports = asked.join_all().await;
        reports.sort_by_key(|(index, _)| *index);
        let reports: Vec<_> = reports.into_iter().map(|(_, report)| report).collect();
        let ok = reports.iter().all(|report| report.ok);
        let mut status = match reports.as_slice() {
            [report] => json!(report),
            reports => json!({
                "ok": ok,
                "status": if ok { "ok" } else { "critical" },
                "time": rfc3339(SystemTime::now()),
                "tunnels": reports,
            }),
        };
        status["hostname"] = json!(self.hostname);
        status["revision"] = json!(env!("CARGO_PKG_VERSION"));
        (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, status)
    }

    fn shut_down(&self, method: &Method, stop: &OnceLock<Stop>) -> Response<Full<Bytes>> {
        match &self.shutdown {
            None => text_answer(StatusCode::NOT_FOUND, "--enable-shutdown allows it\n"),
            Some(_) if method != Method::POST => text_answer(StatusCode::METHOD_NOT_ALLOWED, "only POST\n"),
            Some(shutdown) => {
                stop.get_or_init(|| Stop(shutdown.clone()));
                let mut answer = text_answer(StatusCode::OK, "shutting down\n");
                let close = hyper::header::HeaderValue::from_static("close");
                answer.headers_mut().insert(hyper::header::CONNECTION, close);
                answer
            }
        }
    }
}

/// Ends the tunnel when it is dropped.
struct Stop(watch::Sender<bool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    answer(code, "application/json", format!("{value:#}\n"))
}

fn text_answer(code: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    answer(code, "text/plain; version=0.0.4; charset=utf-8", text.into())
}

fn answer(code: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_whether_there_is_tls() {
        for (text, listen, tls) in [
            ("127.0.0.1:6060", "127.0.0.1:6060", true),
            ("https://:6060", ":6060", true),
            ("http://localhost:6060", "localhost:6060", false),
            ("unix:/run/status", "unix:/run/status", false),
        ] {
            let address: StatusAddress = text.parse().unwrap();
            assert_eq!((address.listen.to_string().as_str(), address.tls), (listen, tls));
        }
        assert!("ftp://a:1".parse::<StatusAddress>().is_err());
    }
}
