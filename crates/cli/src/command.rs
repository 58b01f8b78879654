//! One file per command.

pub(crate) mod agent;
pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod csr;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod enroll;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod renew;
pub(crate) mod tunnel;

use crate::failure::{Failure, Outcome};

/// Runs what may wait for a key where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::new)?
}
