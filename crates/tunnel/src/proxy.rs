//! Reaching a target through a proxy: HTTP CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928).

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::endpoint::Stream;
use crate::{Endpoint, Error, Result};

/// A proxy: `http://HOST:PORT` or `socks5://HOST:PORT`. It resolves the target's name itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    endpoint: Endpoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

/// An answer to CONNECT is shorter.
const MAX_ANSWER: usize = 16 * 1024;

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |reason: &str| Error::Url { text: text.to_owned(), reason: reason.to_owned() };
        let (kind, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Kind::Http, rest),
            Some(("socks5" | "socks5h", rest)) => (Kind::Socks5, rest),
            _ => return Err(error("a proxy is http://HOST:PORT or socks5://HOST:PORT")),
        };
        if rest.contains('@') {
            // The text is not repeated: it may hold a password.
            let reason = "a proxy that wants a password is not supported".to_owned();
            return Err(Error::Url {
                text: format!("{}://…", if kind == Kind::Http { "http" } else { "socks5" }),
                reason,
            });
        }
        let endpoint: Endpoint =
            rest.trim_end_matches('/').parse().map_err(|_| error("a proxy has a host and a port"))?;
        match endpoint.as_target()? {
            Endpoint::Tcp { .. } => Ok(Self { kind, endpoint }),
            Endpoint::Unix(_) | Endpoint::Systemd(_) => Err(error("a proxy has a host and a port")),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", self.endpoint)
    }
}

impl Proxy {
    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects to `target` through the proxy; to one that is no TCP address, past it.
    pub(crate) async fn connect(&self, target: &Endpoint, within: Duration) -> Result<Stream> {
        let Endpoint::Tcp { host, port } = target else {
            return target.connect(within).await;
        };
        let until = Instant::now() + within;
        let mut stream = self.endpoint.connect(within).await?;
        let agreed = async {
            match self.kind {
                Kind::Http => http_connect(&mut stream, target).await,
                Kind::Socks5 => socks5_connect(&mut stream, host, *port).await,
            }
        };
        let failed =
            |reason: String| Error::Proxy { proxy: self.to_string(), target: target.clone(), reason };
        match timeout_at(until, agreed).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("it did not answer within {within:?}"))),
        }
    }
}

async fn http_connect(stream: &mut Stream, target: &Endpoint) -> io::Result<()> {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // One byte at a time: what follows the answer is the target's.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(io::Error::other("its answer does not end"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next()) {
        (Some(version), Some(code)) if version.starts_with("HTTP/1.") && code.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("it answers `{}`", line.escape_debug()))),
    }
}

async fn socks5_connect(stream: &mut Stream, host: &str, port: u16) -> io::Result<()> {
    /// Version 5 offers one method: no authentication.
    const HELLO: [u8; 3] = [5, 1, 0];
    /// Version 5, CONNECT, reserved, a host name follows.
    const CONNECT: [u8; 4] = [5, 1, 0, 3];
    stream.write_all(&HELLO).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match chosen {
        [5, 0] => {}
        [5, 0xff] => return Err(io::Error::other("it demands a password")),
        _ => return Err(io::Error::other("it does not speak SOCKS5")),
    }
    let length = u8::try_from(host.len()).map_err(|_| io::Error::other("the host's name is too long"))?;
    let request = [&CONNECT[..], &[length], host.as_bytes(), &port.to_be_bytes()].concat();
    stream.write_all(&request).await?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    match reply {
        [5, 0, ..] => {}
        [5, code, ..] => return Err(io::Error::other(meaning(code))),
        _ => return Err(io::Error::other("it does not speak SOCKS5")),
    }
    // The address that it is bound to, which is of no use here.
    let length = match reply[3] {
        1 => 4,
        3 => usize::from(stream.read_u8().await?),
        4 => 16,
        _ => return Err(io::Error::other("it does not speak SOCKS5")),
    };
    stream.read_exact(&mut vec![0; length + 2]).await.map(drop)
}

/// RFC 1928 §6.
fn meaning(code: u8) -> String {
    match code {
        2 => "it does not allow that target".into(),
        3 => "it cannot reach the network".into(),
        4 => "it cannot reach the host".into(),
        5 => "the target refused the connection".into(),
        code => format!("it answers with code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_http_or_socks5() {
        for text in ["http://proxy:3128", "socks5://[::1]:1080"] {
            assert_eq!(text.parse::<Proxy>().unwrap().to_string(), text);
        }
        for text in ["proxy:3128", "https://proxy:3128", "http://proxy", "http://:80", "socks5://unix:/x"] {
            assert!(text.parse::<Proxy>().is_err(), "{text}");
        }
        let error = "http://user:secret@proxy:3128".parse::<Proxy>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
