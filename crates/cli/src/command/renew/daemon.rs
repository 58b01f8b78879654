//! Renewing whatever is due, once or for as long as the machine runs.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use enclasp_enroll::duration;
use enclasp_enroll::schedule::{Backoff, due};
use enclasp_identity::{Identity, State};
use enclasp_pki::{Certificate, rfc3339};
use tokio::time::sleep;

use super::{NotRenewed, Renew, announce, renewed};
use crate::failure::{Failure, Outcome};
use crate::signals;

/// How often to look for new identities, and at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(60);

/// How soon a certificate that was renewed may be renewed again, whatever `--before` says.
const REST: Duration = Duration::from_secs(60);

/// How the renewal of one identity is going.
#[derive(Default)]
struct Plan {
    backoff: Backoff,
    /// Nothing is tried before.
    next: Option<SystemTime>,
    /// The certificate whose time was told.
    told: String,
}

/// Renews what is due now.
pub(super) async fn once(state: &State, renew: &Renew) -> Outcome {
    let mut failed = Vec::new();
    for identity in renewable(state, renew.identity.as_deref())? {
        if time_of(&identity.leaf()?, renew.before) <= SystemTime::now()
            && attempt(state, renew, &identity, &mut Plan::default()).await.is_err()
        {
            failed.push(identity.name);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("not renewed: {}", failed.join(", ")))) }
}

/// Renews each identity when it is due, until the process is told to end.
pub(super) async fn forever(state: &State, renew: &Renew) -> Outcome {
    tokio::select! {
        () = signals::shutdown() => Ok(()),
        never = rounds(state, renew) => never,
    }
}

/// Renews each identity when it is due, for ever.
pub(super) async fn rounds(state: &State, renew: &Renew) -> Outcome {
    let mut plans = BTreeMap::<String, Plan>::new();
    loop {
        let mut wake = SystemTime::now() + LOOK;
        match renewable(state, renew.identity.as_deref()) {
            Ok(identities) => {
                plans.retain(|name, _| identities.iter().any(|identity| identity.name == *name));
                for identity in identities {
                    let plan = plans.entry(identity.name.clone()).or_default();
                    if let Some(next) = round(state, renew, &identity, plan).await {
                        wake = wake.min(next);
                    }
                }
            }
            Err(failure) => tracing::error!(error = failure.message(), "cannot list the identities"),
        }
        // A moment at least, so that nothing makes a busy loop.
        let pause = wake.duration_since(SystemTime::now()).unwrap_or_default();
        sleep(pause.max(Duration::from_millis(500))).await;
    }
}

/// Renews an identity if it is time to. Returns when to look again.
async fn round(state: &State, renew: &Renew, identity: &Identity, plan: &mut Plan) -> Option<SystemTime> {
    let leaf = match identity.leaf() {
        Ok(leaf) => leaf,
        Err(error) => {
            tracing::error!(identity = %identity.name, %error, "cannot be renewed");
            return None;
        }
    };
    let time = time_of(&leaf, renew.before);
    let at = plan.next.map_or(time, |next| next.max(time));
    if plan.told != leaf.serial() {
        leaf.serial().clone_into(&mut plan.told);
        let not_after = rfc3339(leaf.not_after());
        tracing::info!(identity = %identity.name, %not_after, at = %rfc3339(at), "will be renewed");
    }
    if at > SystemTime::now() {
        return Some(at);
    }
    // What went wrong was said.
    let _ = attempt(state, renew, identity, plan).await;
    plan.next
}

async fn attempt(state: &State, renew: &Renew, identity: &Identity, plan: &mut Plan) -> Result<(), ()> {
    let name = &identity.name;
    let not_after = identity.leaf().map_or(SystemTime::UNIX_EPOCH, |leaf| leaf.not_after());
    match renewed(state, identity, renew.rekey).await {
        Ok(renewed) => {
            *plan = Plan { next: Some(SystemTime::now() + REST), ..Plan::default() };
            let not_after = renewed.leaf().map_or_else(|_| String::new(), |leaf| rfc3339(leaf.not_after()));
            tracing::info!(identity = %name, %not_after, "renewed");
            announce(renew.exec.as_deref(), &renewed).await.map_err(|failure| {
                tracing::error!(identity = %name, error = failure.message(), "it is renewed, but the command failed");
            })
        }
        Err(NotRenewed { failure, retry_after }) => {
            let now = SystemTime::now();
            let left = not_after.duration_since(now).unwrap_or_default();
            let pause = plan.backoff.next(retry_after, left);
            plan.next = Some(now + pause);
            let safe = if left.is_zero() {
                format!("its certificate ended at {}", rfc3339(not_after))
            } else {
                format!("its certificate is good until {}", rfc3339(not_after))
            };
            let again = duration::format(pause);
            tracing::warn!(identity = %name, error = failure.message(), %again, "not renewed; {safe}");
            if let Some(hint) = failure.next_step() {
                tracing::warn!(identity = %name, "hint: {hint}");
            }
            Err(())
        }
    }
}

/// When a certificate is to be renewed: `before` its end, or at about two thirds of its life.
fn time_of(leaf: &Certificate, before: Option<Duration>) -> SystemTime {
    match before {
        None => due(leaf),
        Some(before) => leaf.not_after().checked_sub(before).unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

/// The identities that an authority can renew, or the one that was named.
fn renewable(state: &State, only: Option<&str>) -> Outcome<Vec<Identity>> {
    let store = state.identities()?;
    if let Some(name) = only {
        return Ok(vec![store.get(name)?]);
    }
    let identities = store.list()?.into_iter().filter_map(|identity| match identity {
        Ok(identity) => Some(identity),
        Err(error) => {
            tracing::warn!(%error, "an identity is passed over");
            None
        }
    });
    Ok(identities.filter(|identity| identity.authority.is_some()).collect())
}
