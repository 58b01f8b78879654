//! `enclasp server` and `enclasp client`: mutual TLS for programs that know nothing of it.

mod agents;
mod flags;
mod plan;
mod reload;
mod source;
mod words;

use std::sync::Arc;

use enclasp_tunnel::{ClientConfig, ClientTunnel, Endpoint, ServerConfig, ServerTunnel};
use serde_json::json;
use tokio::sync::watch;

use crate::args::Global;
use crate::failure::Outcome;
use crate::{command, output, signals};

use agents::Agents;
pub(crate) use flags::{Client, Server};
use plan::{Material, Plan, Side, Tls};
use reload::{InUse, Presented, Reload};
pub(crate) use words::prepare;

pub(crate) async fn server(global: &Global, server: Server) -> Outcome {
    run(global, server.plan()?).await
}

pub(crate) async fn client(global: &Global, client: Client) -> Outcome {
    run(global, client.plan()?).await
}

async fn run(global: &Global, plan: Plan) -> Outcome {
    // Before anything is announced: who reads that may send signals.
    let (ask, asked) = watch::channel(());
    let reloads = signals::reloads(ask)?;
    let (plan, agents) = (Arc::new(plan), Agents::new(global));
    let Material { tls, identity, stamp } = {
        let (plan, agents) = (plan.clone(), agents.clone());
        command::blocking(move || plan.load(&agents)).await?
    };
    let identity = Presented::new(identity);
    let observer = identity.observer(&agents);
    let Plan { listen, target, limits, .. } = (*plan).clone();
    let tunnel = match (tls, &plan.side) {
        (Tls::Server(tls), _) => {
            Tunnel::Server(ServerTunnel::bind(ServerConfig { listen, target, tls, limits, observer }).await?)
        }
        (Tls::Client(tls), side) => {
            let server_name = match side {
                Side::Client { server_name, .. } => server_name.clone(),
                Side::Server { .. } => None,
            };
            let config = ClientConfig { listen, target, server_name, tls, limits, observer };
            Tunnel::Client(ClientTunnel::bind(config).await?)
        }
    };
    let in_use = match &tunnel {
        Tunnel::Server(tunnel) => InUse::Server(tunnel.tls()),
        Tunnel::Client(tunnel) => InUse::Client(tunnel.tls()),
    };
    tunnel.announce(global, &plan)?;
    let reload = Reload { agents, plan, in_use, stamp, identity, asked };
    tokio::select! {
        () = tunnel.run() => {}
        () = reload.run() => {}
        () = reloads => {}
    }
    Ok(())
}

/// A tunnel that listens.
enum Tunnel {
    Server(ServerTunnel),
    Client(ClientTunnel),
}

impl Tunnel {
    async fn run(self) {
        match self {
            Self::Server(tunnel) => tunnel.run(signals::shutdown()).await,
            Self::Client(tunnel) => tunnel.run(signals::shutdown()).await,
        }
    }

    fn bound_addr(&self) -> &Endpoint {
        match self {
            Self::Server(tunnel) => tunnel.bound_addr(),
            Self::Client(tunnel) => tunnel.bound_addr(),
        }
    }

    fn announce(&self, global: &Global, plan: &Plan) -> Outcome {
        let (from, to) = (self.bound_addr(), &plan.target);
        if global.json {
            return output::line(json!({ "listening": from.to_string(), "target": to.to_string() }));
        }
        let (inward, outward) = match &plan.side {
            Side::Server { access: Some(_) } => ("mutual TLS", "in the clear"),
            Side::Server { access: None } => ("TLS without client certificates", "in the clear"),
            Side::Client { .. } => ("in the clear", "mutual TLS"),
        };
        output::note(format_args!(
            "listening on {from} ({inward}), passing on to {to} ({outward}); ctrl-c ends it"
        ));
        Ok(())
    }
}
