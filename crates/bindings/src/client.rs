//! Connections as one identity.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use enclasp_pki::certificates_from;
use enclasp_tls::{ClientStream, Evidence, Options, Version, server_name};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Result;
use crate::http::{HttpRequest, HttpResponse, Url};
use crate::runtime::{block_for, block_on};
use crate::{EnclaspError, Identity, Stream, http};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Settings of a [`Client`].
#[derive(Clone, Debug, Default, uniffi::Record)]
pub struct ClientOptions {
    /// The roots to trust servers by, in PEM; without any, those that the identity came with.
    #[uniffi(default = None)]
    pub roots: Option<String>,
    /// The protocols to offer (ALPN, RFC 7301), the preferred one first.
    #[uniffi(default = [])]
    pub alpn: Vec<String>,
    /// The one version to speak; without one, TLS 1.3 or 1.2.
    #[uniffi(default = None)]
    pub tls: Option<TlsVersion>,
    /// How long a connection may take to come about, and then the handshake; 10 s each if not said.
    #[uniffi(default = None)]
    pub timeout: Option<Duration>,
    /// How long a person has to answer a key that asks, on top of that; 60 s if not said.
    #[uniffi(default = None)]
    pub prompt_timeout: Option<Duration>,
}

/// Opens connections as one identity, or as nobody. Sessions are resumed within one client only, so that
/// the key signs once for each server, and never for somebody else's connection.
#[derive(uniffi::Object)]
pub struct Client {
    tls: enclasp_tls::Client,
    timeout: Duration,
}

/// A connection after its handshake.
type Connected = (ClientStream<TcpStream>, Evidence);

#[uniffi::export]
impl Client {
    /// Presents `identity` to servers that ask for a certificate, and trusts servers as `options` say.
    ///
    /// # Errors
    /// `Invalid` if the certificate is not for the key, or there are no roots to trust.
    #[uniffi::constructor(default(options = None))]
    pub fn new(identity: Option<Arc<Identity>>, options: Option<ClientOptions>) -> Result<Self> {
        let options = options.unwrap_or_default();
        let roots = match (options.roots, &identity) {
            (Some(pem), _) => {
                let roots = certificates_from(pem.as_bytes())?;
                roots.iter().map(|root| root.der().clone()).collect()
            }
            (None, Some(identity)) => identity.stored.roots.clone(),
            (None, None) => Vec::new(),
        };
        let mut settings = Options { alpn: options.alpn, ..Options::default() };
        if let Some(version) = options.tls {
            let version = match version {
                TlsVersion::Tls12 => Version::Tls12,
                TlsVersion::Tls13 => Version::Tls13,
            };
            settings.versions = version..=version;
        }
        settings.handshake_timeout = options.timeout.unwrap_or(settings.handshake_timeout);
        settings.prompt_timeout = options.prompt_timeout.unwrap_or(settings.prompt_timeout);
        let timeout = settings.handshake_timeout;
        let credential = identity.map(|identity| identity.credential()).transpose()?;
        Ok(Self { tls: enclasp_tls::Client::new(&roots, credential, settings)?, timeout })
    }

    /// Connects to `host` at `port` and makes the handshake. `name` is what the server's certificate has
    /// to be for, if that is not `host`.
    ///
    /// In TLS 1.3 a server says only afterwards that it refuses our certificate: the first read then
    /// fails with `Refused`.
    ///
    /// # Errors
    /// `Unavailable`, `Deadline`, `Untrusted`, `Refused`; what the key says, or what its signature
    /// lacks.
    #[uniffi::method(default(name = None))]
    pub fn connect(&self, host: String, port: u16, name: Option<String>) -> Result<Arc<Stream>> {
        let (stream, evidence) = block_on(self.open(&host, port, name.as_deref()))??;
        Ok(Arc::new(Stream::new(stream, evidence)))
    }

    /// Sends one HTTP/1.1 request on a connection of its own, and returns the answer, whatever its
    /// status. Redirections are not followed.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Invalid` for a request that cannot be sent; `Deadline` after the
    /// request's time; `Failed` for an answer that is not HTTP, or is longer than 16 MiB.
    pub fn request(&self, request: HttpRequest) -> Result<HttpResponse> {
        let url = Url::parse(&request.url)?;
        let limit = request.timeout.unwrap_or(http::TIMEOUT);
        block_for(limit, &request.url, async {
            let (stream, evidence) = self.open(&url.host, url.port, None).await?;
            http::exchange(stream, &evidence, &url, &request).await
        })
    }
}

impl Client {
    async fn open(&self, host: &str, port: u16, name: Option<&str>) -> Result<Connected> {
        let name = server_name(name.unwrap_or(host))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") };
        let tcp = match timeout(self.timeout, TcpStream::connect((bare, port))).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Err(unreachable(&address, &error)),
            Err(_) => {
                let message = format!("cannot connect to {address}: no answer within {:?}", self.timeout);
                let hint = "is the address right, and is there a firewall between?".to_owned();
                return Err(EnclaspError::new(EnclaspError::Deadline, message, Some(hint)));
            }
        };
        tcp.set_nodelay(true).map_err(|e| unreachable(&address, &e))?;
        Ok(self.tls.connect(tcp, &name, &address).await?)
    }
}

fn unreachable(address: &str, error: &io::Error) -> EnclaspError {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there; is the server running, and the port right?"
        }
        _ => "check the host name and the network",
    };
    let message = format!("cannot connect to {address}: {error}");
    EnclaspError::new(EnclaspError::Unavailable, message, Some(hint.to_owned()))
}
