//! One token: its sessions, its login and its PIN.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as ModuleError, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::failure::{Attempt, Failure};
use super::{Caller, name};
use crate::{Device, PinWanted};

/// How many sessions we open with a token at most. More signatures than this at once wait.
const MAX_SESSIONS: u64 = 16;

/// How often a caller who waits looks whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What tells one token from another, whatever slot it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenId {
    pub(super) label: String,
    pub(super) manufacturer: String,
    pub(super) model: String,
    pub(super) serial: String,
}

impl TokenId {
    pub(super) fn of(info: &TokenInfo) -> Self {
        Self {
            label: info.label().to_owned(),
            manufacturer: info.manufacturer_id().to_owned(),
            model: info.model().to_owned(),
            serial: info.serial_number().to_owned(),
        }
    }

    /// Its URI, for messages.
    pub(super) fn uri(&self, module: &Path) -> String {
        name::uri(module, self, true, "", None).to_string()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token `{}` (serial {})", self.label, self.serial)
    }
}

/// A token in a slot. It is let go of, and another made, when what it holds proves to be stale.
pub(super) struct Token {
    pub(super) id: TokenId,
    pub(super) slot: Slot,
    /// Tells this from later ones of the same token, whose object handles are different.
    pub(super) generation: u64,
    pkcs11: Pkcs11,
    write_protected: bool,
    state: Mutex<State>,
    /// Told when a session comes back.
    returned: Condvar,
    /// Told when a login is over.
    answered: Condvar,
}

struct State {
    idle: Vec<Session>,
    /// Sessions that are open, idle or not, and how many may be.
    open: u64,
    limit: u64,
    login: Login,
}

#[derive(Clone, Copy, PartialEq)]
enum Login {
    Out,
    /// Somebody is being asked for the PIN.
    Asking,
    In,
}

/// A session that goes back to its token when dropped.
pub(super) struct Borrowed<'a> {
    token: &'a Token,
    /// `None` once it is closed.
    session: Option<Session>,
}

impl Token {
    pub(super) fn new(id: TokenId, slot: Slot, pkcs11: Pkcs11, info: &TokenInfo) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // A token that says 0 does not say.
        let limits = [info.max_session_count(), info.max_rw_session_count()].map(Option::<u64>::from);
        let limit = limits.into_iter().flatten().filter(|limit| *limit > 0).fold(MAX_SESSIONS, u64::min);
        // Without a login to make, everybody is in.
        let login = if info.login_required() { Login::Out } else { Login::In };
        Self {
            id,
            slot,
            generation: COUNT.fetch_add(1, Ordering::Relaxed),
            pkcs11,
            write_protected: info.write_protected(),
            state: Mutex::new(State { idle: Vec::new(), open: 0, limit, login }),
            returned: Condvar::new(),
            answered: Condvar::new(),
        }
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.state().login == Login::In
    }

    /// A session: an idle one, a new one, or that which comes back first. It may write, if the token
    /// can be written to at all, since some tokens have only one session for everything.
    pub(super) fn session(&self, caller: &Caller<'_>) -> Attempt<Borrowed<'_>> {
        loop {
            let mut state = self
                .wait(&self.returned, caller, |state| !state.idle.is_empty() || state.open < state.limit)?;
            if let Some(session) = state.idle.pop() {
                return Ok(Borrowed { token: self, session: Some(session) });
            }
            state.open += 1;
            drop(state);
            let opened = match self.write_protected {
                true => self.pkcs11.open_ro_session(self.slot),
                false => self.pkcs11.open_rw_session(self.slot),
            };
            match opened {
                Ok(session) => return Ok(Borrowed { token: self, session: Some(session) }),
                Err(error) => {
                    let mut state = self.state();
                    state.open -= 1;
                    let full = matches!(error, ModuleError::Pkcs11(RvError::SessionCount, _));
                    if !full || state.open == 0 {
                        return Err(error.into());
                    }
                    // Others of ours are open: from now on one of those has to come back.
                    state.limit = state.open;
                }
            }
        }
    }

    /// Logs in, unless that was done. One caller asks for the PIN, the others wait.
    pub(super) fn log_in(&self, session: &Session, caller: &Caller<'_>) -> Attempt<()> {
        let mut state = self.wait(&self.answered, caller, |state| state.login != Login::Asking)?;
        if state.login == Login::In {
            return Ok(());
        }
        state.login = Login::Asking;
        drop(state);
        let what = format!("token `{}`", self.id.label);
        let outcome = self.present_pin(session, UserType::User, &what, caller);
        self.state().login = if outcome.is_ok() { Login::In } else { Login::Out };
        self.answered.notify_all();
        outcome
    }

    /// Has the signature that was begun in `session` allowed, as CKA_ALWAYS_AUTHENTICATE demands.
    pub(super) fn allow_signature(&self, session: &Session, caller: &Caller<'_>) -> Attempt<()> {
        let what = format!("one signature with `{}`", caller.key);
        self.present_pin(session, UserType::ContextSpecific, &what, caller)
    }

    /// Gives the token a PIN, once.
    fn present_pin(&self, session: &Session, user: UserType, what: &str, caller: &Caller<'_>) -> Attempt<()> {
        let info = self.pkcs11.get_token_info(self.slot)?;
        if info.user_pin_locked() {
            return Err(caller.locked(format!("the PIN of {} is locked", self.id)).into());
        }
        if info.protected_authentication_path() {
            // The reader has a keypad of its own.
            return logged_in(session.login(user, None));
        }
        let tries_left = info.user_pin_final_try().then_some(1);
        let pin =
            caller.pins.pin(&PinWanted { key: caller.key, what, tries_left, new: false }, caller.ctx)?;
        caller.ctx.check(caller.key)?;
        // Held over the login, so that two callers do not try the same wrong PIN at once.
        let mut refused = caller.module.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.get(&self.id).is_some_and(|before| *before == pin) {
            let counters = counters(&info);
            let reason = format!("{} refused this PIN before; it is not tried twice{counters}", self.id);
            return Err(caller.wrong_pin(reason).into());
        }
        let outcome = session.login(user, Some(&AuthPin::new(pin.as_str().into())));
        if let Err(ModuleError::Pkcs11(RvError::PinIncorrect, _)) = outcome {
            refused.insert(self.id.clone(), pin);
            let counters = self.pkcs11.get_token_info(self.slot).map_or("", |info| counters(&info));
            return Err(caller.wrong_pin(format!("{} refused the PIN{counters}", self.id)).into());
        }
        logged_in(outcome)
    }

    /// Waits until `ready`, the deadline or the cancellation.
    fn wait(
        &self,
        told: &Condvar,
        caller: &Caller<'_>,
        ready: impl Fn(&State) -> bool,
    ) -> Attempt<MutexGuard<'_, State>> {
        let mut state = self.state();
        loop {
            caller.ctx.check(caller.key)?;
            if ready(&state) {
                return Ok(state);
            }
            state = told.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Borrowed<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("a session that was closed is gone")
    }
}

impl Borrowed<'_> {
    /// Closes the session, because an operation was left unfinished in it.
    pub(super) fn close(mut self) {
        self.session = None;
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let mut state = self.token.state();
        match self.session.take() {
            Some(session) => state.idle.push(session),
            None => state.open -= 1,
        }
        self.token.returned.notify_one();
    }
}

/// The outcome of `C_Login`: being in already, by another user of the module, is as good.
fn logged_in(outcome: cryptoki::error::Result<()>) -> Attempt<()> {
    match outcome {
        Err(ModuleError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        other => other.map_err(Failure::of_login),
    }
}

/// What a token says of itself.
pub(super) fn describe(info: &TokenInfo) -> Device {
    let firmware = info.firmware_version();
    let name = format!(
        "{} {}, serial number {}, firmware {}.{}",
        info.manufacturer_id(),
        info.model(),
        info.serial_number(),
        firmware.major(),
        firmware.minor()
    );
    let tries_left = match info {
        info if info.user_pin_locked() => Some(0),
        info if info.user_pin_final_try() => Some(1),
        _ => None,
    };
    let tries = match counters(info).trim_start_matches("; ") {
        "" => "the token counts no wrong PIN since the last right one",
        said => said,
    };
    Device {
        name,
        tries_left,
        tries: tries.to_owned(),
        attestation: "the token's word alone: PKCS#11 has no statement that others could verify".into(),
    }
}

/// What the token says of the tries that remain. PKCS#11 has flags for it, no number.
fn counters(info: &TokenInfo) -> &'static str {
    if info.user_pin_locked() {
        "; the PIN is locked now"
    } else if info.user_pin_final_try() {
        "; one try remains before it is locked"
    } else if info.user_pin_count_low() {
        "; the token has counted a wrong one since the last right one"
    } else {
        ""
    }
}
