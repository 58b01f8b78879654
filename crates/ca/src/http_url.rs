//! Where everybody fetches what is public.

use std::fmt;
use std::str::FromStr;

use enclasp_enroll::Endpoint;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The base of the URLs of CRLs, OCSP and issuing certificates: `http://HOST:PORT`. In the clear,
/// since what is fetched is signed, and since checking the server of an HTTPS URL could take the very
/// answer that is asked for (RFC 5280 §8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl {
    host_and_port: Endpoint,
    port: u16,
}

/// The port of a URL that names none.
const HTTP: u16 = 80;

impl HttpUrl {
    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.host_and_port.host()
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HttpUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |reason: &str| Error::Setting {
            what: "the URL of CRLs and OCSP",
            value: format!("`{}`", text.chars().take(200).collect::<String>().escape_debug()),
            reason: reason.to_owned(),
        };
        let rest = text.strip_prefix("http://").ok_or_else(|| error("it does not begin with http://"))?;
        let with_port = |rest: &str| format!("https://{rest}").parse::<Endpoint>();
        let host_and_port = with_port(rest).map_err(|_| error("it is http://HOST or http://HOST:PORT"))?;
        // An endpoint fills in the port of HTTPS; with another one it would be another URL.
        let names_a_port = with_port(&format!("{}:1", rest.trim_end_matches('/'))).is_err();
        let port = if names_a_port { host_and_port.port() } else { HTTP };
        Ok(Self { host_and_port, port })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        if self.port == HTTP { write!(f, "http://{host}") } else { write!(f, "http://{host}:{}", self.port) }
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_parses_back() {
        for (text, host, port, shown) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "http://127.0.0.1:8080"),
            ("http://Ca.acme.internal/", "ca.acme.internal", 80, "http://ca.acme.internal"),
            ("http://ca:443", "ca", 443, "http://ca:443"),
            ("http://[::1]:8080", "::1", 8080, "http://[::1]:8080"),
            ("http://[::1]", "::1", 80, "http://[::1]"),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse::<HttpUrl>().unwrap(), url);
        }
        for text in ["", "https://ca", "ca", "http://", "http://ca/crl", "http://ca:0", "http://a b"] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }
}
