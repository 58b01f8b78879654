//! Calls of a system that wait for a person, and callers who wait no longer than their deadline.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

#[cfg(any(windows, test))]
use crate::{Error, Result};
use crate::{KeyUri, SignContext};

/// How often it is looked whether the caller still waits.
const POLL: Duration = Duration::from_millis(50);

/// Does `work` on this thread, and calls `interrupt` once, from another, when the caller's deadline
/// passes or it cancels. `interrupt` has to make `work` return.
#[cfg(any(target_vendor = "apple", test))]
pub(crate) fn interruptible<T>(
    ctx: &SignContext,
    key: &KeyUri,
    interrupt: impl FnOnce() + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (working, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while over.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                if ctx.check(key).is_err() {
                    return interrupt();
                }
            }
        });
        let done = work();
        drop(working);
        done
    })
}

/// Does `work` on a thread of its own, which is left alone when the caller's deadline passes or it
/// cancels: nothing can interrupt it.
///
/// # Errors
/// [`Error::Deadline`], [`Error::Cancelled`], those of `work`; [`Error::Busy`] if there is no thread to
/// be had.
#[cfg(any(windows, test))]
pub(crate) fn abandonable<T: Send + 'static>(
    ctx: &SignContext,
    key: &KeyUri,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let busy = |reason: String| Error::Busy { key: key.to_string(), operation: "sign with".into(), reason };
    let (send, receive) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("signature".into())
        // The caller may be gone, and then nobody wants what came of it.
        .spawn(move || drop(send.send(work())))
        .map_err(|e| busy(e.to_string()))?;
    loop {
        match receive.recv_timeout(POLL) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) => ctx.check(key)?,
            Err(RecvTimeoutError::Disconnected) => return Err(busy("the signing thread ended".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn late() -> SignContext {
        SignContext::new("late").with_deadline(Instant::now() + 2 * POLL)
    }

    #[test]
    fn what_can_be_interrupted_is_interrupted_when_nobody_waits_any_more() {
        let key = KeyUri::apple("web").unwrap();
        let (interrupt, interrupted) = mpsc::channel();
        // It would wait for ever otherwise.
        let waited = interruptible(&late(), &key, || interrupt.send(()).unwrap(), || interrupted.recv());
        assert_eq!(waited, Ok(()));
        let patient = SignContext::default();
        assert_eq!(interruptible(&patient, &key, || panic!("nobody asked for it"), || 7), 7);
    }

    #[test]
    fn what_cannot_be_interrupted_is_left_alone() {
        let key = KeyUri::windows("web", None).unwrap();
        let (answer, prompt) = mpsc::channel::<()>();
        let waiting = move || Ok(prompt.recv());
        assert!(matches!(abandonable(&late(), &key, waiting), Err(Error::Deadline { .. })));
        assert!(answer.send(()).is_ok(), "the prompt is still there");
        let cancelled = SignContext::default();
        cancelled.cancel.cancel();
        let (_answer, prompt) = mpsc::channel::<()>();
        let waiting = move || Ok(prompt.recv());
        assert!(matches!(abandonable(&cancelled, &key, waiting), Err(Error::Cancelled { .. })));
        assert_eq!(abandonable(&SignContext::default(), &key, || Ok(7)), Ok(7));
        let panics = || -> Result<()> { panic!("as a driver's callback might") };
        assert!(matches!(abandonable(&SignContext::default(), &key, panics), Err(Error::Busy { .. })));
    }
}
