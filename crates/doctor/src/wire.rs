//! TLS as it is on the wire, SSL 3.0 to TLS 1.3: records, handshake messages, alerts, key logs.
//!
//! Parsing takes what old and broken programs send, and says what is wrong with it rather than
//! stopping where a TLS stack would.

mod decrypt;
mod handshake;
mod keylog;
pub mod names;
mod reader;
mod record;

pub(crate) use decrypt::{RecordKey, traffic_update};
pub use handshake::{
    CertificateRequest, CertificateVerify, ClientHello, KeyExchange, ServerHello, ServerKeyExchange,
};
pub(crate) use handshake::{Malformed, certificates, encrypted_extensions_alpn, kind};
pub use keylog::KeyLog;
pub(crate) use reader::Reader;
pub(crate) use record::{Deframer, Framing, content};
pub use record::{Protocol, Stranger};

/// A version of the protocol as its two bytes say it: `0x0303` is TLS 1.2.
pub type Version = u16;

#[allow(missing_docs)]
pub mod version {
    use super::Version;
    pub const SSL2: Version = 0x0002;
    pub const SSL3: Version = 0x0300;
    pub const TLS10: Version = 0x0301;
    pub const TLS11: Version = 0x0302;
    pub const TLS12: Version = 0x0303;
    pub const TLS13: Version = 0x0304;
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// `body` after its length in `width` bytes.
pub(crate) fn vector(width: usize, body: &[u8]) -> Vec<u8> {
    let length = body.len().to_be_bytes();
    [&length[length.len() - width..], body].concat()
}
