//! What connections are made with now, and may be replaced while they are.

use std::sync::{Arc, PoisonError, RwLock};

/// A TLS client or server that new connections are made with. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Current<T>(Arc<RwLock<T>>);

impl<T: Clone> Current<T> {
    pub(crate) fn new(tls: T) -> Self {
        Self(Arc::new(RwLock::new(tls)))
    }

    /// What new connections are made with.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has new connections made with `tls`. Those that are open go on; sessions that the old one
    /// began are not resumed.
    pub fn replace(&self, tls: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }
}
