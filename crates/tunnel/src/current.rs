//! What connections are made with now, and may be replaced while they are.

use tokio::sync::watch;

/// What is in use now: a TLS client or server that new connections are made with, say. Cloning shares
/// it.
#[derive(Clone, Debug)]
pub struct Current<T>(watch::Sender<T>);

impl<T: Clone> Current<T> {
    /// What is in use until it is replaced.
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    /// What is in use.
    pub fn get(&self) -> T {
        self.0.borrow().clone()
    }

    /// Has this used from now on. Of TLS: connections that are open go on, but for those of revoked
    /// peers where these are dropped; sessions that the old one began are not resumed.
    pub fn replace(&self, value: T) {
        self.0.send_replace(value);
    }

    /// What is in use now, and notice of what is later.
    pub fn watch(&self) -> (T, watch::Receiver<T>) {
        let mut receiver = self.0.subscribe();
        let now = receiver.borrow_and_update().clone();
        (now, receiver)
    }
}
