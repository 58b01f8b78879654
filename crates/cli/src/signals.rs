//! The signals that end a server, and those that have it read its files again.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Outcome;

/// Ready at the first SIGTERM or SIGINT.
pub(crate) async fn shutdown() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught; the process ends without draining");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Ready when the parent of a worker has another one serve: at SIGUSR2.
pub(crate) async fn retirement() {
    match signal(SignalKind::user_defined2()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// What tells `ask` of each SIGHUP and SIGUSR1 from now on, for as long as it is polled.
pub(crate) fn reloads(ask: watch::Sender<()>) -> Outcome<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {}
                _ = user.recv() => {}
            }
            ask.send_replace(());
        }
    })
}
