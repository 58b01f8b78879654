//! Metrics that are sent to where they are collected.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::http::HttpUrl;
use crate::{Endpoint, Error, Metrics, Result};

/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where metrics are sent, and how often.
#[derive(Clone, Debug)]
pub struct Push {
    /// A Graphite server, which takes plain text.
    pub graphite: Option<Endpoint>,
    /// What takes a POST of the JSON form.
    pub url: Option<HttpUrl>,
    /// How often.
    pub every: Duration,
    /// What the names begin with.
    pub prefix: String,
    /// The name of this machine, in the JSON form.
    pub hostname: String,
}

impl Push {
    /// Sends `metrics` for ever. What does not get through is logged, and not sent again.
    pub async fn run(self, metrics: Metrics) {
        if self.graphite.is_none() && self.url.is_none() {
            return std::future::pending().await;
        }
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // One that stalls does not hold up the other.
            let (graphite, url) = tokio::join!(self.to_graphite(&metrics), self.to_url(&metrics));
            for outcome in [graphite, url] {
                if let Err(error) = outcome {
                    tracing::warn!(cause = %error, "cannot send metrics");
                }
            }
        }
    }

    async fn to_graphite(&self, metrics: &Metrics) -> Result<()> {
        let Some(target) = &self.graphite else { return Ok(()) };
        let mut stream = target.connect(PATIENCE).await?;
        let text = metrics.graphite(&self.prefix);
        let sent = async {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        };
        match timeout(PATIENCE, sent).await {
            Ok(sent) => sent.map_err(|source| Error::Connect { target: target.clone(), source }),
            Err(_) => Err(Error::ConnectTimeout { target: target.clone(), after: PATIENCE }),
        }
    }

    async fn to_url(&self, metrics: &Metrics) -> Result<()> {
        let Some(url) = &self.url else { return Ok(()) };
        let json = metrics.json(&self.prefix, &self.hostname).to_string();
        url.post_json(json, PATIENCE).await
    }
}
