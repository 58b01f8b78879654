//! The HTTPS server: connections, their limits, and its own certificate.

use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::{Extension, Router};
use enclasp_keystore::Keystore;
use enclasp_pki::{hex, sha256};
use enclasp_tls::ServerStream;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::audit::{HEAD_INTERVAL, HeadSigner};
use crate::est::{self, Peer};
use crate::http::PlainServer;
use crate::issuance::Issuance;
use crate::metrics::MetricsServer;
use crate::own_certificate::OwnCertificate;
use crate::publication::Publication;
use crate::{Authority, Error, Result};

/// How many connections may be at their requests at once; more wait after their handshake.
const MAX_CONNECTIONS: usize = 1024;
/// How many may be open that are not there yet; more wait in the listener's queue.
const MAX_ARRIVALS: usize = 4096;
/// How long a client may send nothing at all.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client has to send the head of a request, and may be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may be, in bytes. A token with some hundred names fits; of a longer
/// one, the part before its dot.
const MAX_HEAD: usize = 64 * 1024;
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a client that is still sending has to notice that it was answered.
const LINGER: Duration = Duration::from_secs(2);
/// How long open requests have to end when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
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
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
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
    /// [`Error::Listen`]; [`Error::IssuingKey`], [`Error::WrongKey`], [`Error::Copied`]; what the keystore and the database say.
    pub async fn bind(authority: Authority, keystore: Arc<dyn Keystore>, listen: &str) -> Result<Self> {
        let failed = |e: std::io::Error| Error::Listen { address: listen.to_owned(), reason: e.to_string() };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let issuance = Arc::new(Issuance::open(authority.clone(), keystore.clone()).await?);
        issuance.prove_key().await?;
        let settings = hex(&sha256(authority.config().to_toml()?.as_bytes()));
        authority.store().note(json!({ "event": "serving", "settings_sha256": settings })).await?;
        let heads = HeadSigner::open(authority, keystore.clone()).await?;
        let own = OwnCertificate::open(issuance.clone(), keystore).await?;
        let (tls, due) = own.fresh().await?;
        Ok(Self {
            listener,
            address,
            router: est::router(issuance),
            own,
            tls,
            due,
            plain: None,
            metrics: None,
            heads,
        })
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
    /// [`Error::Listen`].
    pub async fn with_metrics(self, keystore: Arc<dyn Keystore>, listen: &str) -> Result<Self> {
        let metrics = MetricsServer::bind(self.own.issuance(), keystore, listen).await?;
        Ok(Self { metrics: Some(metrics), ..self })
    }

    /// Where it answers with its metrics.
    pub fn address_of_metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsServer::address)
    }

    /// Where it listens in the clear.
    pub fn address_in_the_clear(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(PlainServer::address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready, then lets open requests end, for 10 s at most.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, router, own, tls, due, plain, metrics, heads, .. } = self;
        let (tls, presented) = watch::channel(tls);
        let (stop, stopped) = watch::channel(false);
        let arrivals = Arc::new(Semaphore::new(MAX_ARRIVALS));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
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
            () = async {
                loop {
                    let Ok(arrival) = arrivals.clone().acquire_owned().await else { return };
                    let (tcp, peer) = match listener.accept().await {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a connection");
                            sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    };
                    while connections.try_join_next().is_some() {}
                    let tls = presented.borrow().clone();
                    let (router, stopped) = (router.clone(), stopped.clone());
                    let places = places.clone();
                    let served = async move {
                        let Some(stream) = handshake(tcp, peer, &tls).await else { return };
                        let Ok(_place) = places.acquire().await else { return };
                        drop(arrival);
                        serve(stream, peer, router, stopped).await;
                    };
                    connections.spawn(async move {
                        if timeout(CONNECTION_TIMEOUT, served).await.is_err() {
                            tracing::debug!(%peer, "a connection lasted too long");
                        }
                    });
                }
            } => {}
        }
        drop(listener);
        stop.send_replace(true);
        let ended = timeout(SHUTDOWN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!(connections = connections.len(), "cut off at shutdown");
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

async fn handshake(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: &enclasp_tls::Server,
) -> Option<ServerStream<TcpStream>> {
    if timeout(SILENCE_TIMEOUT, tcp.peek(&mut [0])).await.is_err() {
        tracing::info!(%peer, "said nothing");
        return None;
    }
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    match tls.accept(tcp, &peer.to_string()).await {
        Ok((stream, _evidence)) => Some(stream),
        Err(error) => {
            tracing::info!(%peer, %error, "handshake failed");
            None
        }
    }
}

/// What follows on the handshake: requests, and the end.
async fn serve(
    stream: ServerStream<TcpStream>,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let client = Peer(certificate.map(|certificate| certificate.clone().into_owned()));
    let routes = TowerToHyperService::new(router.layer(Extension(client)));
    let service = service_fn(move |request| Box::pin(routes.call(request)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    match ended {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        Err(error) => tracing::debug!(%peer, %error, "connection broke"),
    }
}

/// Closes a connection so that the last answer arrives even at a client that is still sending:
/// closing a socket with unread data resets it, and takes the answer along.
async fn linger(mut stream: ServerStream<TcpStream>) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let (mut tcp, _) = stream.into_inner();
    let mut unread = [0; 8192];
    let drained = async { while matches!(tcp.read(&mut unread).await, Ok(1..)) {} };
    // Whether the client has closed or not, this end does now.
    let _ = timeout(LINGER, drained).await;
}
