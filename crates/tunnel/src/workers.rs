//! The threads that connections live on: one for each core, each with a runtime of its own.
//!
//! A connection never changes its thread, so that its wake-ups cross none, and what it needs for a
//! moment (the buffers of [`relay`](crate::relay)) belongs to the thread.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Threads that take jobs. They end, and what they are at with them, when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Vec<Worker>);

#[derive(Clone, Debug)]
struct Worker {
    queue: mpsc::UnboundedSender<Job>,
    /// Each of its jobs has a clone.
    busy: Arc<()>,
}

/// Completes when the threads are gone.
#[derive(Debug)]
pub(crate) struct Gone(mpsc::Receiver<Infallible>);

impl Workers {
    /// Starts so many, one at least. They log where the caller does.
    pub(crate) fn start(threads: usize) -> io::Result<(Self, Gone)> {
        let (alive, gone) = mpsc::channel(1);
        let start = |index| -> io::Result<Worker> {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (queue, jobs) = mpsc::unbounded_channel();
            let (alive, log) = (alive.clone(), tracing::dispatcher::get_default(Clone::clone));
            thread::Builder::new().name(format!("tunnel-{index}")).spawn(move || {
                let _log = tracing::dispatcher::set_default(&log);
                work(runtime, jobs);
                drop(alive);
            })?;
            Ok(Worker { queue, busy: Arc::default() })
        };
        Ok((Self((0..threads.max(1)).map(start).collect::<io::Result<_>>()?), Gone(gone)))
    }

    /// Has the first worker do it, beside what else that one does.
    pub(crate) fn spawn_on_first(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.0[0].take(job);
    }

    /// Has the least busy worker do it; the first of them, if there are several.
    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        let least = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.busy));
        // There is one at least.
        if let Some(worker) = least {
            worker.take(job);
        }
    }
}

impl Worker {
    fn take(&self, job: impl Future<Output = ()> + Send + 'static) {
        let busy = self.busy.clone();
        let job = Box::pin(async move {
            let _busy = busy;
            job.await;
        });
        // The thread listens as long as there is somebody to send.
        let _ = self.queue.send(job);
    }
}

impl Gone {
    pub(crate) async fn wait(mut self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}

fn work(runtime: Runtime, mut jobs: mpsc::UnboundedReceiver<Job>) {
    runtime.block_on(async {
        while let Some(job) = jobs.recv().await {
            tokio::spawn(job);
        }
    });
    // A key that hangs keeps nobody waiting.
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn jobs_go_to_the_least_busy_and_end_with_their_workers() {
        let (workers, gone) = Workers::start(3).unwrap();
        let (names, mut named) = mpsc::unbounded_channel();
        let mut held = Vec::new();
        for _ in 0..6 {
            let (names, (hold, wait)) = (names.clone(), oneshot::channel::<()>());
            workers.spawn(async move {
                names.send(thread::current().name().map(str::to_owned)).unwrap();
                drop(wait.await);
            });
            held.push(hold);
        }
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(named.recv().await.unwrap().unwrap());
        }
        seen.sort();
        assert_eq!(seen, ["tunnel-0", "tunnel-0", "tunnel-1", "tunnel-1", "tunnel-2", "tunnel-2"]);
        drop(workers);
        gone.wait().await;
        assert!(held.into_iter().all(|hold| hold.is_closed()), "no job is left");
    }
}
