//! Keeping what a running tunnel presents and trusts up to date.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enclasp_identity::Identity;
use enclasp_tls::{Client, Server};
use enclasp_tunnel::{Current, Health, Observer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::agents::Agents;
use super::fleet::show;
use super::lists::Lists;
use super::plan::{Material, Parts, Plan, Stamp, Tls};
use super::staple::Staple;
use crate::failure::{Failure, Outcome};
use crate::{command, session};

/// How often a running tunnel looks whether anything changed.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// What new connections of a running tunnel are made with.
pub(super) enum InUse {
    Server(Current<Server>),
    Client(Current<Client>),
}

impl InUse {
    fn replace(&self, tls: Tls) {
        match (self, tls) {
            (Self::Server(current), Tls::Server(server)) => current.replace(server),
            (Self::Client(current), Tls::Client(client)) => current.replace(client),
            // A plan does not change its side.
            _ => {}
        }
    }
}

/// Keeps a running tunnel up to date.
pub(super) struct Reload {
    pub(super) agents: Agents,
    pub(super) plan: Arc<Plan>,
    pub(super) in_use: InUse,
    pub(super) stamp: Stamp,
    /// What `in_use` is made of, and the lists that it looks certificates up in.
    pub(super) parts: Parts,
    pub(super) lists: Arc<Lists>,
    /// Changes when there are newer ones.
    pub(super) newer_lists: watch::Receiver<()>,
    pub(super) staple: Staple,
    pub(super) identity: Presented,
    pub(super) health: Health,
    /// What the status presents, if it is this tunnel's certificate.
    pub(super) status: Option<Current<Server>>,
    /// Changes when a reload is asked for.
    pub(super) asked: watch::Receiver<()>,
}

impl Reload {
    /// Reads everything again when it is asked for, when it is time, and when something changed, for
    /// ever. What cannot be read or used leaves the old one in use.
    pub(super) async fn run(mut self) {
        let mut complained = None;
        let mut last = Instant::now();
        loop {
            let asked = tokio::select! {
                () = sleep(LOOK) => false,
                // When the sender is gone, the process is about to end.
                asked = self.asked.changed() => match asked {
                    Ok(()) => true,
                    Err(_) => return,
                },
                Ok(()) = self.newer_lists.changed() => {
                    self.use_newer_lists().await;
                    continue;
                }
            };
            let due = self.plan.timed_reload.is_some_and(|every| last.elapsed() >= every);
            let loaded = self.load_if(asked || due).await;
            if asked || due {
                last = Instant::now();
                complained = None;
            }
            match loaded {
                Ok(None) => {}
                Ok(Some(material)) => {
                    complained = None;
                    self.take(material);
                }
                Err(failure) => {
                    let cause = failure.message().to_owned();
                    if complained.as_ref() != Some(&cause) {
                        tracing::warn!(listen = %self.plan.listen, %cause, "cannot reload; what was loaded before stays in use");
                    }
                    complained = Some(cause);
                }
            }
        }
    }

    async fn load_if(&self, anyway: bool) -> Outcome<Option<(Material, Tls)>> {
        let (plan, agents, stamp) = (self.plan.clone(), self.agents.clone(), self.stamp.clone());
        let (lists, staple) = (self.lists.clone(), self.staple.clone());
        command::blocking(move || match anyway || plan.has_changed(&stamp, &agents)? {
            true => {
                let material = plan.load(&agents)?;
                let tls = material.parts.tls(lists.revocation(), &staple)?;
                Ok(Some((material, tls)))
            }
            false => Ok(None),
        })
        .await
    }

    /// Has new connections looked up in the lists as they are now.
    async fn use_newer_lists(&self) {
        let (parts, lists, staple) = (self.parts.clone(), self.lists.clone(), self.staple.clone());
        match command::blocking(move || parts.tls(lists.revocation(), &staple)).await {
            Ok(tls) => {
                self.in_use.replace(tls);
                tracing::info!(listen = %self.plan.listen, "new connections are looked up in the newer lists");
            }
            Err(failure) => {
                let cause = failure.message();
                tracing::warn!(listen = %self.plan.listen, %cause, "cannot use newer lists of revoked certificates");
            }
        }
    }

    fn take(&mut self, (material, tls): (Material, Tls)) {
        let Material { parts, identity, stamp } = material;
        let presented = parts.credential();
        if let (Some(status), Some(credential)) = (&self.status, presented) {
            show(status, credential);
        }
        let renewed = identity.is_some() && identity != self.stamp.identity;
        let message = if renewed { "the identity was renewed" } else { "reloaded" };
        tracing::info!(
            listen = %self.plan.listen,
            key = presented.map(|credential| credential.uri().to_string()),
            certificate = presented.map(|credential| credential.leaf().describe()),
            software = presented.map(|credential| credential.is_software()),
            "{message}; new connections use it"
        );
        self.in_use.replace(tls);
        self.health.reloaded();
        self.stamp = stamp;
        self.parts = parts;
        self.identity.set(identity);
    }
}

/// The identity that a tunnel presents at the moment, if it is one.
#[derive(Clone)]
pub(super) struct Presented(Arc<Mutex<Option<Identity>>>);

impl Presented {
    pub(super) fn new(identity: Option<Identity>) -> Self {
        Self(Arc::new(Mutex::new(identity)))
    }

    pub(super) fn get(&self) -> Option<Identity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, identity: Option<Identity>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Notices the use of a new key after a rekey, so that the old one goes.
    pub(super) fn observer(&self, agents: &Agents) -> Option<Observer> {
        self.get()?;
        let (this, agents) = (self.clone(), agents.clone());
        Some(Arc::new(move |evidence| {
            let Some(identity) = this.get().filter(|identity| identity.retired.is_some()) else { return };
            if evidence.local.key.as_ref() == Some(&identity.key.to_string()) {
                let agents = agents.clone();
                tokio::task::spawn_blocking(move || {
                    let used = agents.state().map(|state| session::used(&state, &identity));
                    used.unwrap_or_else(|failure: Failure| {
                        tracing::warn!(cause = failure.message(), "the old key stays")
                    });
                });
            }
        }))
    }
}
