//! The state of a tunnel's user, whose agents a supervisor starts and starts again.

use std::sync::{Arc, Mutex, PoisonError};

use enclasp_identity::{Holder, State};
use enclasp_keystore::KeyUri;

use crate::args::Global;
use crate::failure::Outcome;

/// Where a tunnel's identities and keys are. Cloning shares the supervisors.
#[derive(Clone)]
pub(super) struct Agents {
    global: Global,
    supervised: Arc<Mutex<Vec<Supervised>>>,
}

/// The agents that a supervisor starts, and the state that has it do so.
struct Supervised {
    holders: Vec<Holder>,
    state: State,
}

impl Agents {
    pub(super) fn new(global: &Global) -> Self {
        Self { global: global.clone(), supervised: Arc::default() }
    }

    /// The state, for what needs no agent.
    pub(super) fn state(&self) -> Outcome<State> {
        self.global.state()
    }

    /// Has one supervisor start the agents of these keys, when they are needed: before this process closes
    /// itself off, in which it can start none.
    pub(super) fn supervise(&self, keys: &[KeyUri]) -> Outcome {
        let mut holders = Vec::new();
        for key in keys {
            let holder = Holder::of(key)?;
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
        if holders.is_empty() { Ok(()) } else { self.start(holders).map(drop) }
    }

    /// Says so in the log if a supervisor ends before this process, from when it is closed off.
    pub(super) fn wait_for_supervisors(&self) {
        let supervised = self.supervised.lock().unwrap_or_else(PoisonError::into_inner);
        supervised.iter().for_each(|one| one.state.wait_for_supervisor());
    }

    /// The state whose supervisor starts the agent of `key`.
    pub(super) fn state_of(&self, key: &KeyUri) -> Outcome<State> {
        let holder = Holder::of(key)?;
        let known = {
            let supervised = self.supervised.lock().unwrap_or_else(PoisonError::into_inner);
            let mut all = supervised.iter();
            all.find(|one| one.holders.contains(&holder)).map(|one| one.state.clone())
        };
        if let Some(state) = known {
            return Ok(state);
        }
        let state = self.start(vec![holder])?;
        state.wait_for_supervisor();
        Ok(state)
    }

    fn start(&self, holders: Vec<Holder>) -> Outcome<State> {
        let state = self.global.state()?.supervised(&holders)?;
        let mut supervised = self.supervised.lock().unwrap_or_else(PoisonError::into_inner);
        supervised.push(Supervised { holders, state: state.clone() });
        Ok(state)
    }

    /// Whether choices are explained.
    pub(super) fn is_verbose(&self) -> bool {
        self.global.verbose > 0
    }
}
