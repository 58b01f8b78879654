//! TLS in, plain out.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Instant;

use enclasp_tls::{Server, close};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::current::Current;
use crate::endpoint::{Peer, Stream};
use crate::metrics::Counted;
use crate::relay::{Recheck, Relay, refusal};
use crate::serve::{Closed, Front};
use crate::turns::Turns;
use crate::{Bound, Endpoint, Error, Limits, Metrics, Observer, ProxyProtocol, Result};

/// What a [`ServerTunnel`] is made of.
pub struct ServerConfig {
    /// Where clients connect with TLS.
    pub listen: Bound,
    /// Where their bytes go, unencrypted.
    pub target: Endpoint,
    /// What the tunnel presents, and who is let through.
    pub tls: Server,
    /// What the tunnel may take up.
    pub limits: Limits,
    /// Whether, and how, the target is told who connected.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether open connections end whose client has been revoked, as the TLS server in use knows.
    pub drop_revoked: bool,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// Is shown the evidence of every handshake.
    pub observer: Option<Observer>,
}

impl ServerConfig {
    /// With the limits of [`Limits::default`] and nothing else.
    pub fn new(listen: Bound, target: Endpoint, tls: Server) -> Self {
        let (limits, metrics) = (Limits::default(), Metrics::default());
        let (proxy_protocol, drop_revoked, observer) = (None, false, None);
        Self { listen, target, tls, limits, proxy_protocol, drop_revoked, metrics, observer }
    }
}

/// Takes mutual TLS in front of a plain service.
#[derive(Debug)]
pub struct ServerTunnel {
    front: Front,
    tunnel: Arc<Tunnel>,
}

struct Tunnel {
    tls: Current<Server>,
    target: Endpoint,
    limits: Limits,
    handshakes: Turns,
    proxy_protocol: Option<ProxyProtocol>,
    drop_revoked: bool,
    metrics: Metrics,
    observer: Option<Observer>,
}

impl ServerTunnel {
    /// Takes over what listens; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// [`Endpoint`](crate::Error::Endpoint) if the target cannot be one,
    /// [`Threads`](crate::Error::Threads) if the threads cannot be started.
    pub fn new(config: ServerConfig) -> Result<Self> {
        let ServerConfig { listen, target, tls, limits, proxy_protocol, drop_revoked, metrics, observer } =
            config;
        target.as_target()?;
        let tls = Current::new(tls);
        let front = Front::new(listen, limits.clone())?;
        let handshakes = Turns::new(limits.max_handshakes, limits.max_handshakes_of_source);
        let tunnel =
            Tunnel { tls, target, limits, handshakes, proxy_protocol, drop_revoked, metrics, observer };
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

    /// What new connections are accepted with, to be replaced while the tunnel runs.
    pub fn tls(&self) -> Current<Server> {
        self.tunnel.tls.clone()
    }

    /// Serves until `shutdown` completes and what was open then has ended, or the drain timeout has.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let tunnel = self.tunnel;
        let carry = move |stream, peer: Peer| {
            let tunnel = tunnel.clone();
            async move {
                if let Err(error) = tunnel.carry(stream, &peer).await {
                    refusal(&peer.name, &error);
                }
            }
        };
        self.front.run(shutdown, carry).await;
    }
}

impl Tunnel {
    async fn carry(&self, stream: Stream, peer: &Peer) -> Result<()> {
        let counted = self.metrics.connection();
        // What it takes to begin is boxed, since an open connection needs far less.
        let established = Box::pin(self.establish(stream, peer, &counted)).await;
        let (relay, recheck) = established.inspect_err(|error| counted.refused(error))?;
        relay.run(&self.limits, recheck, &counted).await;
        Ok(())
    }

    async fn establish(
        &self,
        mut stream: Stream,
        peer: &Peer,
        counted: &Counted,
    ) -> Result<(Relay, Option<Recheck>)> {
        let started = Instant::now();
        let after = self.limits.silence_timeout;
        // An error is for the handshake to meet.
        if timeout(after, poll_fn(|cx| stream.poll_readable(cx))).await.is_err() {
            return Err(Error::Silence { peer: peer.name.clone(), after });
        }
        let (accepted, recheck) = {
            let _turn = self.handshakes.take(peer.source).await;
            let (tls, later) = self.tls.watch();
            let recheck = self.drop_revoked.then(|| Recheck::new(later));
            (tls.handshake(&mut stream, &peer.name).await, recheck)
        };
        let (mut tls, evidence) = accepted?;
        counted.established();
        if let Some(observer) = &self.observer {
            observer(&evidence);
        }
        let connected = async {
            let mut plain = self.target.connect(self.limits.connect_timeout).await?;
            if let Some(protocol) = self.proxy_protocol {
                let leaf = tls.peer_certificates().and_then(|chain| chain.first());
                let header = protocol.header(stream.addresses(), &evidence, leaf.map(|leaf| leaf.as_ref()));
                let sent = plain.write_all(&header).await;
                sent.map_err(|source| Error::Connect { target: self.target.clone(), source })?;
            }
            Ok(plain)
        };
        match connected.await {
            Ok(plain) => Ok((Relay::new(tls, stream, plain, evidence, started), recheck)),
            Err(error) => {
                close(&mut tls, &mut stream).await;
                Err(error)
            }
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
