//! The little HTTP that a tunnel speaks itself: asking a target how it is, and pushing metrics.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Uri};
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

#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    Get,
    Post,
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

impl HttpUrl {
    /// Makes a request, with a JSON body or none, and returns the status code of the answer.
    pub(crate) async fn request(
        &self,
        method: Method,
        json: Option<String>,
        within: Duration,
    ) -> Result<u16> {
        self.exchange(method, json, within, 0).await.map(|(code, _)| code)
    }

    /// Gets what is there, of `most` bytes at most.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::ConnectTimeout`], and [`Error::Url`] if the answer is not 200.
    pub async fn get(&self, within: Duration, most: usize) -> Result<Vec<u8>> {
        match self.exchange(Method::Get, None, within, most).await? {
            (200, body) => Ok(body),
            (code, _) => Err(Error::Url { text: self.text.clone(), reason: format!("it answers {code}") }),
        }
    }

    /// The answer's code, and the first `most` bytes of its body if it is 200.
    async fn exchange(
        &self,
        method: Method,
        json: Option<String>,
        within: Duration,
        most: usize,
    ) -> Result<(u16, Vec<u8>)> {
        let failed = |source: io::Error| Error::Connect { target: self.endpoint.clone(), source };
        let stream = self.endpoint.connect(within).await?;
        let exchange = async {
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let request = Request::builder()
                .method(match method {
                    Method::Get => "GET",
                    Method::Post => "POST",
                })
                .uri(&self.path)
                .header("host", &self.authority)
                .header("content-type", "application/json")
                .header("connection", "close")
                .body(Full::new(Bytes::from(json.unwrap_or_default())))
                .map_err(io::Error::other)?;
            let answer = async {
                let answer = sender.send_request(request).await.map_err(io::Error::other)?;
                let code = answer.status().as_u16();
                if code != 200 || most == 0 {
                    return Ok((code, Vec::new()));
                }
                let body =
                    Limited::new(answer.into_body(), most).collect().await.map_err(io::Error::other)?;
                Ok((code, body.to_bytes().to_vec()))
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
