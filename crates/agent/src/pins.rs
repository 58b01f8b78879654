//! The PINs of hardware: those that were given, and the asking for others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enclasp_keystore::{Error, GivePin, KeyUri, KeystoreKind, PinWanted, Result, SignContext};
use zeroize::Zeroizing;

use crate::prompt::Prompter;

/// What a token or a key needs to be told apart by in a URI, so that its PIN goes to no other.
const TOKEN: [&str; 5] = ["token", "manufacturer", "model", "serial", "slot-id"];

/// How many PINs are kept.
const MAX_KEPT: usize = 256;

/// Gives PINs: one that a client gave beforehand, else one that a person enters. One that proves to
/// be wrong is forgotten and never tried again.
#[derive(Clone)]
pub(crate) struct Pins(Arc<Shared>);

struct Shared {
    prompter: Prompter,
    kept: Mutex<HashMap<String, Kept>>,
}

#[derive(Default)]
struct Kept {
    pin: Option<Zeroizing<String>>,
    refused: Option<Zeroizing<String>>,
}

thread_local! {
    /// The request that this thread works for.
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

struct Call {
    ctx: SignContext,
    /// Whose PIN it was given from those that are kept.
    used: Option<String>,
}

impl Pins {
    pub(crate) fn new(prompter: Prompter) -> Self {
        Self(Arc::new(Shared { prompter, kept: Mutex::default() }))
    }

    pub(crate) fn prompter(&self) -> &Prompter {
        &self.0.prompter
    }

    /// Keeps the PIN of `key`, or of its token.
    ///
    /// # Errors
    /// [`Error::Denied`] if it was refused before, is not text, or if there are too many.
    pub(crate) fn keep(&self, key: &KeyUri, pin: &[u8]) -> Result<()> {
        let denied = |reason: &str| Error::Denied {
            key: key.to_string(),
            operation: "unlock".into(),
            reason: reason.into(),
        };
        let pin = std::str::from_utf8(pin).map_err(|_| denied("the PIN is not UTF-8"))?;
        let mut kept = self.kept();
        let place = place(key);
        if kept.len() >= MAX_KEPT && !kept.contains_key(&place) {
            return Err(denied("too many PINs are kept already"));
        }
        let kept = kept.entry(place).or_default();
        if kept.refused.as_ref().is_some_and(|refused| **refused == *pin) {
            return Err(denied("this PIN was refused before; it is not tried twice"));
        }
        kept.pin = Some(Zeroizing::new(pin.to_owned()));
        Ok(())
    }

    /// Does `work` on behalf of a request: whoever it asks for a PIN is asked for that request, as
    /// long as it lasts.
    pub(crate) fn on_behalf_of<T>(&self, ctx: &SignContext, work: impl FnOnce() -> Result<T>) -> Result<T> {
        CALL.set(Some(Call { ctx: ctx.clone(), used: None }));
        let outcome = work();
        let used = CALL.take().and_then(|call| call.used);
        if let (Err(Error::WrongPin { .. }), Some(place)) = (&outcome, used)
            && let Some(kept) = self.kept().get_mut(&place)
        {
            kept.refused = kept.pin.take();
        }
        outcome
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GivePin for Pins {
    fn pin(&self, wanted: &PinWanted<'_>, ctx: &SignContext) -> Result<Zeroizing<String>> {
        let place = place(wanted.key);
        if let Some(pin) = self.kept().get(&place).and_then(|kept| kept.pin.clone()) {
            CALL.with_borrow_mut(|call| {
                if let Some(call) = call {
                    call.used = Some(place);
                }
            });
            return Ok(pin);
        }
        let asking = CALL.with_borrow(|call| call.as_ref().map(|call| call.ctx.clone()));
        // A keystore makes a context of its own for what is not a signature.
        let mut asking = asking.unwrap_or_else(|| ctx.clone());
        asking.reason.clone_from(&ctx.reason);
        self.0.prompter.pin(wanted, &asking)
    }
}

/// What a PIN belongs to: the token of a PKCS#11 key, the TPM's key itself.
fn place(key: &KeyUri) -> String {
    match key.kind() {
        KeystoreKind::Pkcs11 => {
            TOKEN.map(|name| format!("{name}={}", key.attribute(name).unwrap_or(""))).join("\n")
        }
        _ => key.to_string(),
    }
}
