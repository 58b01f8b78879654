//! Asking the person in front of the device (`LAContext`).
#![expect(unsafe_code, reason = "Objective-C methods, and an object that goes into a C dictionary")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use core_foundation::base::{CFType, CFTypeRef, TCFType};
use objc2::rc::Retained;
use objc2_foundation::NSString;
use objc2_local_authentication::LAContext;

/// One question to the person, whose answer holds as long as this does.
pub(super) struct Authentication(Retained<LAContext>);

// SAFETY: an LAContext has no thread of its own, and LocalAuthentication calls back on queues that it
// chooses. What is called from another thread while the keychain uses it is `invalidate` alone, which
// exists to end what is under way.
unsafe impl Send for Authentication {}
// SAFETY: as above; nothing is changed after `new`.
unsafe impl Sync for Authentication {}

impl Authentication {
    /// A question with this `reason` in it. An unlock of the device by Touch ID or Face ID not longer ago
    /// than `reuse` answers it.
    fn new(reason: &str, reuse: Duration) -> Self {
        // SAFETY: plain initialisation and setters, before anybody else has the object.
        unsafe {
            let context = LAContext::new();
            context.setLocalizedReason(&NSString::from_str(reason));
            context.setTouchIDAuthenticationAllowableReuseDuration(reuse.as_secs_f64());
            Self(context)
        }
    }

    /// Ends the question, if it is being asked, as if the program had cancelled it.
    pub(super) fn invalidate(&self) {
        // SAFETY: it may be called at any time and more than once.
        unsafe { self.0.invalidate() }
    }

    /// As the value of `kSecUseAuthenticationContext`.
    pub(super) fn as_cf(&self) -> CFType {
        // SAFETY: every Objective-C object is retained and released as a Core Foundation object is, and
        // this retains it.
        unsafe { CFType::wrap_under_get_rule(Retained::as_ptr(&self.0) as CFTypeRef) }
    }
}

/// The answers that hold for a while, by the key that they were given for.
pub(super) struct Answers {
    /// How long one holds; at most [`LONGEST`].
    reuse: Duration,
    given: Mutex<HashMap<Vec<u8>, (Instant, Arc<Authentication>)>>,
}

/// LATouchIDAuthenticationMaximumAllowableReuseDuration.
const LONGEST: Duration = Duration::from_secs(5 * 60);

impl Answers {
    pub(super) fn new(reuse: Duration) -> Self {
        Self { reuse: reuse.min(LONGEST), given: Mutex::default() }
    }

    /// The answer that holds for the key with this SPKI, or a new question.
    pub(super) fn of(&self, spki: &[u8], reason: &str) -> Arc<Authentication> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, (since, _)| since.elapsed() < self.reuse);
        match given.get(spki) {
            Some((_, answer)) => answer.clone(),
            None => Arc::new(Authentication::new(reason, self.reuse)),
        }
    }

    /// Keeps the answer to a question that was answered, from now on if it is new.
    pub(super) fn keep(&self, spki: &[u8], answer: Arc<Authentication>) {
        if !self.reuse.is_zero() {
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            given.entry(spki.to_vec()).or_insert((Instant::now(), answer));
        }
    }

    /// Forgets the answer for a key: it was refused, or its question was ended.
    pub(super) fn forget(&self, spki: &[u8]) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(spki);
    }
}
