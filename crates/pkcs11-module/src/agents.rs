//! The agents that hold the keys, as this process reaches them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enclasp_identity::{Holder, Result, State};
use enclasp_keystore::agent::AgentKeystore;
use enclasp_keystore::{Key, KeyUri, Keystore};

/// Connections to agents, and keys that were opened over them. A process that was forked makes its
/// own: two that share a socket would get each other's answers.
pub(crate) struct Agents {
    state: State,
    keystores: Mutex<Vec<(Holder, AgentKeystore)>>,
    /// Opening a key in hardware costs more than a signature.
    keys: Mutex<HashMap<KeyUri, Arc<dyn Key>>>,
}

impl Agents {
    pub(crate) fn new(state: State) -> Self {
        Self { state, keystores: Mutex::default(), keys: Mutex::default() }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The keys of an agent. Nothing is connected until it is needed.
    pub(crate) fn keystore(&self, holder: &Holder) -> AgentKeystore {
        let mut keystores = locked(&self.keystores);
        if let Some((_, keystore)) = keystores.iter().find(|(known, _)| known == holder) {
            return keystore.clone();
        }
        let keystore = self.state.agent_of(holder.clone());
        keystores.push((holder.clone(), keystore.clone()));
        keystore
    }

    /// The key `uri`, ready to sign.
    pub(crate) fn key(&self, uri: &KeyUri) -> Result<Arc<dyn Key>> {
        if let Some(key) = locked(&self.keys).get(uri) {
            return Ok(key.clone());
        }
        let key: Arc<dyn Key> = Arc::from(self.keystore(&Holder::of(uri)?).open(uri)?);
        locked(&self.keys).insert(uri.clone(), key.clone());
        Ok(key)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
