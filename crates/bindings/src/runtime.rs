//! The threads that move bytes, behind calls that block.

use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::EnclaspError;
use crate::error::Result;

/// Two are enough: they wait for sockets, and sign nothing.
const WORKERS: usize = 2;

/// Runs `future` to its end, on the calling thread.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output> {
    Ok(runtime()?.block_on(future))
}

/// Runs `future` to its end, or for as long as `limit`.
pub(crate) fn block_for<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    block_on(async {
        tokio::time::timeout(limit, future).await.unwrap_or_else(|_| {
            let message = format!("{what}: no answer within {limit:?}");
            Err(EnclaspError::new(EnclaspError::Deadline, message, None))
        })
    })?
}

/// It is made at the first need and stays: a host may unload nothing anyway.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made =
        Builder::new_multi_thread().worker_threads(WORKERS).thread_name("enclasp").enable_all().build();
    let failed = |e| EnclaspError::new(EnclaspError::Failed, format!("cannot start threads: {e}"), None);
    let made = made.map_err(failed)?;
    Ok(RUNTIME.get_or_init(|| made))
}
