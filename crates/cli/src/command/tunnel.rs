//! `enclasp server`, `enclasp client` and `enclasp tunnel`: mutual TLS for programs that know nothing of
//! it.

mod agents;
mod config;
mod flags;
mod fleet;
mod lists;
mod manager;
mod plan;
mod process;
mod reload;
mod revocation;
mod source;
mod words;

use std::future::pending;

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

pub(crate) async fn server(global: &Global, server: Server) -> Outcome {
    one(global, server.tunnel.plan()?, &server.process).await
}

pub(crate) async fn client(global: &Global, client: Client) -> Outcome {
    one(global, client.tunnel.plan()?, &client.process).await
}

async fn one(global: &Global, plan: Plan, process: &Process) -> Outcome {
    process.check(plan.presents())?;
    run(global, vec![plan], process, None).await
}

pub(crate) async fn many(global: &Global, many: Many) -> Outcome {
    let (config, plans, process) = Config::read(many.config)?;
    run(global, plans, &process, Some(config)).await
}

/// Runs tunnels until SIGTERM, SIGINT or `POST /_shutdown`; those of `config` as it is at the last
/// SIGHUP or SIGUSR1.
async fn run(global: &Global, plans: Vec<Plan>, process: &Process, config: Option<Config>) -> Outcome {
    // Before anything is announced: who reads that may send signals.
    let (ask, asked) = watch::channel(());
    let reloads = signals::reloads(ask)?;
    let (stop, stopped) = watch::channel(false);
    let mut fleet = Fleet::new(Agents::new(global), asked.clone());
    let ready = fleet.prepare(plans).await?;
    fleet.status_tls = process.status_tls(ready.credential())?;
    let status = process.status(&fleet, stop).await?;
    ready.announce(global)?;
    fleet.launch(ready).await;
    manager::ready();
    let (metrics, shown) = (fleet.metrics.clone(), async {
        match status {
            Some(status) => status.run(pending()).await,
            None => pending().await,
        }
    });
    let beside = async {
        tokio::join!(shown, reloads, process.push().run(metrics), manager::watchdog());
    };
    let until_the_end = async {
        tokio::select! {
            () = signals::shutdown() => {}
            () = told(stopped) => {}
            () = follow(config, &mut fleet, asked) => {}
        }
        manager::stopping();
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
async fn follow(config: Option<Config>, fleet: &mut Fleet, mut asked: watch::Receiver<()>) {
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
    }
}

/// Ready when it is time to stop.
async fn told(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stop| *stop).await.is_err() {
        // Nobody can say so any more.
        pending().await
    }
}
