//! The little HTTP that a tunnel speaks itself: asking a target how it is, fetching lists of revoked
//! certificates, and pushing metrics.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::{Endpoint, Error, Result};

/// `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    endpoint: Endpoint,
    authority: String,
    path: String,
}

impl FromStr for HttpUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |reason: &str| Error::Url { text: text.to_owned(), reason: reason.to_owned() };
        let uri: Uri = text.parse().map_err(|_| error("it cannot be parsed"))?;
        if uri.scheme_str() != Some("http") {
            return Err(error("it does not begin with http://"));
        }
        let authority = uri.authority().ok_or_else(|| error("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(error("user names and passwords are not taken in URLs"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
            (Some(port), _) => port,
            (None, Some((_, rest))) if !rest.ends_with(']') => return Err(error("its port is no number")),
            _ => 80,
        };
        let endpoint = Endpoint::Tcp { host, port };
        endpoint.as_target()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { text: text.to_owned(), endpoint, authority: authority.to_string(), path })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a GET request brought.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The body.
    pub body: Vec<u8>,
    /// How long it need not be asked for again (`Cache-Control: max-age`, RFC 9111 §5.2.2.1).
    pub fresh_for: Option<Duration>,
    /// Its `ETag`, for the next request.
    pub tag: Option<String>,
}

impl HttpUrl {
    /// Asks, and returns the status code of the answer.
    pub(crate) async fn ask(&self, within: Duration) -> Result<u16> {
        let answer = self.exchange(self.request("GET"), Vec::new(), within, 0).await?;
        Ok(answer.status().as_u16())
    }

    /// Sends JSON.
    pub(crate) async fn post_json(&self, json: String, within: Duration) -> Result<()> {
        let request = self.request("POST").header(CONTENT_TYPE, "application/json");
        let answer = self.exchange(request, json.into(), within, 0).await?;
        if answer.status().is_success() { Ok(()) } else { Err(self.refused(&answer)) }
    }

    /// Gets what is there, of `most` bytes at most; none if it is what `tag` was given with.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::ConnectTimeout`], and [`Error::Answer`] if it is neither.
    pub async fn get(&self, within: Duration, most: usize, tag: Option<&str>) -> Result<Option<Fetched>> {
        let request =
            tag.iter().fold(self.request("GET"), |request, tag| request.header(IF_NONE_MATCH, *tag));
        let answer = self.exchange(request, Vec::new(), within, most).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if tag.is_some() => return Ok(None),
            _ => return Err(self.refused(&answer)),
        }
        let text = |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let directives = text(CACHE_CONTROL).into_iter().flat_map(|value| value.split(','));
        let mut ages = directives.filter_map(|one| one.trim().strip_prefix("max-age=")?.parse().ok());
        let fresh_for = ages.next().map(Duration::from_secs);
        let tag = text(ETAG).map(str::to_owned);
        Ok(Some(Fetched { fresh_for, tag, body: answer.into_body() }))
    }

    /// Posts `body`, and returns what the answer holds, of `most` bytes at most.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::ConnectTimeout`], and [`Error::Answer`] if the answer is not 200.
    pub async fn post(
        &self,
        content_type: &'static str,
        body: Vec<u8>,
        within: Duration,
        most: usize,
    ) -> Result<Vec<u8>> {
        let request = self.request("POST").header(CONTENT_TYPE, content_type);
        let answer = self.exchange(request, body, within, most).await?;
        if answer.status() == StatusCode::OK { Ok(answer.into_body()) } else { Err(self.refused(&answer)) }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn request(&self, method: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(&self.path)
            .header(HOST, &self.authority)
            .header(CONNECTION, "close")
    }

    fn refused(&self, answer: &Response<Vec<u8>>) -> Error {
        Error::Answer { url: self.text.clone(), code: answer.status().as_u16() }
    }

    /// The answer, with its body if it is 200 and `most` is not 0.
    async fn exchange(
        &self,
        request: Builder,
        body: Vec<u8>,
        within: Duration,
        most: usize,
    ) -> Result<Response<Vec<u8>>> {
        let failed = |source: io::Error| Error::Connect { target: self.endpoint.clone(), source };
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| failed(io::Error::other(e)))?;
        let stream = self.endpoint.connect(within).await?;
        let exchange = async {
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let answer = async {
                let answer = sender.send_request(request).await.map_err(io::Error::other)?;
                let (head, body) = answer.into_parts();
                if head.status != StatusCode::OK || most == 0 {
                    return Ok(Response::from_parts(head, Vec::new()));
                }
                let body = Limited::new(body, most).collect().await.map_err(io::Error::other)?;
                Ok(Response::from_parts(head, body.to_bytes().to_vec()))
            };
            // The connection has to be driven while the answer is awaited, and may end with it.
            let (answer, ended) = tokio::join!(answer, async { connection.await.map_err(io::Error::other) });
            answer.or_else(|error: io::Error| ended.and(Err(error)))
        };
        match timeout(within, exchange).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(Error::ConnectTimeout { target: self.endpoint.clone(), after: within }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_http() {
        let url: HttpUrl = "http://[::1]:8080/health?deep=1".parse().unwrap();
        assert_eq!((url.endpoint.to_string(), url.path.as_str()), ("[::1]:8080".into(), "/health?deep=1"));
        let url: HttpUrl = "http://metrics.internal".parse().unwrap();
        assert_eq!((url.endpoint.to_string(), url.path.as_str()), ("metrics.internal:80".into(), "/"));
        for text in ["https://a", "a:80", "/health", "http://", "http://u:p@a", "http://a:0", "http://a:x"] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }
}
