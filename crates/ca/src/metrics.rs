//! What is measured of a serving authority, in Prometheus's text format, on a listener of its own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use enclasp_enroll::est;
use enclasp_keystore::Keystore;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::http::accept;
use crate::issuance::{Issuance, blocking};
use crate::{Error, Result};

/// The upper ends of the buckets of latencies, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How long a keystore has to open a key, before the key counts as unusable.
const KEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request was refused, beside its answer, for who counts.
#[derive(Clone, Copy)]
pub(crate) struct Reason(pub(crate) &'static str);

/// What is counted. One for each process that serves.
#[derive(Default)]
pub(crate) struct Metrics {
    /// By operation of EST.
    latencies: Mutex<BTreeMap<String, Latencies>>,
    /// By operation and reason.
    refusals: Mutex<BTreeMap<(String, &'static str), u64>>,
}

#[derive(Default)]
struct Latencies {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// Counts the requests of EST that pass.
pub(crate) async fn measured(
    State(issuance): State<Arc<Issuance>>,
    request: Request,
    next: Next,
) -> Response {
    let operation = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let started = Instant::now();
    let response = next.run(request).await;
    if est::is_operation(&operation) {
        let refused = !response.status().is_success();
        let reason = response.extensions().get::<Reason>().copied().or(refused.then_some(Reason("other")));
        issuance.metrics().note(operation, started.elapsed(), reason);
    }
    response
}

impl Metrics {
    fn note(&self, operation: String, elapsed: Duration, reason: Option<Reason>) {
        if let Some(Reason(reason)) = reason {
            *lock(&self.refusals).entry((operation, reason)).or_default() += 1;
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let mut latencies = lock(&self.latencies);
        let of = latencies.entry(operation).or_default();
        for (bucket, end) in of.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= end);
        }
        of.count += 1;
        of.seconds += seconds;
    }

    fn write(&self, text: &mut Text) {
        const NAME: &str = "enclasp_ca_answer_seconds";
        text.head(NAME, "histogram", "How long answers took that were no refusal, by operation of EST.");
        for (operation, of) in &*lock(&self.latencies) {
            let operation = format!("operation=\"{operation}\"");
            for (count, end) in of.buckets.iter().zip(BUCKETS) {
                text.line(&format!("{NAME}_bucket"), &format!("{operation},le=\"{end}\""), *count as f64);
            }
            text.line(&format!("{NAME}_bucket"), &format!("{operation},le=\"+Inf\""), of.count as f64);
            text.line(&format!("{NAME}_sum"), &operation, of.seconds);
            text.line(&format!("{NAME}_count"), &operation, of.count as f64);
        }
        text.head("enclasp_ca_refusals_total", "counter", "Refused requests, by operation and reason.");
        for ((operation, reason), count) in &*lock(&self.refusals) {
            let labels = format!("operation=\"{operation}\",reason=\"{reason}\"");
            text.line("enclasp_ca_refusals_total", &labels, *count as f64);
        }
    }
}

/// A bound listener that answers `GET /metrics`.
pub(crate) struct MetricsServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

#[derive(Clone)]
struct Scraped {
    issuance: Arc<Issuance>,
    keystore: Arc<dyn Keystore>,
}

impl MetricsServer {
    /// Listens on `listen`, which is `HOST:PORT`.
    pub(crate) async fn bind(
        issuance: Arc<Issuance>,
        keystore: Arc<dyn Keystore>,
        listen: &str,
    ) -> Result<Self> {
        let failed = |e: std::io::Error| Error::Listen { address: listen.to_owned(), reason: e.to_string() };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = Router::new().route("/metrics", get(scrape)).with_state(Scraped { issuance, keystore });
        Ok(Self { listener, address, router })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for ever.
    pub(crate) async fn run(self) {
        accept(&self.listener, &self.router).await;
    }
}

async fn scrape(State(Scraped { issuance, keystore }): State<Scraped>) -> Response {
    let mut text = Text::default();
    issuance.metrics().write(&mut text);
    keys(&mut text, &issuance, &keystore).await;
    records(&mut text, &issuance).await;
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text.0).into_response()
}

/// Whether the keys can be opened now.
async fn keys(text: &mut Text, issuance: &Issuance, keystore: &Arc<dyn Keystore>) {
    let config = issuance.authority().config();
    let keys = [
        ("issuing", Some(&config.issuing_key)),
        ("server", Some(&config.server_key)),
        ("ocsp", config.ocsp_key.as_ref()),
        ("audit", config.audit_key.as_ref()),
    ];
    text.head("enclasp_ca_key_usable", "gauge", "Whether a key of the authority can be opened now.");
    for (role, uri) in keys {
        let Some(uri) = uri.cloned() else { continue };
        let keystore = keystore.clone();
        let opened = timeout(KEY_TIMEOUT, blocking(move || Ok(keystore.open(&uri)?))).await;
        let usable = matches!(opened, Ok(Ok(_)));
        text.line("enclasp_ca_key_usable", &format!("key=\"{role}\""), f64::from(u8::from(usable)));
    }
    text.head(
        "enclasp_ca_certificate_end_timestamp_seconds",
        "gauge",
        "When a certificate of the authority ends.",
    );
    for (name, certificate) in
        [("root", issuance.authority().root()), ("issuing", issuance.authority().issuing())]
    {
        let end = since_epoch(certificate.not_after());
        let labels = format!("certificate=\"{name}\"");
        text.line("enclasp_ca_certificate_end_timestamp_seconds", &labels, end);
    }
}

/// What the database says, and how it is.
async fn records(text: &mut Text, issuance: &Issuance) {
    let (store, now) = (issuance.authority().store(), SystemTime::now());
    let asked = timeout(KEY_TIMEOUT, async {
        Ok::<_, Error>((store.crl_states().await?, store.waiting_for_certificates(now).await?))
    });
    let answered = asked.await.ok().and_then(Result::ok);
    text.head("enclasp_ca_database_up", "gauge", "Whether the database answers.");
    text.line("enclasp_ca_database_up", "", f64::from(u8::from(answered.is_some())));
    let (open, idle) = store.connections();
    text.head("enclasp_ca_database_connections", "gauge", "Connections to the database, by state.");
    text.line("enclasp_ca_database_connections", "state=\"idle\"", idle as f64);
    text.line("enclasp_ca_database_connections", "state=\"used\"", open.saturating_sub(idle) as f64);
    let Some((crls, waiting)) = answered else { return };
    text.head("enclasp_ca_crl_age_seconds", "gauge", "How old the latest CRL is, by issuer and shard.");
    for crl in crls.iter().filter(|crl| crl.number > 0) {
        let labels = format!("issuer=\"{}\",shard=\"{}\"", crl.issuer, crl.shard);
        let age = now.duration_since(crl.this_update).unwrap_or_default();
        text.line("enclasp_ca_crl_age_seconds", &labels, age.as_secs_f64());
    }
    text.head("enclasp_ca_crl_end_timestamp_seconds", "gauge", "When the latest CRL ceases to be good.");
    for crl in crls.iter().filter(|crl| crl.number > 0) {
        let labels = format!("issuer=\"{}\",shard=\"{}\"", crl.issuer, crl.shard);
        text.line("enclasp_ca_crl_end_timestamp_seconds", &labels, since_epoch(crl.next_update));
    }
    text.head("enclasp_ca_waiting", "gauge", "Devices that wait for a person's approval.");
    text.line("enclasp_ca_waiting", "", waiting.len() as f64);
}

/// Prometheus's text format. No label holds a character that would have to be escaped.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // A String takes all that is written to it.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
