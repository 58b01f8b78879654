//! Plain in, TLS out.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use enclasp_tls::{Client, Credential, Options, server_name};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::Semaphore;

use crate::current::{Current, Replacer};
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
    /// What the target's certificate has to lead to.
    pub roots: Vec<CertificateDer<'static>>,
    /// What the tunnel presents to the target.
    pub credential: Option<Credential>,
    /// TLS versions, ALPN, timeouts of handshakes.
    pub options: Options,
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
    tls: Current<Client, Option<Credential>>,
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
    /// the server's name, the roots or the options cannot be used.
    pub async fn bind(config: ClientConfig) -> Result<Self> {
        let ClientConfig { listen, target, server_name: name, roots, credential, options, limits, observer } =
            config;
        let name = match (name, target.as_target()?) {
            (Some(name), _) => server_name(&name)?,
            (None, Endpoint::Tcp { host, .. }) => server_name(host)?,
            (None, Endpoint::Unix(_)) => {
                let reason = "a Unix socket has no host name: the server's name must be given".into();
                return Err(Error::Endpoint { text: target.to_string(), reason });
            }
        };
        let tls = Current::new(credential, move |credential| {
            Ok(Client::new(&roots, credential, options.clone())?)
        })?;
        let front = Front::bind(listen, limits.clone()).await?;
        let handshakes = Semaphore::new(limits.max_handshakes);
        let tunnel = Tunnel { tls, target, server_name: name, limits, handshakes, observer };
        Ok(Self { front, tunnel: Arc::new(tunnel) })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    pub fn bound_addr(&self) -> &Endpoint {
        self.front.bound_addr()
    }

    /// What replaces the credential while the tunnel runs. Connections that are open go on; new ones
    /// get the new credential.
    pub fn replacer(&self) -> Replacer {
        let tunnel = self.tunnel.clone();
        Replacer::new(move |credential| tunnel.tls.replace(Some(credential)))
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
