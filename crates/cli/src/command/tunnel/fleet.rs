//! The tunnels of one process: prepared all or none, launched in the place of those before them.

use std::collections::BTreeMap;
use std::sync::Arc;

use enclasp_tls::{Credential, Options, Server};
use enclasp_tunnel::{
    Bound, ClientConfig, ClientTunnel, Closed, Current, Endpoint, Health, Metrics, ServerConfig, ServerTunnel,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agents::Agents;
use super::lists::Lists;
use super::plan::{Material, Parts, Plan, Side, Stamp, Tls};
use super::reload::{InUse, Presented, Reload};
use super::staple::Staple;
use super::told;
use super::worker::Above;
use crate::args::Global;
use crate::command::renew;
use crate::failure::Outcome;
use crate::{command, output};

/// The tunnels that run.
pub(super) struct Fleet {
    agents: Agents,
    pub(super) above: Above,
    pub(super) metrics: Metrics,
    /// How each is.
    pub(super) healths: Current<Vec<Health>>,
    /// What the status presents, if it presents anything: the first tunnel's certificate.
    pub(super) status_tls: Option<Current<Server>>,
    afloat: Vec<Afloat>,
    running: JoinSet<()>,
    /// The renewal of each identity that a tunnel renews.
    renewals: JoinSet<()>,
    asked: watch::Receiver<()>,
}

/// One that runs.
struct Afloat {
    listen: Endpoint,
    /// For its successor.
    bound: Bound,
    lists: Arc<Lists>,
    health: Health,
    /// Tells it to take nobody new.
    stop: watch::Sender<bool>,
    /// When it does not.
    closed: Closed,
}

/// Tunnels that listen and do not accept yet.
pub(super) struct Ready(Vec<Prepared>);

struct Prepared {
    plan: Arc<Plan>,
    tunnel: Tunnel,
    bound: Bound,
    identity: Presented,
    stamp: Stamp,
    parts: Parts,
    lists: Arc<Lists>,
    staple: Staple,
}

impl Fleet {
    pub(super) fn new(agents: Agents, asked: watch::Receiver<()>, above: Above) -> Self {
        Self {
            agents,
            above,
            metrics: Metrics::default(),
            healths: Current::new(Vec::new()),
            status_tls: None,
            afloat: Vec::new(),
            running: JoinSet::new(),
            renewals: JoinSet::new(),
            asked,
        }
    }

    /// Reads what all of `plans` need and listens where they shall. A socket that a tunnel listens on
    /// already is shared with it.
    ///
    /// # Errors
    /// The first failure; nothing is left of the others then.
    pub(super) async fn prepare(&self, plans: Vec<Plan>) -> Outcome<Ready> {
        let mut prepared = Vec::new();
        let lists_before: Vec<_> = self.afloat.iter().map(|afloat| afloat.lists.clone()).collect();
        for plan in plans {
            plan.resolve().await?;
            let plan = Arc::new(plan);
            let lists = Lists::open(&plan.revocation, &lists_before).await?;
            let Material { parts, identity, stamp } = {
                let (plan, agents) = (plan.clone(), self.agents.clone());
                command::blocking(move || plan.load(&agents)).await?
            };
            let staple = plan.staple(&parts);
            if let Some(credential) = parts.credential() {
                staple.begin(credential).await?;
            }
            let tls = {
                let (parts, revocation, staple) = (parts.clone(), lists.revocation(), staple.clone());
                command::blocking(move || parts.tls(revocation, &staple)).await?
            };
            let bound = match self.afloat.iter().find(|afloat| afloat.listen == plan.listen) {
                Some(before) => before.bound.try_clone()?,
                None => self.above.listen(&plan.listen).await?,
            };
            let identity = Presented::new(identity);
            let listen = bound.try_clone()?;
            let tunnel = Tunnel::new(&plan, listen, tls, self.metrics.clone(), &identity, &self.agents)?;
            prepared.push(Prepared { plan, tunnel, bound, identity, stamp, parts, lists, staple });
        }
        Ok(Ready(prepared))
    }

    /// The addresses of those that run, as they were asked for.
    pub(super) fn listens_on(&self) -> impl Iterator<Item = &Endpoint> {
        self.afloat.iter().map(|afloat| &afloat.listen)
    }

    /// Runs them, when those before take nobody new any more, which go on with what is open.
    pub(super) async fn launch(&mut self, ready: Ready) {
        self.stop();
        for afloat in self.afloat.drain(..) {
            afloat.closed.wait().await;
        }
        self.renew(&ready);
        let mut status = self.status_tls.clone();
        let mut afloat = Vec::new();
        for prepared in ready.0 {
            let Prepared { plan, tunnel, bound, identity, stamp, parts, lists, staple } = prepared;
            // The first certificate is the status's.
            let status = parts.credential().and_then(|_| status.take());
            if let (Some(status), Some(credential)) = (&status, parts.credential()) {
                show(status, credential);
            }
            let health = Health::new(bound.at().clone(), plan.target.clone(), plan.side.check());
            let (stop, stopped) = watch::channel(false);
            let reload = Reload {
                agents: self.agents.clone(),
                plan: plan.clone(),
                in_use: tunnel.in_use(),
                stamp,
                parts,
                lists: lists.clone(),
                newer_lists: lists.changes(),
                staple: staple.clone(),
                identity,
                health: health.clone(),
                status,
                asked: self.asked.clone(),
            };
            let follow_staple = tunnel.follow_staple(staple);
            let follow_lists = lists.clone().follow(health.clone(), self.asked.clone());
            afloat.push(Afloat {
                listen: plan.listen.clone(),
                bound,
                lists,
                health,
                stop,
                closed: tunnel.closed(),
            });
            self.running.spawn(async move {
                let run = tunnel.run(told(stopped));
                tokio::select! {
                    () = run => {}
                    () = reload.run() => {}
                    () = follow_lists => {}
                    () = follow_staple => {}
                }
            });
        }
        self.healths.replace(afloat.iter().map(|afloat| afloat.health.clone()).collect());
        self.afloat = afloat;
    }

    /// Renews the identities of these tunnels in the place of those before. A renewal that is under way may be
    /// interrupted at any time.
    fn renew(&mut self, ready: &Ready) {
        let renewing = ready.0.iter().filter(|prepared| prepared.plan.renew);
        let identities = renewing.filter_map(|prepared| prepared.identity.get());
        let identities: BTreeMap<_, _> = identities.map(|identity| (identity.name, identity.key)).collect();
        self.renewals = JoinSet::new();
        for (name, key) in identities {
            let agents = self.agents.clone();
            self.renewals.spawn(async move {
                let kept = match agents.state_of(&key) {
                    Ok(state) => renew::keep(&state, name).await,
                    Err(failure) => Err(failure),
                };
                if let Err(failure) = kept {
                    tracing::error!(cause = failure.message(), "identities are not renewed");
                }
            });
        }
    }

    /// Has all take nobody new, and waits until what is open has ended or its time is over.
    pub(super) async fn end(&mut self) {
        self.stop();
        self.afloat.clear();
        while self.running.join_next().await.is_some() {}
    }

    fn stop(&self) {
        for afloat in &self.afloat {
            afloat.health.stopping();
            afloat.stop.send_replace(true);
        }
    }
}

/// Has the status present `credential`.
pub(super) fn show(status: &Current<Server>, credential: &Credential) {
    match Server::anonymous(credential.clone(), Options::default()) {
        Ok(server) => status.replace(server),
        Err(error) => tracing::warn!(cause = %error, "the status keeps its certificate"),
    }
}

impl Ready {
    /// The first certificate that one of them presents.
    pub(super) fn credential(&self) -> Option<&Credential> {
        self.0.iter().find_map(|prepared| prepared.parts.credential())
    }

    /// Says where they listen.
    pub(super) fn announce(&self, global: &Global) -> Outcome {
        for Prepared { plan, bound, .. } in &self.0 {
            let (from, to) = (bound.at(), &plan.target);
            if global.json {
                output::line(json!({ "listening": from.to_string(), "target": to.to_string() }))?;
                continue;
            }
            let (inward, outward) = match &plan.side {
                Side::Server { access: Some(_), .. } => ("mutual TLS", "in the clear"),
                Side::Server { access: None, .. } => ("TLS without client certificates", "in the clear"),
                Side::Client { .. } => ("in the clear", "mutual TLS"),
            };
            output::note(format_args!(
                "listening on {from} ({inward}), passing on to {to} ({outward}); ctrl-c ends it"
            ));
        }
        Ok(())
    }
}

/// A tunnel of either side.
enum Tunnel {
    Server(ServerTunnel),
    Client(ClientTunnel),
}

impl Tunnel {
    fn new(
        plan: &Plan,
        listen: Bound,
        tls: Tls,
        metrics: Metrics,
        identity: &Presented,
        agents: &Agents,
    ) -> Outcome<Self> {
        let (target, limits) = (plan.target.clone(), plan.limits.clone());
        let observer = identity.observer(agents);
        Ok(match tls {
            Tls::Server(tls) => {
                let (proxy_protocol, drop_revoked) = plan.side.of_server();
                let config = ServerConfig {
                    listen,
                    target,
                    tls,
                    limits,
                    proxy_protocol,
                    drop_revoked,
                    metrics,
                    observer,
                };
                Self::Server(ServerTunnel::new(config)?)
            }
            Tls::Client(tls) => {
                let (server_name, proxy) = plan.side.way_to_server();
                let config =
                    ClientConfig { listen, target, server_name, tls, limits, proxy, metrics, observer };
                Self::Client(ClientTunnel::new(config)?)
            }
        })
    }

    async fn run(self, shutdown: impl Future<Output = ()>) {
        match self {
            Self::Server(tunnel) => tunnel.run(shutdown).await,
            Self::Client(tunnel) => tunnel.run(shutdown).await,
        }
    }

    fn closed(&self) -> Closed {
        match self {
            Self::Server(tunnel) => tunnel.closed(),
            Self::Client(tunnel) => tunnel.closed(),
        }
    }

    /// Keeps what is stapled up to date, for ever.
    fn follow_staple(&self, staple: Staple) -> impl Future<Output = ()> + Send + use<> {
        let server = match self {
            Self::Server(tunnel) => Some(tunnel.tls()),
            Self::Client(_) => None,
        };
        async move {
            match server {
                Some(server) => staple.follow(server).await,
                None => std::future::pending().await,
            }
        }
    }

    fn in_use(&self) -> InUse {
        match self {
            Self::Server(tunnel) => InUse::Server(tunnel.tls()),
            Self::Client(tunnel) => InUse::Client(tunnel.tls()),
        }
    }
}
