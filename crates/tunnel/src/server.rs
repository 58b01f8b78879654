//! TLS in, plain out.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Instant;

use enclasp_tls::{Server, close};
use tokio::time::timeout;

use crate::current::Current;
use crate::endpoint::{Peer, Stream};
use crate::relay::{Relay, refusal};
use crate::serve::Front;
use crate::turns::Turns;
use crate::{Endpoint, Error, Limits, Observer, Result};

/// What a [`ServerTunnel`] is made of.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where clients connect with TLS.
    pub listen: Endpoint,
    /// Where their bytes go, unencrypted.
    pub target: Endpoint,
    /// What the tunnel presents, and who is let through.
    pub tls: Server,
    /// What the tunnel may take up.
    pub limits: Limits,
    /// Is shown the evidence of every handshake.
    pub observer: Option<Observer>,
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
    observer: Option<Observer>,
}

impl ServerTunnel {
    /// Listens; nothing is accepted before [`run`](Self::run).
    ///
    /// # Errors
    /// [`Endpoint`](crate::Error::Endpoint) if the target cannot be one, and
    /// [`Listen`](crate::Error::Listen).
    pub async fn bind(config: ServerConfig) -> Result<Self> {
        let ServerConfig { listen, target, tls, limits, observer } = config;
        target.as_target()?;
        let tls = Current::new(tls);
        let front = Front::bind(listen, limits.clone()).await?;
        let handshakes = Turns::new(limits.max_handshakes, limits.max_handshakes_of_source);
        let tunnel = Tunnel { tls, target, limits, handshakes, observer };
        Ok(Self { front, tunnel: Arc::new(tunnel) })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn bound_addr(&self) -> &Endpoint {
        self.front.bound_addr()
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
        // What it takes to begin is boxed, since an open connection needs far less.
        let relay = Box::pin(self.establish(stream, peer)).await?;
        relay.run().await;
        Ok(())
    }

    async fn establish(&self, mut stream: Stream, peer: &Peer) -> Result<Relay> {
        let started = Instant::now();
        let after = self.limits.silence_timeout;
        // An error is for the handshake to meet.
        if timeout(after, poll_fn(|cx| stream.poll_readable(cx))).await.is_err() {
            return Err(Error::Silence { peer: peer.name.clone(), after });
        }
        let accepted = {
            let _turn = self.handshakes.take(peer.source).await;
            self.tls.get().handshake(&mut stream, &peer.name).await
        };
        let (mut tls, evidence) = accepted?;
        if let Some(observer) = &self.observer {
            observer(&evidence);
        }
        match self.target.connect(self.limits.connect_timeout).await {
            Ok(plain) => Ok(Relay::new(tls, stream, plain, evidence, started)),
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
