//! The client of EST (RFC 7030) over HTTP/1.1 and TLS.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_pki::{Certificate, certs_only, rfc3339};
use enclasp_tls::{Credential, Options};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::est::{self, CsrAttribute};
use crate::token::hex;
use crate::trust::{AuthorityVerifier, parsed};
use crate::{Endpoint, Error, Result, TokenSecret, Trust};

/// How long a TCP connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the TLS handshake may take when no key of ours signs in it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the answer to a request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The first pause before a request is sent again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The length in bytes of the longest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;

/// An EST client of one authority. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    trust: Trust,
    tls: Arc<ClientConfig>,
    patience: Duration,
}

impl Client {
    /// A client of the authority at `endpoint`, if `trust` says that it is one.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn new(endpoint: Endpoint, trust: Trust) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = AuthorityVerifier { trust: trust.clone(), provider: provider.clone() };
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Handshake { url: endpoint.to_string(), reason: e.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self { endpoint, trust, tls: Arc::new(tls), patience: Duration::from_secs(5) })
    }

    /// How long to go on trying when the authority cannot be reached or asks to come back later.
    /// It is 5 s if nothing is said; zero tries once.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The certificates of the authority, its root among them (RFC 7030 §4.1).
    ///
    /// # Errors
    /// Those of a request: see [`Error`].
    pub async fn cacerts(&self) -> Result<Vec<Certificate>> {
        let call = Call::get("cacerts", est::CACERTS, est::CERTS_ONLY);
        self.certificates(&call).await
    }

    /// What the authority wants to see in a request (RFC 7030 §4.5).
    ///
    /// # Errors
    /// Those of a request: see [`Error`].
    pub async fn csrattrs(&self) -> Result<Vec<CsrAttribute>> {
        let call = Call::get("csrattrs", est::CSRATTRS, est::CSR_ATTRIBUTES);
        let body = self.send(&call).await?;
        if body.is_empty() {
            return Ok(Vec::new());
        }
        est::decode_body(&body)
            .and_then(|der| est::decode_csr_attributes(&der))
            .map_err(|e| self.answer(&call, e))
    }

    /// A first certificate for `csr` (DER PKCS#10), paid for with a token's
    /// `secret` (RFC 7030 §4.2.1). It may
    /// be sent again: the authority answers the same request with the same certificate.
    ///
    /// # Errors
    /// Those of a request: see [`Error`].
    pub async fn simpleenroll(&self, csr: &[u8], secret: &TokenSecret) -> Result<Vec<Certificate>> {
        let mut credentials = HeaderValue::from_str(&est::basic_credentials(secret))
            .map_err(|e| Error::Token { reason: e.to_string() })?;
        credentials.set_sensitive(true);
        let mut call = Call::post("simpleenroll", est::SIMPLEENROLL, csr);
        call.authorization = Some(credentials);
        self.certificates(&call).await
    }

    /// A new certificate for the names of `credential`'s leaf, which authenticates the connection
    /// (RFC 7030 §4.2.2). The key of `csr` may be another one.
    ///
    /// # Errors
    /// Those of a request: see [`Error`]. [`Error::Tls`] if the credential cannot be used.
    pub async fn simplereenroll(&self, csr: &[u8], credential: &Credential) -> Result<Vec<Certificate>> {
        self.authenticated(Call::post("simplereenroll", est::SIMPLEREENROLL, csr), credential).await
    }

    /// A certificate for the names of `credential`'s leaf, which authenticates the connection, and for the software
    /// key of `csr`: for minutes, and marked as that. Only if the leaf's profile allows it.
    ///
    /// # Errors
    /// As [`simplereenroll`](Self::simplereenroll).
    pub async fn bisect(&self, csr: &[u8], credential: &Credential) -> Result<Vec<Certificate>> {
        let mut call = Call::post("bisect", est::SIMPLEREENROLL, csr);
        call.path = est::labelled(est::SIMPLEREENROLL, est::BISECT);
        self.authenticated(call, credential).await
    }

    /// Sends over a connection that `credential` authenticates.
    async fn authenticated(&self, mut call: Call, credential: &Credential) -> Result<Vec<Certificate>> {
        let roots: Vec<_> = self.roots().await?.iter().map(|root| root.der().clone()).collect();
        let tls = enclasp_tls::Client::new(&roots, Some(credential.clone()), Options::default())?;
        call.mutual_tls = Some(tls);
        self.certificates(&call).await
    }

    /// The roots that the authority is known by: those that were given, or the one of the pinned
    /// fingerprint, which the authority is asked for.
    ///
    /// # Errors
    /// Those of a request: see [`Error`].
    pub async fn roots(&self) -> Result<Vec<Certificate>> {
        match &self.trust {
            Trust::Roots(roots) => parsed(roots),
            Trust::RootFingerprint(pinned) => {
                let mut roots = self.cacerts().await?;
                roots.retain(|certificate| certificate.fingerprint() == *pinned);
                Ok(roots)
            }
        }
    }

    async fn certificates(&self, call: &Call) -> Result<Vec<Certificate>> {
        let body = self.send(call).await?;
        let der = est::decode_body(&body).map_err(|e| self.answer(call, e))?;
        let certificates = certs_only::decode(&der).map_err(|e| self.answer(call, e))?;
        certificates.iter().map(|der| Certificate::from_der(der).map_err(|e| self.answer(call, e))).collect()
    }

    /// Sends until there is an answer, a refusal, or no patience left.
    async fn send(&self, call: &Call) -> Result<Bytes> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(least) = error.worth_a_retry() else {
                return Err(error);
            };
            let wait = pause.max(least);
            if started.elapsed() + wait > self.patience {
                return Err(error);
            }
            tracing::debug!(%error, wait_ms = wait.as_millis() as u64, "trying again");
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Bytes> {
        let address = (self.endpoint.host(), self.endpoint.port());
        let tcp = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(e)) => return Err(self.unreachable(e.to_string())),
            Err(_) => return Err(self.unreachable(format!("no answer in {} s", CONNECT_TIMEOUT.as_secs()))),
        };
        let name = self.endpoint.server_name()?;
        let late = |what: &str, limit: Duration| {
            self.interrupted(call, format!("no {what} in {} s", limit.as_secs()))
        };
        match &call.mutual_tls {
            Some(tls) => {
                let address = self.endpoint.host_and_port();
                let (stream, _evidence) = tls.connect(tcp, &name, &address).await?;
                timeout(ANSWER_TIMEOUT, self.exchange(call, stream)).await
            }
            None => {
                let connected = TlsConnector::from(self.tls.clone()).connect(name, tcp);
                let stream = timeout(HANDSHAKE_TIMEOUT, connected)
                    .await
                    .map_err(|_| late("TLS handshake", HANDSHAKE_TIMEOUT))?
                    .map_err(|e| self.broken(call, &e))?;
                timeout(ANSWER_TIMEOUT, self.exchange(call, stream)).await
            }
        }
        .map_err(|_| late("answer", ANSWER_TIMEOUT))?
    }

    /// One request and its answer on an open connection.
    async fn exchange<S>(&self, call: &Call, stream: S) -> Result<Bytes>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.broken(call, &e))?;
        let request = call.request(&self.endpoint).map_err(|e| self.answer(call, e))?;
        // The sender goes away with the answer, which ends the connection.
        let answer = async move {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, hyper::Error>((head, Limited::new(body, MAX_ANSWER).collect().await))
        };
        let (answer, closed) = tokio::join!(answer, connection);
        let (head, body) = match (answer, closed) {
            (Ok(answer), _) => answer,
            // The connection knows why it broke; the request only knows that it did.
            (Err(_), Err(e)) | (Err(e), Ok(())) => return Err(self.broken(call, &e)),
        };
        let body = body
            .map_err(|e| match e.downcast_ref::<hyper::Error>() {
                Some(e) => self.broken(call, e),
                None => self.answer(call, format!("it is longer than {MAX_ANSWER} bytes")),
            })?
            .to_bytes();
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let (url, operation, status) = (self.endpoint.to_string(), call.operation, head.status.as_u16());
        let reason = first_line(&body).unwrap_or_else(|| "it gives no reason".into());
        Err(match head.status {
            StatusCode::ACCEPTED | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Error::Later { url, operation, status, reason, retry_after: retry_after(&head.headers) }
            }
            other if other.is_client_error() || other.is_server_error() => {
                Error::Refused { url, operation, status, reason }
            }
            other => self.answer(call, format!("HTTP {other}")),
        })
    }

    /// What a broken TLS or HTTP connection means.
    fn broken(&self, call: &Call, error: &(dyn StdError + 'static)) -> Error {
        let url = self.endpoint.to_string();
        let Some(tls) = tls_error(error) else {
            return self.interrupted(call, root_cause(error));
        };
        let reason = match tls {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match &self.trust {
                Trust::RootFingerprint(root) => {
                    return Error::WrongAuthority { url, root: hex(root) };
                }
                Trust::Roots(_) => "its certificate is not from an authority that is trusted here".into(),
            },
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
                return Error::Clock {
                    url,
                    reason: format!(
                        "expired at {}, and it is {} here",
                        rfc3339_of(*not_after),
                        rfc3339_of(*time)
                    ),
                };
            }
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
                return Error::Clock {
                    url,
                    reason: format!(
                        "is not valid before {}, and it is {} here",
                        rfc3339_of(*not_before),
                        rfc3339_of(*time)
                    ),
                };
            }
            rustls::Error::InvalidCertificate(e) => format!("its certificate is not good: {e}"),
            rustls::Error::AlertReceived(alert) => format!("it refused us with the alert {alert:?}"),
            other => other.to_string(),
        };
        Error::Handshake { url, reason }
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { url: self.endpoint.to_string(), reason }
    }

    fn interrupted(&self, call: &Call, reason: String) -> Error {
        Error::Interrupted { url: self.endpoint.to_string(), operation: call.operation, reason }
    }

    fn answer(&self, call: &Call, reason: impl ToString) -> Error {
        Error::Answer {
            url: self.endpoint.to_string(),
            operation: call.operation,
            reason: reason.to_string(),
        }
    }
}

/// A request that may be sent more than once.
struct Call {
    operation: &'static str,
    method: Method,
    path: String,
    accept: &'static str,
    body: Option<String>,
    authorization: Option<HeaderValue>,
    mutual_tls: Option<enclasp_tls::Client>,
}

impl Call {
    fn get(operation: &'static str, path: &'static str, accept: &'static str) -> Self {
        let (method, path) = (Method::GET, path.to_owned());
        Self { operation, method, path, accept, body: None, authorization: None, mutual_tls: None }
    }

    fn post(operation: &'static str, path: &'static str, csr: &[u8]) -> Self {
        let mut call = Self::get(operation, path, est::CERTS_ONLY);
        call.method = Method::POST;
        call.body = Some(est::encode_body(csr));
        call
    }

    fn request(&self, endpoint: &Endpoint) -> hyper::http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(&self.path)
            .header(HOST, endpoint.host_and_port())
            .header(ACCEPT, self.accept);
        if let Some(credentials) = &self.authorization {
            request = request.header(AUTHORIZATION, credentials);
        }
        if self.body.is_some() {
            request = request.header(CONTENT_TYPE, est::PKCS10).header("content-transfer-encoding", "base64");
        }
        request.body(Full::from(self.body.clone().unwrap_or_default()))
    }
}

fn rfc3339_of(time: UnixTime) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    time.map_or_else(|| "the end of time".to_owned(), rfc3339)
}

/// The TLS error that an error of I/O or HTTP wraps.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An io::Error does not name what it wraps as its source.
        if let Some(tls) = error.downcast_ref::<io::Error>().and_then(|e| e.get_ref()?.downcast_ref()) {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

fn root_cause(mut error: &(dyn StdError + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The first line of a refusal, fit for a terminal.
fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let line: String = text.lines().next()?.chars().filter(|c| !c.is_control()).take(300).collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3), a day at most; a date is taken as no statement.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_named() {
        let client =
            Client::new("https://ca.example".parse().unwrap(), Trust::RootFingerprint([0; 32])).unwrap();
        let call = Call::get("cacerts", est::CACERTS, est::CERTS_ONLY);
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (early, late) = (1_767_225_600, 1_798_761_600);
        for (error, said) in [
            (
                CertificateError::ExpiredContext { time: at(late), not_after: at(early) },
                "expired at 2026-01-01T00:00:00Z, and it is 2027-01-01T00:00:00Z here",
            ),
            (
                CertificateError::NotValidYetContext { time: at(early), not_before: at(late) },
                "is not valid before 2027-01-01T00:00:00Z, and it is 2026-01-01T00:00:00Z here",
            ),
            (
                CertificateError::ExpiredContext { time: at(early), not_after: at(u64::MAX) },
                "expired at the end of time",
            ),
        ] {
            let error = client.broken(&call, &rustls::Error::InvalidCertificate(error));
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.hint().unwrap().contains("clock"));
        }
    }
}
