//! `enclasp server`, `enclasp client` and `enclasp tunnel`: mutual TLS for programs that know nothing of
//! it.

mod agents;
mod config;
mod flags;
mod fleet;
mod lists;
mod manager;
mod parent;
mod plan;
mod process;
mod reload;
mod revocation;
mod sandbox;
mod source;
mod staple;
mod words;
mod worker;

use std::future::pending;

use enclasp_tunnel::Endpoint;
use tokio::sync::watch;

use crate::args::Global;
use crate::failure::Outcome;
use crate::signals;

use agents::Agents;
pub(crate) use config::{Config, Many, check};
pub(crate) use flags::{Client, Server};
use fleet::Fleet;
use plan::Plan;
use process::Process;
pub(crate) use process::{LogFlags, Quiet};
pub(crate) use words::prepare;
use worker::Above;

pub(crate) fn server(global: &Global, server: Server) -> Outcome {
    one(global, server.tunnel.plan()?, &server.process)
}

pub(crate) fn client(global: &Global, client: Client) -> Outcome {
    one(global, client.tunnel.plan()?, &client.process)
}

fn one(global: &Global, plan: Plan, process: &Process) -> Outcome {
    process.check(plan.presents())?;
    closed_off(global, vec![plan], process, None, Above::Nobody)
}

pub(crate) fn many(global: &Global, many: Many) -> Outcome {
    if let Some(number) = many.worker {
        return worker::run(global, many.config, number);
    }
    let (config, plans, process) = Config::read(many.config)?;
    match process.is_closed_off() {
        // The file may come to need more, and what is closed is not opened again.
        true => crate::in_runtime(parent::run(global, config, plans, process)),
        false => closed_off(global, plans, &process, Some(config), Above::Nobody),
    }
}

/// Runs tunnels in this process, which is closed off first, while it has one thread, from what they do not
/// need, unless that is not wanted.
fn closed_off(
    global: &Global,
    plans: Vec<Plan>,
    process: &Process,
    config: Option<Config>,
    above: Above,
) -> Outcome {
    let agents = Agents::new(global);
    if process.is_closed_off() {
        let keys: Vec<_> = plans.iter().flat_map(|plan| plan.source.keys(&agents)).collect();
        agents.supervise(&keys)?;
        let path = config.as_ref().map(Config::path);
        let needs = sandbox::needs(&plans, process, path, &agents, above.listens_itself())?;
        if let Err(error) = needs.close() {
            tracing::warn!(cause = %error, hint = error.hint(), "goes on all the same");
        }
        agents.wait_for_supervisors();
    }
    crate::in_runtime(run(global, agents, plans, process, config, above))
}

/// Runs tunnels until SIGTERM, SIGINT or `POST /_shutdown`, or until another worker has taken over; those of
/// `config` as it is at the last SIGHUP or SIGUSR1.
async fn run(
    global: &Global,
    agents: Agents,
    plans: Vec<Plan>,
    process: &Process,
    config: Option<Config>,
    above: Above,
) -> Outcome {
    // Before anything is announced: who reads that may send signals.
    let (ask, asked) = watch::channel(());
    let reloads = signals::reloads(ask)?;
    let (stop, stopped) = watch::channel(false);
    let (retire, retired) = watch::channel(false);
    let mut fleet = Fleet::new(agents, asked.clone(), above.clone());
    let ready = fleet.prepare(plans).await?;
    fleet.status_tls = process.status_tls(ready.credential())?;
    let status = process.status(&fleet, stop).await?;
    if above.announces() {
        ready.announce(global)?;
    }
    fleet.launch(ready).await;
    let says = process.listens_on().cloned();
    manager::serves(&above, &fleet, says.as_ref())?;
    let (metrics, shown) = (fleet.metrics.clone(), async {
        if let Some(status) = status {
            status.run(told(retired.clone())).await;
        }
        pending::<()>().await
    });
    let pushed = async {
        tokio::select! {
            () = process.push().run(metrics) => {}
            () = told(retired.clone()) => pending().await,
        }
    };
    let beside = async {
        tokio::join!(shown, reloads, pushed, manager::watchdog(&above));
    };
    let until_the_end = async {
        tokio::select! {
            () = signals::shutdown() => {}
            () = told(stopped) => {}
            () = retirement(&above) => drop(retire.send_replace(true)),
            () = follow(config, &mut fleet, asked, &above, says.as_ref()) => {}
        }
        if above.listens_itself() {
            manager::stopping();
        }
        fleet.end().await;
    };
    tokio::select! {
        () = until_the_end => {}
        () = beside => {}
    }
    Ok(())
}

/// Has `fleet` be what `config` says whenever that is asked for, for ever. What cannot be done leaves
/// everything as it is.
async fn follow(
    config: Option<Config>,
    fleet: &mut Fleet,
    mut asked: watch::Receiver<()>,
    above: &Above,
    status: Option<&Endpoint>,
) {
    let Some(mut config) = config else {
        return pending().await;
    };
    // When the sender is gone, the process is about to end.
    while asked.changed().await.is_ok() {
        let prepared = match config.changed() {
            Ok(None) => continue,
            Ok(Some((new, plans))) => fleet.prepare(plans).await.map(|ready| (new, ready)),
            Err(failure) => Err(failure),
        };
        match prepared {
            Ok((new, ready)) => {
                config = new;
                fleet.launch(ready).await;
                tracing::info!(file = %config.path().display(), "the tunnels are those of the changed file");
            }
            Err(failure) => {
                let cause = failure.message();
                tracing::warn!(file = %config.path().display(), %cause, "cannot reload; the tunnels stay as they are");
            }
        }
        // Either way, as sockets may have been asked for that are not used.
        if let Err(failure) = manager::serves(above, fleet, status) {
            tracing::warn!(cause = failure.message(), "the parent cannot be told");
        }
    }
}

/// Ready when another worker serves.
async fn retirement(above: &Above) {
    match above {
        Above::Nobody => pending().await,
        Above::Parent(..) => signals::retirement().await,
    }
}

/// Ready when it is time to stop.
async fn told(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stop| *stop).await.is_err() {
        // Nobody can say so any more.
        pending().await
    }
}
