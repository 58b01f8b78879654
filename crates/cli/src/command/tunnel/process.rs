//! Flags that are about the process rather than one tunnel: its status, its metrics, its log.

use std::time::Duration;

use enclasp_enroll::duration;
use enclasp_tls::{Credential, Options, Server};
use enclasp_tunnel::{Current, Endpoint, HttpUrl, Push, StatusAddress, StatusConfig, StatusServer};
use tokio::sync::watch;

use super::fleet::Fleet;
use crate::failure::{Failure, Outcome};

/// Status and metrics.
#[derive(clap::Args)]
#[command(next_help_heading = "Status and metrics")]
pub(super) struct Process {
    /// Show /_status and /_metrics here: [http(s)://]HOST:PORT or unix:PATH; HTTPS with the tunnel's
    /// certificate unless http:// is said.
    #[arg(long, value_name = "ADDRESS")]
    status: Option<StatusAddress>,
    /// Let `POST /_shutdown` end the tunnel.
    #[arg(long)]
    enable_shutdown: bool,
    /// Send metrics to this Graphite server.
    #[arg(long, value_name = "HOST:PORT")]
    metrics_graphite: Option<Endpoint>,
    /// Send metrics as JSON to this URL (http://).
    #[arg(long, value_name = "URL")]
    metrics_url: Option<HttpUrl>,
    /// What the names of metrics begin with.
    #[arg(long, value_name = "PREFIX", default_value = "enclasp")]
    metrics_prefix: String,
    /// How often metrics are sent.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    metrics_interval: Duration,
    /// Do not close this process off from files, programs and ports that are not named here.
    #[arg(long, help_heading = "Sandbox")]
    disable_landlock: bool,
}

/// The log.
#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogFlags {
    /// Leave lines out: all, conns (connections), conn-errs (targets that cannot be reached),
    /// handshake-errs (refusals). Repeatable.
    #[arg(long, value_name = "WHAT")]
    pub(crate) quiet: Vec<Quiet>,
    /// Log to syslog instead of standard error.
    #[arg(long)]
    pub(crate) syslog: bool,
}

/// Which lines of the log are left out.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Quiet {
    All,
    Conns,
    ConnErrs,
    HandshakeErrs,
}

impl Quiet {
    /// What has the log leave them out, in tracing's filter syntax.
    pub(crate) fn directive(self) -> &'static str {
        match self {
            Self::All => "off",
            Self::Conns => "enclasp_tunnel::conns=off",
            Self::ConnErrs => "enclasp_tunnel::conn_errs=off",
            Self::HandshakeErrs => "enclasp_tunnel::handshake_errs=off",
        }
    }
}

impl Process {
    /// Checks what can be checked beforehand. `presents` is whether there is a certificate.
    ///
    /// # Errors
    /// Wrong usage, in one line.
    pub(super) fn check(&self, presents: bool) -> Outcome {
        match &self.status {
            None if self.enable_shutdown => Err(Failure::usage("--enable-shutdown needs --status")
                .hint("for example --status http://127.0.0.1:6060")),
            Some(status) if status.tls && !presents => {
                Err(Failure::usage("--status has no certificate to present")
                    .hint(format!("show it in the clear: --status http://{}", status.listen)))
            }
            _ if self.metrics_interval.is_zero() => {
                Err(Failure::usage("--metrics-interval is 0").hint("for example 30s"))
            }
            _ if !is_metric_name(&self.metrics_prefix) => {
                let said = format!("--metrics-prefix `{}` cannot begin a name", self.metrics_prefix);
                Err(Failure::usage(said)
                    .hint("it is made of letters, digits, `.`, `_` and `-`, and begins with a letter"))
            }
            _ => Ok(()),
        }
    }

    /// Whether this process closes itself off.
    pub(super) fn is_closed_off(&self) -> bool {
        !self.disable_landlock
    }

    /// Where the status listens.
    pub(super) fn listens_on(&self) -> Option<&Endpoint> {
        self.status.as_ref().map(|status| &status.listen)
    }

    /// Where metrics are sent.
    pub(super) fn connects_to(&self) -> impl Iterator<Item = &Endpoint> {
        self.metrics_graphite.iter().chain(self.metrics_url.as_ref().map(HttpUrl::endpoint))
    }

    /// What the status presents.
    pub(super) fn status_tls(&self, credential: Option<&Credential>) -> Outcome<Option<Current<Server>>> {
        match (&self.status, credential) {
            (Some(StatusAddress { tls: true, .. }), Some(credential)) => {
                Ok(Some(Current::new(Server::anonymous(credential.clone(), Options::default())?)))
            }
            _ => Ok(None),
        }
    }

    /// Listens for those who want to know how the tunnels of `fleet` are.
    pub(super) async fn status(
        &self,
        fleet: &Fleet,
        shutdown: watch::Sender<bool>,
    ) -> Outcome<Option<StatusServer>> {
        let Some(address) = &self.status else { return Ok(None) };
        let config = StatusConfig {
            listen: fleet.above.listen(&address.listen).await?,
            tls: fleet.status_tls.clone(),
            tunnels: fleet.healths.clone(),
            metrics: fleet.metrics.clone(),
            metrics_prefix: self.metrics_prefix.clone(),
            hostname: hostname(),
            shutdown: self.enable_shutdown.then_some(shutdown),
        };
        Ok(Some(StatusServer::new(config)?))
    }

    /// What sends the metrics.
    pub(super) fn push(&self) -> Push {
        Push {
            graphite: self.metrics_graphite.clone(),
            url: self.metrics_url.clone(),
            every: self.metrics_interval,
            prefix: self.metrics_prefix.clone(),
            hostname: hostname(),
        }
    }
}

/// Whether Graphite and Prometheus can both take it, as it is or with `_` for what they do not have.
fn is_metric_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.or_else(|_| std::fs::read_to_string("/etc/hostname")).unwrap_or_default().trim().to_owned()
}
