//! One thread for each TPM, which has its commands one at a time, behind a bounded queue.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::device::Tpm;
use crate::{Error, Result, SignContext};

/// How many jobs may wait. Who comes after them is refused at once rather than after its deadline.
const LENGTH: usize = 64;

/// How often one who waits looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(25);

/// How long a closing keystore waits for its thread to flush what it left in the TPM.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a job is for; without a deadline or a cancellation it is wanted for ever.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The URI of the key, or what else it is about.
    pub(super) key: String,
    /// As errors have it: "sign with".
    pub(super) operation: &'static str,
    pub(super) ctx: SignContext,
}

impl Job {
    /// # Errors
    /// [`Error::Cancelled`] or [`Error::Deadline`] if nobody waits for it any more.
    pub(super) fn check(&self) -> Result<()> {
        let (key, operation) = (self.key.clone(), self.operation.into());
        if self.ctx.cancel.is_cancelled() {
            Err(Error::Cancelled { key, operation })
        } else if self.ctx.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Err(Error::Deadline { key, operation })
        } else {
            Ok(())
        }
    }
}

type Work = Box<dyn FnOnce(&mut Tpm) + Send>;

/// The queue of a TPM. Dropping it ends the thread, after what is in the queue.
pub(super) struct Queue {
    /// `None` only while dropping.
    jobs: Option<SyncSender<Work>>,
    /// Closed when the thread ends.
    ended: Mutex<Receiver<()>>,
    at: String,
}

impl Queue {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the system has no thread for it.
    pub(super) fn start(mut tpm: Tpm) -> Result<Self> {
        let (jobs, work) = sync_channel::<Work>(LENGTH);
        let (end, ended) = sync_channel(0);
        let at = tpm.at();
        let thread = move || {
            for job in work {
                job(&mut tpm);
            }
            drop(tpm);
            drop::<SyncSender<()>>(end);
        };
        thread::Builder::new()
            .name("tpm".into())
            .spawn(thread)
            .map_err(|e| Error::Unavailable { at: at.clone(), reason: e.to_string() })?;
        Ok(Self { jobs: Some(jobs), ended: Mutex::new(ended), at })
    }

    /// Has the thread do `work` in its turn, and waits for the answer as long as the job is wanted.
    /// A job that nobody wants any more when its turn comes is skipped.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait already, [`Error::Deadline`], [`Error::Cancelled`], and
    /// those of `work`.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: &Job,
        work: impl FnOnce(&mut Tpm, &Job) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        job.check()?;
        let (reply, answer) = sync_channel(1);
        let of_thread = job.clone();
        let work: Work = Box::new(move |tpm| {
            let result = of_thread.check().and_then(|()| work(tpm, &of_thread));
            // Who does not wait any more has its answer: too late.
            let _ = reply.send(result);
        });
        let gone = || Error::Unavailable { at: self.at.clone(), reason: "its thread has ended".into() };
        match self.jobs.as_ref().ok_or_else(gone)?.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Error::Busy {
                    key: job.key.clone(),
                    operation: job.operation.into(),
                    reason: format!("{LENGTH} others wait for the TPM already"),
                });
            }
            Err(TrySendError::Disconnected(_)) => return Err(gone()),
        }
        loop {
            let left = job.ctx.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match answer.recv_timeout(left.unwrap_or(LOOK).min(LOOK)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => job.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(FAREWELL);
    }
}
