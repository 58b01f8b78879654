//! Plain in, TLS out.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use enclasp_tls::{Client, server_name};
use rustls_pki_types::ServerName;
use tokio::sync::Semaphore;

use crate::current::Current;
use crate::endpoint::{Peer, Stream};
use crate::relay::{Relay, refusal};
use crate::serve::Front;
use crate::{Endpoint, Error, Limits, Observer, Result};

/// What a [`ClientTunnel`] is made of.
#[derive(Clone)]
pub struct ClientConfig {
    /// Where programs connect without TLS. Whoever can connect there acts as the tunnel's identity.
    pub listen: Endpoint,
    /// Where their bytes go, with TLS.
    pub target: Endpoint,
    /// The name that the target's certificate has to have, if it is not the target's host.
    pub server_name: Option<String>,
    /// Which targets are trusted, and what the tunnel presents to them.
    pub tls: Client,
    /// What the tunnel may take up.
    pub limits: Limits,
    /// Is shown the evidence of every handshake.
    pub observer: Option<Observer>,
}

/// Takes plain connections to a service that wants mutual TLS.
#[derive(Debug)]
pub struct ClientTunnel {
    front: Front,
    tunnel: Arc<Tunnel>,
}

struct Tunnel {
    tls: Current<Client>,
    target: Endpoint,
    server_name: ServerName<'static>,
    limits: Limits,
    handshakes: Semaphore,
    observer: Option<Observer>,
}

impl ClientTunnel {
    /// Listens; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::Endpoint`] if the target cannot be one, [`Error::Listen`], and [`Error::Tls`] if
    /// the server's name cannot be one.
    pub async fn bind(config: ClientConfig) -> Result<Self> {
        let ClientConfig { listen, target, server_name: name, tls, limits, observer } = config;
        let name = match (name, target.as_target()?) {
            (Some(name), _) => server_name(&name)?,
            (None, Endpoint::Tcp { host, .. }) => server_name(host)?,
            (None, Endpoint::Unix(_)) => {
                let reason = "a Unix socket has no host name: the server's name must be given".into();
                return Err(Error::Endpoint { text: target.to_string(), reason });
            }
        };
        let tls = Current::new(tls);
        let front = Front::bind(listen, limits.clone()).await?;
        let handshakes = Semaphore::new(limits.max_handshakes);
        let tunnel = Tunnel { tls, target, server_name: name, limits, handshakes, observer };
        Ok(Self { front, tunnel: Arc::new(tunnel) })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn bound_addr(&self) -> &Endpoint {
        self.front.bound_addr()
    }

    /// What new connections are opened with, to be replaced while the tunnel runs.
    pub fn tls(&self) -> Current<Client> {
        self.tunnel.tls.clone()
    }

    /// Serves until `shutdown` completes and what was open then has ended, or the drain timeout has.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let tunnel = self.tunnel;
        let carry = move |stream, peer: Peer| {
            let tunnel = tunnel.clone();
            async move {
                if let Err(error) = tunnel.carry(stream).await {
                    refusal(&peer.name, &error);
                }
            }
        };
        self.front.run(shutdown, carry).await;
    }
}

impl Tunnel {
    async fn carry(&self, plain: Stream) -> Result<()> {
        // What it takes to begin is boxed, since an open connection needs far less.
        let relay = Box::pin(self.establish(plain)).await?;
        relay.run().await;
        Ok(())
    }

    async fn establish(&self, plain: Stream) -> Result<Relay> {
        let started = Instant::now();
        let connected = {
            let _turn = self.handshakes.acquire().await;
            let mut stream = self.target.connect(self.limits.connect_timeout).await?;
            let target = self.target.to_string();
            let done = self.tls.get().handshake(&mut stream, &self.server_name, &target).await;
            done.map(|(tls, evidence)| (tls, stream, evidence))
        };
        let (tls, stream, evidence) = connected?;
        if let Some(observer) = &self.observer {
            observer(&evidence);
        }
        Ok(Relay::new(tls, stream, plain, evidence, started))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("tls", &self.tls.get())
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
