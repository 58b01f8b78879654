//! Where an authority answers.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The address of an authority: `https://HOST` or `https://HOST:PORT`, without a path. `HOST` is a
/// DNS name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// The port of a URL that names none.
const HTTPS: u16 = 443;

impl Endpoint {
    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the server's certificate has to carry.
    ///
    /// # Errors
    /// [`Error::Url`]; not for a value that was parsed.
    pub fn server_name(&self) -> Result<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).map_err(|_| Error::Url {
            url: self.to_string(),
            reason: format!("`{}` is neither a DNS name nor an IP address", self.host),
        })
    }

    /// `HOST:PORT`, as it stands in a URL and in the `Host` header.
    pub fn host_and_port(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == HTTPS { host } else { format!("{host}:{}", self.port) }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error =
            |reason: &str| Error::Url { url: text.chars().take(200).collect(), reason: reason.to_owned() };
        let rest = text.strip_prefix("https://").ok_or_else(|| error("it does not begin with https://"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(error("it has more than a host and a port"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| error("`[` without `]`"))?;
                if !host.contains(':') {
                    return Err(error("brackets are for IPv6 addresses"));
                }
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None => HTTPS,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| error("the port is not a number from 1 to 65535"))?,
        };
        let endpoint = Self { host: host.to_ascii_lowercase(), port };
        endpoint.server_name().map_err(|_| error("the host is neither a DNS name nor an IP address"))?;
        Ok(endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.host_and_port())
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_an_authority() {
        for text in [
            "",
            "http://ca",
            "ca:8443",
            "https://",
            "https://:8443",
            "https://ca:0",
            "https://ca:70000",
            "https://ca:",
            "https://ca/est",
            "https://user@ca",
            "https://[::1",
            "https://[::1]8443",
            "https://[ca]:1",
            "https://a b",
            "https://::1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn display_parses_back() {
        for (text, host, port, shown) in [
            ("https://127.0.0.1:8443", "127.0.0.1", 8443, "https://127.0.0.1:8443"),
            ("https://CA.acme.internal/", "ca.acme.internal", 443, "https://ca.acme.internal"),
            ("https://[::1]:8443", "::1", 8443, "https://[::1]:8443"),
            ("https://[::1]", "::1", 443, "https://[::1]"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port));
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(shown.parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}
