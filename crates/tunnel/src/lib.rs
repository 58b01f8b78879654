//! The mutual-TLS proxy: [`ServerTunnel`] takes TLS and speaks plainly to its target,
//! [`ClientTunnel`] the other way round.
//!
//! A tunnel is bound, then run until it is told to stop. It ends a half of a connection when that
//! half has ended at the other side, logs one line for each connection and each refusal, and
//! bounds what strangers can make it hold.
#![forbid(unsafe_code)]

mod client;
mod current;
mod deadline;
mod endpoint;
mod error;
mod health;
mod http;
mod inherited;
mod metrics;
mod proxy;
mod proxy_protocol;
mod push;
mod relay;
mod serve;
mod server;
mod status;
mod turns;
mod workers;

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use enclasp_tls::Evidence;

pub use client::{ClientConfig, ClientTunnel};
pub use current::Current;
pub use endpoint::{Bound, Endpoint};
pub use error::{Error, Result};
pub use health::{Health, HealthReport, ListFacts, ListReport, RevocationReport, TargetCheck};
pub use http::{Fetched, HttpUrl};
pub use metrics::Metrics;
pub use proxy::Proxy;
pub use proxy_protocol::ProxyProtocol;
pub use push::Push;
pub use serve::Closed;
pub use server::{ServerConfig, ServerTunnel};
pub use status::{StatusAddress, StatusConfig, StatusServer};

/// What a tunnel may take up. How long a handshake may take is among the TLS options.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long connecting to the target may take.
    pub connect_timeout: Duration,
    /// How many connections there may be at once. The next one waits in the kernel's queue.
    pub max_connections: usize,
    /// How many of them may be in their handshake; the others wait for their turn. A client that
    /// has sent nothing yet takes no turn.
    pub max_handshakes: usize,
    /// How many of these one source may have at a server tunnel: an address, the /64 of an IPv6
    /// address, or a user of this machine. So nobody takes all turns by stopping in the middle.
    pub max_handshakes_of_source: usize,
    /// How long a client of a server tunnel may send nothing at all.
    pub silence_timeout: Duration,
    /// How long nothing may move on a connection of which one way has ended.
    pub close_timeout: Option<Duration>,
    /// How long a connection may go on in any case.
    pub max_lifetime: Option<Duration>,
    /// How long open connections may go on after the tunnel was told to stop.
    pub drain_timeout: Duration,
    /// How many threads serve connections; one at least.
    pub threads: usize,
}

impl Limits {
    /// As many connections as can be counted.
    pub const MOST_CONNECTIONS: usize = tokio::sync::Semaphore::MAX_PERMITS;
}

impl Default for Limits {
    /// 10 s to connect, 4096 connections, 256 handshakes, 64 of one source, 5 s of silence, 30 s to
    /// drain, a thread for each core.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_handshakes: 256,
            max_handshakes_of_source: 64,
            silence_timeout: Duration::from_secs(5),
            close_timeout: None,
            max_lifetime: None,
            drain_timeout: Duration::from_secs(30),
            threads: available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Is shown the evidence of every handshake that succeeds.
pub type Observer = Arc<dyn Fn(&Evidence) + Send + Sync>;
