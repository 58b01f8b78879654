//! What rustls does not report about a handshake, collected while it happens.
//!
//! Signer, resolver and verifier belong to the configuration, which all connections share: rustls
//! resumes a client's session only with the very objects that it was made with, so they cannot be
//! made anew for each connection. But rustls calls them synchronously, while it processes one
//! connection's messages; the recorder of that connection is the thread's current one for as long.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use enclasp_keystore::{Cancel, SignContext};
use enclasp_pki::Certificate;
use rustls_pki_types::CertificateDer;

use crate::error::Whom;
use crate::known::Chain;
use crate::{Error, Role, SignatureEvidence};

/// One connection's record and the circumstances under which it may sign.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The peer, as messages name it.
    pub(crate) peer: String,
    role: Role,
    reason: String,
    sign_within: Duration,
    cancel: Cancel,
    record: Mutex<Record>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Why the handshake cannot succeed; the first reason counts.
    pub(crate) failure: Option<Error>,
    /// Whether the server asked for a client certificate.
    pub(crate) certificate_requested: bool,
    /// The leaf that the peer presented, if it was not known.
    pub(crate) presented: Option<CertificateDer<'static>>,
    /// What the peer presented, once it has verified and the access rules admit it.
    pub(crate) chain: Option<Arc<Chain>>,
    /// The signatures, in the order in which they were made and verified.
    pub(crate) signatures: Vec<SignatureEvidence>,
    /// What may explain a refusal later.
    pub(crate) notes: Vec<String>,
}

impl Record {
    /// The leaf that the peer presented, if it can be read.
    pub(crate) fn leaf(&self) -> Option<Certificate> {
        let presented = || Certificate::from_der(self.presented.as_ref()?.as_ref()).ok();
        self.chain.as_ref().map(|chain| chain.leaf.clone()).or_else(presented)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Recorder>>> = const { RefCell::new(None) };
}

impl Recorder {
    /// Of a connection with `peer`, which is the end that `role` says.
    pub(crate) fn new(peer: &str, role: Role, reason: String, sign_within: Duration) -> Arc<Self> {
        Arc::new(Self {
            peer: peer.to_owned(),
            role,
            reason,
            sign_within,
            cancel: Cancel::default(),
            record: Mutex::default(),
        })
    }

    /// Runs `f` as work of this connection.
    pub(crate) fn during<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<Arc<Recorder>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        f()
    }

    /// The recorder of the connection that this thread is at work for. There is none when somebody
    /// else drives a connection with our configuration.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    pub(crate) fn sign_context(&self) -> SignContext {
        SignContext {
            reason: self.reason.clone(),
            deadline: Instant::now().checked_add(self.sign_within),
            cancel: self.cancel.clone(),
            ..SignContext::default()
        }
    }

    pub(crate) fn whom(&self) -> Whom<'_> {
        Whom { peer: &self.peer, role: self.role }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether our key has signed.
    pub(crate) fn has_signed(&self) -> bool {
        self.record().signatures.iter().any(|signature| signature.key.is_some())
    }

    pub(crate) fn fail(&self, error: Error) {
        self.record().failure.get_or_insert(error);
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.record().failure.take()
    }

    /// Tells the keystore that nobody waits any more when the returned guard is dropped.
    pub(crate) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.cancel.clone())
    }
}

/// See [`Recorder::cancel_on_drop`].
pub(crate) struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
