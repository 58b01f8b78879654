//! Accepting connections, within bounds, until told to stop.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::endpoint::{Listener, Stream};
use crate::{Endpoint, Error, Limits, Result};

/// How long to wait after `accept` failed for want of something (file descriptors, memory): from
/// the first to the longest, doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The side of a tunnel that listens.
#[derive(Debug)]
pub(crate) struct Front {
    listener: Listener,
    bound: Endpoint,
    limits: Limits,
}

impl Front {
    pub(crate) async fn bind(listen: Endpoint, limits: Limits) -> Result<Self> {
        let listener = listen.listen().await?;
        let bound = listener.endpoint().map_err(|source| Error::Listen { endpoint: listen, source })?;
        Ok(Self { listener, bound, limits })
    }

    pub(crate) fn bound_addr(&self) -> &Endpoint {
        &self.bound
    }

    /// Has `carry` deal with each connection and the name of its other end, until `shutdown`
    /// completes; then lets what is open go on for the drain timeout.
    pub(crate) async fn run<C, F>(self, shutdown: impl Future<Output = ()>, carry: C)
    where
        C: Fn(Stream, String) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, limits, .. } = self;
        let mut connections = JoinSet::new();
        accept(&listener, &limits, shutdown, carry, &mut connections).await;
        // From here on a successor can listen there.
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(limits.drain_timeout, drained).await.is_err() {
            tracing::warn!(connections = connections.len(), "ending connections that are still open");
            connections.shutdown().await;
        }
    }
}

async fn accept<C, F>(
    listener: &Listener,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
    carry: C,
    connections: &mut JoinSet<()>,
) where
    C: Fn(Stream, String) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let mut shutdown = pin!(shutdown);
    let mut backoff = BACKOFF.0;
    loop {
        let next = async {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = BACKOFF.0;
                let carried = carry(stream, peer);
                connections.spawn(async move {
                    let _slot = slot;
                    carried.await;
                });
            }
            Err(e) if of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept connections");
                tokio::select! {
                    () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF.1),
                    () = &mut shutdown => return,
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
