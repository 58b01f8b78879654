//! The server: its listeners, and what it does by itself while it runs.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use enclasp_keystore::Keystore;
use enclasp_pki::{hex, sha256};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::audit::{HEAD_INTERVAL, HeadSigner};
use crate::http::PlainServer;
use crate::https::Listener;
use crate::issuance::Issuance;
use crate::metrics::MetricsServer;
use crate::own_certificate::OwnCertificate;
use crate::publication::Publication;
use crate::{Authority, Result, console, est};

/// How soon to look again after a renewal, so that a lifetime of seconds makes no busy loop.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
/// How soon to try again when the own certificate could not be renewed.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);
/// How long tokens are remembered after their lifetime, so that a late device is told why it is
/// refused.
const TOKENS_REMEMBERED: Duration = Duration::from_secs(7 * 86_400);
/// How often to look for tokens to forget.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
/// How long to sleep at most before looking at the clock again: it may be set.
const CLOCK_CHECK: Duration = Duration::from_secs(600);

/// A bound server, whose keys are open and whose certificate is fresh.
pub struct Server {
    est: (Listener, Router),
    console: Option<(Listener, Router)>,
    own: OwnCertificate,
    tls: enclasp_tls::Server,
    due: SystemTime,
    plain: Option<PlainServer>,
    metrics: Option<MetricsServer>,
    heads: Option<HeadSigner>,
}

impl Server {
    /// Opens the keys, gets a server certificate if none is there or it is due, and listens.
    /// `listen` is `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen); [`Error::IssuingKey`](crate::Error::IssuingKey),
    /// [`Error::WrongKey`](crate::Error::WrongKey), [`Error::Copied`](crate::Error::Copied); what the keystore and the
    /// database say.
    pub async fn bind(authority: Authority, keystore: Arc<dyn Keystore>, listen: &str) -> Result<Self> {
        let listener = Listener::bind(listen).await?;
        let issuance = Arc::new(Issuance::open(authority.clone(), keystore.clone()).await?);
        issuance.prove_key().await?;
        let settings = hex(&sha256(authority.config().to_toml()?.as_bytes()));
        authority.store().note(json!({ "event": "serving", "settings_sha256": settings })).await?;
        let heads = HeadSigner::open(authority, keystore.clone()).await?;
        let own = OwnCertificate::open(issuance.clone(), keystore).await?;
        let (tls, due) = own.fresh().await?;
        let est = (listener, est::router(issuance));
        Ok(Self { est, console: None, own, tls, due, plain: None, metrics: None, heads })
    }

    /// Listens in the clear as well, for those who fetch CRLs and issuing certificates and ask OCSP.
    /// `listen` is `HOST:PORT`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn in_the_clear(self, keystore: Arc<dyn Keystore>, listen: &str) -> Result<Self> {
        let publication = Publication::open(self.own.issuance(), keystore).await?;
        Ok(Self { plain: Some(PlainServer::bind(listen, publication).await?), ..self })
    }

    /// Answers `GET /metrics` in Prometheus's text format on a listener of its own, in the clear.
    /// `listen` is `HOST:PORT`.
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen).
    pub async fn with_metrics(self, keystore: Arc<dyn Keystore>, listen: &str) -> Result<Self> {
        let metrics = MetricsServer::bind(self.own.issuance(), keystore, listen).await?;
        Ok(Self { metrics: Some(metrics), ..self })
    }

    /// Serves the console on a listener of its own, to whoever has a certificate of the profile `admin` or
    /// `viewer`. `listen` is `HOST:PORT`.
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen), [`Error::Random`](crate::Error::Random).
    pub async fn with_console(self, keystore: Arc<dyn Keystore>, listen: &str) -> Result<Self> {
        let listener = Listener::bind(listen).await?;
        let router = console::router(self.own.authority().clone(), keystore)?;
        Ok(Self { console: Some((listener, router)), ..self })
    }

    /// Where it answers with its metrics.
    pub fn address_of_metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Where it listens in the clear.
    pub fn address_in_the_clear(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(PlainServer::address)
    }

    /// Where its console is.
    pub fn address_of_console(&self) -> Option<SocketAddr> {
        self.console.as_ref().map(|(listener, _)| listener.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.est.0.address()
    }

    /// Serves until `shutdown` is ready, then lets open requests end, for 10 s at most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { est, console, own, tls, due, plain, metrics, heads } = self;
        let (tls, presented) = watch::channel(tls);
        let (stop, stopped) = watch::channel(false);
        let served = [Some(est), console].into_iter().flatten().map(|(listener, router)| {
            tokio::spawn(listener.serve(router, presented.clone(), stopped.clone()))
        });
        let served: Vec<_> = served.collect();
        tokio::select! {
            () = shutdown => {}
            () = keep_fresh(&own, &tls, due) => {}
            () = keep_house(own.authority()) => {}
            () = sign_heads(heads) => {}
            () = async {
                match plain {
                    Some(plain) => plain.run().await,
                    None => pending().await,
                }
            } => {}
            () = async {
                match metrics {
                    Some(metrics) => metrics.run().await,
                    None => pending().await,
                }
            } => {}
        }
        stop.send_replace(true);
        for listener in served {
            if let Err(error) = listener.await {
                tracing::error!(%error, "a listener failed");
            }
        }
    }
}

/// Renews the own certificate at two thirds of its life, for ever.
async fn keep_fresh(own: &OwnCertificate, tls: &watch::Sender<enclasp_tls::Server>, mut due: SystemTime) {
    loop {
        match due.duration_since(SystemTime::now()) {
            Ok(left) => sleep(left.min(CLOCK_CHECK)).await,
            Err(_) => match own.fresh().await {
                Ok((server, next)) => {
                    tls.send_replace(server);
                    due = next;
                    sleep(RENEWAL_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot renew the server's own certificate");
                    sleep(RENEWAL_RETRY).await;
                }
            },
        }
    }
}

/// Forgets what is of no use any more, for ever.
async fn keep_house(authority: &Authority) {
    loop {
        if let Some(before) = SystemTime::now().checked_sub(TOKENS_REMEMBERED)
            && let Err(error) = authority.store().purge_tokens(before).await
        {
            tracing::warn!(%error, "cannot forget old tokens");
        }
        sleep(HOUSEKEEPING).await;
    }
}

/// Signs where the audit log ends, for ever.
async fn sign_heads(signer: Option<HeadSigner>) {
    let Some(mut signer) = signer else { return pending().await };
    loop {
        if let Err(error) = signer.sign().await {
            tracing::error!(%error, "cannot sign the head of the audit log");
        }
        sleep(HEAD_INTERVAL).await;
    }
}
