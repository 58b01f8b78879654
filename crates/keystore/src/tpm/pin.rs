//! The PIN of a key: asked for once, and tried by one signature before others may use it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::queue::Job;
use crate::{Error, Result};

/// How often one who waits for another's PIN looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(25);

/// What is known of a key's PIN. Its memory is wiped when it goes.
#[derive(Default)]
pub(super) struct Pin {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Unknown,
    /// Somebody is being asked, or what was given is being tried. The others wait, so that a wrong
    /// PIN costs one try, however many signatures are wanted.
    BeingTried,
    /// A signature was made with it.
    Known(Zeroizing<String>),
}

/// Whether a PIN is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Untried,
    Proved,
}

impl Pin {
    /// Remembers the PIN that the key was made with.
    pub(super) fn is_known(&self, pin: Zeroizing<String>) {
        *self.state() = State::Known(pin);
    }

    /// Has `sign` use the PIN: the one that was right before, or one that `ask` gives. A PIN that
    /// [`Error::WrongPin`] comes back for is forgotten, and not tried again.
    ///
    /// # Errors
    /// Those of `ask` and `sign`; [`Error::Deadline`] or [`Error::Cancelled`] while another's PIN is
    /// being tried.
    pub(super) fn with<T>(
        &self,
        job: &Job,
        ask: impl FnOnce() -> Result<Zeroizing<String>>,
        sign: impl FnOnce(&Zeroizing<String>, Trust) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state();
        while matches!(*state, State::BeingTried) {
            job.check()?;
            (state, _) = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
        if let State::Known(pin) = &*state {
            let pin = pin.clone();
            drop(state);
            let result = sign(&pin, Trust::Proved);
            if matches!(result, Err(Error::WrongPin { .. })) {
                *self.state() = State::Unknown;
            }
            return result;
        }
        *state = State::BeingTried;
        drop(state);
        let mut trial = Trial { pin: self, outcome: State::Unknown };
        let pin = ask()?;
        let signature = sign(&pin, Trust::Untried)?;
        trial.outcome = State::Known(pin);
        Ok(signature)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a trial, however it went.
struct Trial<'a> {
    pin: &'a Pin,
    outcome: State,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        *self.pin.state() = std::mem::take(&mut self.outcome);
        self.pin.changed.notify_all();
    }
}
