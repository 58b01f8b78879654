//! Listeners for TLS: connections, their limits, and their end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use enclasp_tls::ServerStream;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{Error, Result};

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

/// The client certificate that a connection was authenticated with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer(pub(crate) Option<CertificateDer<'static>>);

/// A bound listener.
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `listen`, which is `HOST:PORT`; port 0 picks a free one.
    pub(crate) async fn bind(listen: &str) -> Result<Self> {
        let failed = |e: std::io::Error| Error::Listen { address: listen.to_owned(), reason: e.to_string() };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Presents the latest of `tls` and serves `router`, whose requests have a [`Peer`], until `stopped` says
    /// so; then lets open requests end, for 10 s at most.
    pub(crate) async fn serve(
        self,
        router: Router,
        tls: watch::Receiver<enclasp_tls::Server>,
        stopped: watch::Receiver<bool>,
    ) {
        let arrivals = Arc::new(Semaphore::new(MAX_ARRIVALS));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                let Ok(arrival) = arrivals.clone().acquire_owned().await else { return };
                let (tcp, peer) = match self.listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                while connections.try_join_next().is_some() {}
                let tls = tls.borrow().clone();
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
        };
        tokio::select! {
            () = accepting => {}
            () = stop(stopped.clone()) => {}
        }
        drop(self.listener);
        let ended = timeout(SHUTDOWN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!(connections = connections.len(), "cut off at shutdown");
        }
    }
}

/// Ends when the server shall, or is gone.
async fn stop(mut stopped: watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
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
    stopped: watch::Receiver<bool>,
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
        () = stop(stopped) => None,
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
