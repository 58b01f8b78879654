//! What the service manager is told (sd_notify(3)), if there is one; a worker tells its parent, which tells it.

use enclasp_tunnel::Endpoint;
use sd_notify::NotifyState;
use tokio::time::interval;

use super::fleet::Fleet;
use super::worker::{Above, Said};
use crate::failure::Outcome;

/// Everything listens: the tunnels of `fleet`, and the status.
pub(super) fn serves(above: &Above, fleet: &Fleet, status: Option<&Endpoint>) -> Outcome {
    match above {
        Above::Nobody => ready(),
        Above::Parent(parent, _) => {
            let addresses = fleet.listens_on().chain(status).map(ToString::to_string);
            parent.tell(&Said::Ready(addresses.collect()))?;
        }
    }
    Ok(())
}

/// Everything listens.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Nobody new gets in any more.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Somebody serves.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Tells the watchdog that we are alive, for ever, twice in the time that it allows.
pub(super) async fn watchdog(above: &Above) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = interval(limit / 2);
    loop {
        ticks.tick().await;
        match above {
            Above::Nobody => alive(),
            // One that is gone is not alive either.
            Above::Parent(parent, _) => drop(parent.tell(&Said::Alive)),
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(cause = %error, "the service manager cannot be told");
    }
}
