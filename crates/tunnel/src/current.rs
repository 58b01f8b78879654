//! What connections are made with now, and may be replaced while they are.

use std::sync::{Arc, PoisonError, RwLock};

/// What is in use now: a TLS client or server that new connections are made with, say. Cloning shares
/// it.
#[derive(Clone, Debug)]
pub struct Current<T>(Arc<RwLock<T>>);

impl<T: Clone> Current<T> {
    /// What is in use until it is replaced.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// What is in use.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has this used from now on. Of TLS: connections that are open go on; sessions that the old one
    /// began are not resumed.
    pub fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}
