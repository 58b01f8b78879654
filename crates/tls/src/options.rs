//! Settings of a client or a server, and the parts that both build their configurations from.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite as suites};
use rustls::{RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::{Error, Result};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.strip_prefix("TLS").unwrap_or(text) {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(format!("`{text}` is not one of 1.2, 1.3")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

/// Settings of a [`Client`](crate::Client) or a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct Options {
    /// The versions to offer or accept.
    pub versions: RangeInclusive<Version>,
    /// ALPN protocols (RFC 7301), the preferred first; none sends no extension.
    pub alpn: Vec<String>,
    /// How long a handshake may take. A key that asks a person adds the time that the person has.
    pub handshake_timeout: Duration,
    /// How long a person has to answer when the key asks.
    pub prompt_timeout: Duration,
}

impl Default for Options {
    /// TLS 1.2 and 1.3, no ALPN, 10 s, and 60 s for a person.
    fn default() -> Self {
        Self {
            versions: Version::Tls12..=Version::Tls13,
            alpn: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            prompt_timeout: Duration::from_secs(60),
        }
    }
}

impl Options {
    pub(crate) fn protocol_versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)]
            .into_iter()
            .filter(|(version, _)| self.versions.contains(version))
            .map(|(_, supported)| supported)
            .collect()
    }

    pub(crate) fn alpn_protocols(&self) -> Vec<Vec<u8>> {
        self.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect()
    }
}

/// The name to verify a server's certificate against, of a host name or an IP address (an IPv6
/// address may stand in brackets). A host name is also sent as SNI (RFC 6066 §3).
///
/// # Errors
/// [`Error::ServerName`] if it is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| Error::ServerName { name: host.to_owned() })
}

/// aws-lc-rs, with X25519MLKEM768 preferred, and with AES-128 before AES-256: it costs less, its
/// hash most of all, and nobody can search for its keys, by a quantum computer neither.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        suites::TLS13_AES_128_GCM_SHA256,
        suites::TLS13_AES_256_GCM_SHA384,
        suites::TLS13_CHACHA20_POLY1305_SHA256,
        suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

pub(crate) fn trust(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>> {
    if roots.is_empty() {
        return Err(Error::Settings { reason: "there are no roots to trust".into() });
    }
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|e| Error::Settings { reason: format!("a root cannot be read: {e}") })?;
    }
    Ok(Arc::new(store))
}
