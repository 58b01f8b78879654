//! The state of a tunnel's user, whose agents a supervisor starts and starts again.

use std::sync::{Arc, Mutex, PoisonError};

use enclasp_identity::{Holder, State};
use enclasp_keystore::KeyUri;

use crate::args::Global;
use crate::failure::Outcome;

/// Where a tunnel's identities and keys are. Cloning shares the supervisor.
#[derive(Clone)]
pub(super) struct Agents {
    global: Global,
    /// For each agent that a key of the tunnels is in.
    supervised: Arc<Mutex<Vec<(Holder, State)>>>,
}

impl Agents {
    pub(super) fn new(global: &Global) -> Self {
        Self { global: global.clone(), supervised: Arc::default() }
    }

    /// The state, for what needs no agent.
    pub(super) fn state(&self) -> Outcome<State> {
        self.global.state()
    }

    /// The state whose supervisor starts the agent of `key`.
    pub(super) fn state_of(&self, key: &KeyUri) -> Outcome<State> {
        let holder = Holder::of(key)?;
        let mut supervised = self.supervised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, state)) = supervised.iter().find(|(known, _)| *known == holder) {
            return Ok(state.clone());
        }
        let state = self.global.state()?.supervised(std::slice::from_ref(&holder))?;
        supervised.push((holder, state.clone()));
        Ok(state)
    }

    /// Whether choices are explained.
    pub(super) fn is_verbose(&self) -> bool {
        self.global.verbose > 0
    }
}
