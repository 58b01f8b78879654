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
use crate::serve::{Closed, Front};
use crate::{Bound, Endpoint, Error, Limits, Metrics, Observer, Proxy, Result};

/// What a [`ClientTunnel`] is made of.
pub struct ClientConfig {
    /// Where programs connect without TLS. Whoever can connect there acts as the tunnel's identity.
    pub listen: Bound,
    /// Where their bytes go, with TLS.
    pub target: Endpoint,
    /// The name that the target's certificate has to have, if it is not the target's host.
    pub server_name: Option<String>,
    /// Which targets are trusted, and what the tunnel presents to them.
    pub tls: Client,
    /// What the tunnel may take up.
    pub limits: Limits,
    /// What the target is reached through.
    pub proxy: Option<Proxy>,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// Is shown the evidence of every handshake.
    pub observer: Option<Observer>,
}

impl ClientConfig {
    /// With the limits of [`Limits::default`] and nothing else.
    pub fn new(listen: Bound, target: Endpoint, tls: Client) -> Self {
        let (limits, metrics) = (Limits::default(), Metrics::default());
        Self { listen, target, server_name: None, tls, limits, proxy: None, metrics, observer: None }
    }
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
    proxy: Option<Proxy>,
    metrics: Metrics,
    observer: Option<Observer>,
}

impl ClientTunnel {
    /// Takes over what listens; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::Endpoint`] if the target cannot be one, [`Error::Threads`], and [`Error::Tls`] if
    /// the server's name cannot be one.
    pub fn new(config: ClientConfig) -> Result<Self> {
        let ClientConfig { listen, target, server_name: name, tls, limits, proxy, metrics, observer } =
            config;
        let name = match (name, target.as_target()?) {
            (Some(name), _) => server_name(&name)?,
            (None, Endpoint::Tcp { host, .. }) => server_name(host)?,
            (None, _) => {
                let reason = "a Unix socket has no host name: the server's name must be given".into();
                return Err(Error::Endpoint { text: target.to_string(), reason });
            }
        };
        let tls = Current::new(tls);
        let front = Front::new(listen, limits.clone())?;
        let handshakes = Semaphore::new(limits.max_handshakes);
        let tunnel = Tunnel { tls, target, server_name: name, limits, handshakes, proxy, metrics, observer };
        Ok(Self { front, tunnel: Arc::new(tunnel) })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn bound_addr(&self) -> &Endpoint {
        self.front.bound_addr()
    }

    /// When it takes nobody new any more, once it runs.
    pub fn closed(&self) -> Closed {
        self.front.closed()
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
        let counted = self.metrics.connection();
        // What it takes to begin is boxed, since an open connection needs far less.
        let established = Box::pin(self.establish(plain)).await;
        let relay = established.inspect_err(|error| counted.refused(error))?;
        counted.established();
        relay.run(&self.limits, None, &counted).await;
        Ok(())
    }

    async fn establish(&self, plain: Stream) -> Result<Relay> {
        let started = Instant::now();
        let connected = {
            let _turn = self.handshakes.acquire().await;
            let mut stream = self.connect().await?;
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

    async fn connect(&self) -> Result<Stream> {
        let within = self.limits.connect_timeout;
        match &self.proxy {
            Some(proxy) => proxy.connect(&self.target, within).await,
            None => self.target.connect(within).await,
        }
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
