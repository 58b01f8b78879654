//! HTTP/1.1 (RFC 9112) over a connection of a client: one request, one answer.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use enclasp_tls::{ClientStream, Evidence};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::EnclaspError;
use crate::error::Result;
use crate::stream::failed;

/// How long a request may take if it does not say.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest body of an answer, in bytes.
const MAX_BODY: usize = 16 << 20;

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct HttpHeader {
    /// Its name; that of an answer is in lower case.
    pub name: String,
    /// Its value. Bytes of an answer that are not UTF-8 are replaced.
    pub value: String,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct HttpRequest {
    /// `https://HOST[:PORT]/PATH?QUERY`.
    pub url: String,
    /// `GET`, `POST` …
    #[uniffi(default = "GET")]
    pub method: String,
    /// Besides `Host`, `Connection` and the length of the body, which are set.
    #[uniffi(default = [])]
    pub headers: Vec<HttpHeader>,
    /// What to send.
    #[uniffi(default = None)]
    pub body: Option<Vec<u8>>,
    /// How long all of it may take, the handshake and a person's answer included; 60 s if not said.
    #[uniffi(default = None)]
    pub timeout: Option<Duration>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct HttpResponse {
    /// 200, 404 …
    pub status: u16,
    /// In their order; a name may be there more than once.
    pub headers: Vec<HttpHeader>,
    /// The body.
    pub body: Vec<u8>,
}

/// The address of a resource.
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the field `Host` says.
    authority: String,
    /// The path and the query.
    target: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| {
            let message = format!("`{text}` is not the address of a resource: {reason}");
            let hint = "it looks like https://db.internal:8443/status".to_owned();
            EnclaspError::new(EnclaspError::Invalid, message, Some(hint))
        };
        let uri: Uri = text.parse().map_err(|e: hyper::http::uri::InvalidUri| invalid(&e.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(invalid("it does not begin with https://"));
        }
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("a password in it would be seen by others"));
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(443),
            authority: authority.to_string(),
            target: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}

/// Sends `request` and reads the answer.
pub(crate) async fn exchange(
    stream: ClientStream<TcpStream>,
    evidence: &Evidence,
    url: &Url,
    request: &HttpRequest,
) -> Result<HttpResponse> {
    let mut built = Request::builder()
        .method(request.method.as_str())
        .uri(&url.target)
        .header(HOST, &url.authority)
        .header(CONNECTION, "close");
    for HttpHeader { name, value } in &request.headers {
        built = built.header(name, value);
    }
    let body = Full::<Bytes>::from(request.body.clone().unwrap_or_default());
    let built = built.body(body).map_err(|e| {
        EnclaspError::new(EnclaspError::Invalid, format!("cannot ask {}: {e}", evidence.address), None)
    })?;
    let broken = |e: &hyper::Error| broken(e, evidence);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let answer = async move {
        let (head, body) = sender.send_request(built).await?.into_parts();
        Ok::<_, hyper::Error>((head, Limited::new(body, MAX_BODY).collect().await))
    };
    let (answer, ended) = tokio::join!(answer, connection);
    // The connection knows why it broke; the request only knows that it did.
    let (head, body) = match (answer, ended) {
        (Ok(answer), _) => answer,
        (Err(_), Err(e)) | (Err(e), Ok(())) => return Err(broken(&e)),
    };
    let body = body.map_err(|e| match e.downcast_ref::<hyper::Error>() {
        Some(e) => broken(e),
        None => {
            let message = format!("the answer of {} is longer than {MAX_BODY} bytes", evidence.address);
            EnclaspError::new(EnclaspError::Failed, message, None)
        }
    })?;
    let headers = head.headers.iter().map(|(name, value)| HttpHeader {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    });
    Ok(HttpResponse {
        status: head.status.as_u16(),
        headers: headers.collect(),
        body: body.to_bytes().to_vec(),
    })
}

/// What a broken exchange means: mostly what the connection below it says.
fn broken(error: &hyper::Error, evidence: &Evidence) -> EnclaspError {
    let below = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if let Some(below) = below {
        // An io::Error cannot be cloned; rustls' errors, which one may hold, can.
        let copy = match below.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => io::Error::new(below.kind(), tls.clone()),
            None => io::Error::new(below.kind(), below.to_string()),
        };
        return failed(copy, evidence);
    }
    let message = format!("{} answered with something else than HTTP: {error}", evidence.address);
    EnclaspError::new(EnclaspError::Failed, message, None)
}
