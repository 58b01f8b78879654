//! TLS in, plain out.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use enclasp_tls::{Access, Clients, Credential, Options, Server};
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::endpoint::Stream;
use crate::relay::{refusal, relay};
use crate::serve::Front;
use crate::{Endpoint, Limits, Observer, Result};

/// What a [`ServerTunnel`] is made of.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where clients connect with TLS.
    pub listen: Endpoint,
    /// Where their bytes go, unencrypted.
    pub target: Endpoint,
    /// What the tunnel presents to its clients.
    pub credential: Credential,
    /// What the clients' certificates have to lead to. There is no client without one.
    pub roots: Vec<CertificateDer<'static>>,
    /// Who is let through.
    pub access: Access,
    /// TLS versions, ALPN, timeouts of handshakes.
    pub options: Options,
    /// What the tunnel may take up.
    pub limits: Limits,
}

/// Takes mutual TLS in front of a plain service.
#[derive(Debug)]
pub struct ServerTunnel {
    front: Front,
    tunnel: Tunnel,
}

struct Tunnel {
    tls: Server,
    target: Endpoint,
    limits: Limits,
    handshakes: Semaphore,
    observer: Option<Observer>,
}

impl ServerTunnel {
    /// Listens; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// [`Endpoint`](crate::Error::Endpoint) if the target cannot be one,
    /// [`Listen`](crate::Error::Listen), and [`Tls`](crate::Error::Tls) if the roots, the access rules
    /// or the options cannot be used.
    pub async fn bind(config: ServerConfig) -> Result<Self> {
        let ServerConfig { listen, target, credential, roots, access, options, limits } = config;
        target.as_target()?;
        let clients = Clients { roots, certificate_demanded: true, access };
        let tls = Server::new(credential, clients, options)?;
        let front = Front::bind(listen, limits.clone()).await?;
        let handshakes = Semaphore::new(limits.max_handshakes);
        let tunnel = Tunnel { tls, target, limits, handshakes, observer: None };
        Ok(Self { front, tunnel })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn bound_addr(&self) -> &Endpoint {
        self.front.bound_addr()
    }

    /// Shows the evidence of every handshake to `observer`.
    pub fn observed_by(mut self, observer: Observer) -> Self {
        self.tunnel.observer = Some(observer);
        self
    }

    /// Serves until `shutdown` completes and what was open then has ended, or the drain timeout has.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let tunnel = Arc::new(self.tunnel);
        let carry = |stream, peer: String| {
            let tunnel = tunnel.clone();
            async move {
                if let Err(error) = tunnel.carry(stream, &peer).await {
                    refusal(&peer, &error);
                }
            }
        };
        self.front.run(shutdown, carry).await;
    }
}

impl Tunnel {
    async fn carry(&self, stream: Stream, peer: &str) -> Result<()> {
        let started = Instant::now();
        let accepted = {
            let _turn = self.handshakes.acquire().await;
            self.tls.accept(stream, peer).await
        };
        let (mut tls, evidence) = accepted?;
        if let Some(observer) = &self.observer {
            observer(&evidence);
        }
        match self.target.connect(self.limits.connect_timeout).await {
            Ok(plain) => relay(tls, plain, &evidence, started).await,
            Err(error) => {
                // The client may be gone, too.
                let _ = tls.shutdown().await;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("tls", &self.tls).field("target", &self.target).finish_non_exhaustive()
    }
}
