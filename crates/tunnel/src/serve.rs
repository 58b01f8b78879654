//! Accepting connections, within bounds, until told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::endpoint::{Accepted, Listener, Peer, Stream};
use crate::workers::{Gone, Workers};
use crate::{Bound, Endpoint, Error, Limits, Result};

/// How long to wait after `accept` failed for want of something (file descriptors, memory): from
/// the first to the longest, doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The side of a tunnel that listens.
#[derive(Debug)]
pub(crate) struct Front {
    listener: Listener,
    bound: Endpoint,
    limits: Limits,
    workers: Workers,
    gone: Gone,
    closing: watch::Sender<()>,
}

/// Completes when a tunnel takes nobody new any more: a successor that begins to accept then has all
/// who come after that.
#[derive(Clone, Debug)]
pub struct Closed(watch::Receiver<()>);

impl Closed {
    /// Waits for it.
    pub async fn wait(mut self) {
        // Nothing is ever sent.
        while self.0.changed().await.is_ok() {}
    }
}

impl Front {
    pub(crate) fn new(listen: Bound, limits: Limits) -> Result<Self> {
        let bound = listen.at().clone();
        let listener = listen.listener;
        let (workers, gone) = Workers::start(limits.threads)
            .map_err(|source| Error::Threads { count: limits.threads, source })?;
        Ok(Self { listener, bound, limits, workers, gone, closing: watch::Sender::new(()) })
    }

    pub(crate) fn bound_addr(&self) -> &Endpoint {
        &self.bound
    }

    pub(crate) fn closed(&self) -> Closed {
        Closed(self.closing.subscribe())
    }

    /// Has `carry` deal with each connection and who is at its other end, until `shutdown`
    /// completes; then lets what is open go on for the drain timeout.
    pub(crate) async fn run<C, F>(self, shutdown: impl Future<Output = ()>, carry: C)
    where
        C: Fn(Stream, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, limits, workers, gone, closing, .. } = self;
        let closed = Closed(closing.subscribe());
        let most = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
        let slots = Arc::new(Semaphore::new(most as usize));
        let (stop, stopped) = oneshot::channel();
        workers.spawn_on_first({
            let (slots, workers) = (slots.clone(), workers.clone());
            async move {
                accept(listener, &slots, stopped, |accepted, slot| {
                    let carry = carry.clone();
                    workers.spawn(async move {
                        let _slot = slot;
                        match accepted.into_stream() {
                            Ok((stream, peer)) => carry(stream, peer).await,
                            Err(error) => tracing::warn!(%error, "lost a connection that was accepted"),
                        }
                    });
                })
                .await;
                drop(closing);
            }
        });
        shutdown.await;
        drop(stop);
        // From then on a successor can listen there.
        closed.wait().await;
        if timeout(limits.drain_timeout, slots.acquire_many(most)).await.is_err() {
            let connections = most as usize - slots.available_permits();
            tracing::warn!(connections, "ending connections that are still open");
        }
        drop(workers);
        gone.wait().await;
    }
}

async fn accept(
    listener: Listener,
    slots: &Arc<Semaphore>,
    mut stopped: oneshot::Receiver<Infallible>,
    take: impl Fn(Accepted, OwnedSemaphorePermit),
) {
    let acceptor = match listener.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    let mut backoff = BACKOFF.0;
    loop {
        let next = async {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok()?;
            Some((slot, acceptor.accept().await))
        };
        let (slot, accepted) = tokio::select! {
            Some(next) = next => next,
            _ = &mut stopped => return,
        };
        match accepted {
            Ok(accepted) => {
                backoff = BACKOFF.0;
                take(accepted, slot);
            }
            Err(e) if of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept connections");
                tokio::select! {
                    () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF.1),
                    _ = &mut stopped => return,
                }
            }
        }
    }
}

/// Whether the error is about a connection that was gone before it was accepted.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}
