//! What connections are made with now, and may be replaced while they are.

use std::sync::{Arc, PoisonError, RwLock};

use enclasp_tls::Credential;

use crate::Result;

/// A TLS client or server made of a credential `C`.
pub(crate) struct Current<T, C> {
    made: RwLock<T>,
    make: Box<dyn Fn(C) -> Result<T> + Send + Sync>,
}

impl<T: Clone, C> Current<T, C> {
    pub(crate) fn new(credential: C, make: impl Fn(C) -> Result<T> + Send + Sync + 'static) -> Result<Self> {
        Ok(Self { made: RwLock::new(make(credential)?), make: Box::new(make) })
    }

    pub(crate) fn get(&self) -> T {
        self.made.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the old one if the new one cannot be made.
    pub(crate) fn replace(&self, credential: C) -> Result<()> {
        let made = (self.make)(credential)?;
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }
}

/// Replaces the credential of a running tunnel. Cloning shares it.
#[derive(Clone)]
pub struct Replacer(Arc<dyn Fn(Credential) -> Result<()> + Send + Sync>);

impl Replacer {
    pub(crate) fn new(replace: impl Fn(Credential) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(replace))
    }

    /// Has new connections use `credential`.
    ///
    /// # Errors
    /// [`Error::Tls`](crate::Error::Tls) if it cannot be used; the old one then stays.
    pub fn replace(&self, credential: Credential) -> Result<()> {
        (self.0)(credential)
    }
}
