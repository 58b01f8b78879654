//! The state of the module in this process: sessions, handles, logins.
//!
//! All of it is behind one lock, which nobody holds while an agent works. While a process forks, the
//! forking thread holds it, so that the child finds it free and whole. The child goes on with the
//! sessions, handles and logins that it inherited (`CKF_INTERFACE_FORK_SAFE`), over connections of its
//! own; or it begins anew with `C_Initialize`, as hosts of PKCS#11 2.40 do.
#![expect(unsafe_code, reason = "pthread_atfork")]

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use enclasp_identity::{Holder, State};
use enclasp_keystore::{Input, Key, KeyUri, SignContext};
use zeroize::Zeroizing;

use crate::agents::Agents;
use crate::catalogue::{Catalogue, Slot};
use crate::failure;
use crate::mechanism::{self, Operation};
use crate::object::Object;

/// How long a person or hardware has to answer.
const SLOW_TIMEOUT: Duration = Duration::from_secs(60);

/// No message that is signed in one piece is longer than what an agent takes.
const MAX_DATA: usize = enclasp_keystore::agent::MAX_FRAME - 4096;

/// More sessions than this are a host's mistake.
const MAX_SESSIONS: usize = 4096;

pub(crate) struct Module {
    /// The process that called `C_Initialize`, and that which `agents` is of.
    initialized_by: u32,
    agents_of: u32,
    agents: Arc<Agents>,
    catalogue: Arc<Catalogue>,
    /// Whether that was looked for.
    loaded: bool,
    /// All objects that ever were: the handle of one is its place, counted from 1.
    objects: Vec<Arc<Object>>,
    /// The handles of those that there are now.
    present: BTreeSet<CK_OBJECT_HANDLE>,
    sessions: HashMap<CK_SESSION_HANDLE, Session>,
    last_session: CK_SESSION_HANDLE,
    logged_in: HashSet<CK_SLOT_ID>,
}

struct Session {
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    /// The handles that a search found and that were not fetched yet, the last one first.
    found: Option<Vec<CK_OBJECT_HANDLE>>,
    signing: Option<Signing>,
}

struct Signing {
    object: Arc<Object>,
    operation: Operation,
    data: Vec<u8>,
}

static MODULE: Mutex<Option<Module>> = Mutex::new(None);

/// `C_Initialize`.
pub(crate) fn initialize() -> Result<(), CK_RV> {
    hold_while_forking()?;
    let mut module = locked();
    match &mut *module {
        Some(module) if module.initialized_by == process::id() => Err(CKR_CRYPTOKI_ALREADY_INITIALIZED),
        Some(inherited) => {
            inherited.initialized_by = process::id();
            inherited.sessions.clear();
            inherited.logged_in.clear();
            Ok(())
        }
        None => {
            let state = State::from_environment().map_err(|error| {
                failure::log("C_Initialize", &error, error.hint());
                CKR_GENERAL_ERROR
            })?;
            *module = Some(Module {
                initialized_by: process::id(),
                agents_of: process::id(),
                agents: Arc::new(Agents::new(state)),
                catalogue: Arc::new(Catalogue::new()),
                loaded: false,
                objects: Vec::new(),
                present: BTreeSet::new(),
                sessions: HashMap::new(),
                last_session: CK_INVALID_HANDLE,
                logged_in: HashSet::new(),
            });
            Ok(())
        }
    }
}

/// `C_Finalize`.
pub(crate) fn finalize() -> Result<(), CK_RV> {
    locked().take().map(drop).ok_or(CKR_CRYPTOKI_NOT_INITIALIZED)
}

/// Does something with the module, which takes no longer than a look at a table.
pub(crate) fn with<T>(act: impl FnOnce(&mut Module) -> Result<T, CK_RV>) -> Result<T, CK_RV> {
    let mut module = locked();
    let module = module.as_mut().ok_or(CKR_CRYPTOKI_NOT_INITIALIZED)?;
    if module.agents_of != process::id() {
        module.agents_of = process::id();
        module.agents = Arc::new(Agents::new(module.agents.state().clone()));
    }
    act(module)
}

/// Looks for what there is, if nobody has yet.
pub(crate) fn load() -> Result<(), CK_RV> {
    if with(|module| Ok(module.loaded))? { Ok(()) } else { refresh() }
}

/// Looks for what has changed since the last time.
pub(crate) fn refresh() -> Result<(), CK_RV> {
    let (agents, previous) = with(|module| Ok((module.agents.clone(), module.catalogue.clone())))?;
    let catalogue = Catalogue::load(&agents, &previous);
    with(|module| {
        module.adopt(catalogue);
        Ok(())
    })
}

/// `C_Login`. A PIN goes to the agent; without one the agent asks a person when it needs to.
pub(crate) fn log_in(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: Option<&[u8]>,
) -> Result<(), CK_RV> {
    let (slot, agents) = with(|module| {
        let session = module.session(session)?;
        let slot = module.slot(session.slot)?.clone();
        match user {
            CKU_USER if module.logged_in.contains(&slot.id) => Err(CKR_USER_ALREADY_LOGGED_IN),
            CKU_CONTEXT_SPECIFIC if session.signing.is_none() => Err(CKR_OPERATION_NOT_INITIALIZED),
            CKU_USER | CKU_CONTEXT_SPECIFIC => Ok((slot, module.agents.clone())),
            _ => Err(CKR_USER_TYPE_INVALID),
        }
    })?;
    if let Some(uri) = &slot.pin_opens {
        unlock(&agents, uri, pin, user == CKU_USER)?;
    }
    if user == CKU_USER {
        with(|module| {
            module.logged_in.insert(slot.id);
            // What is said of a token's keys without a login is less than what there is to say.
            if let Some(holder) = slot.pin_opens.as_ref().and_then(|uri| Holder::of(uri).ok()) {
                module.catalogue = Arc::new(module.catalogue.forget(&holder));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// `C_Sign` and `C_SignFinal`: ends what `C_SignInit` began, with the rest of the data.
pub(crate) fn sign(session: CK_SESSION_HANDLE, rest: &[u8]) -> Result<Vec<u8>, CK_RV> {
    let (agents, mut signing) = with(|module| {
        let signing = module.session_mut(session)?.signing.take().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
        Ok((module.agents.clone(), signing))
    })?;
    signing.extend(rest)?;
    let key = signing.object.key.as_ref().ok_or(CKR_KEY_HANDLE_INVALID)?;
    let opened = open(&agents, &key.uri)?;
    let mut ctx = SignContext::new(format!("what {} signs through PKCS#11", program()));
    if key.slow {
        ctx = ctx.with_deadline(Instant::now() + SLOW_TIMEOUT);
    }
    signing.operation.sign(key, &*opened, &signing.data, &ctx)
}

impl Module {
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.catalogue.slots
    }

    pub(crate) fn slot(&self, id: CK_SLOT_ID) -> Result<&Slot, CK_RV> {
        self.slots().iter().find(|slot| slot.id == id).ok_or(CKR_SLOT_ID_INVALID)
    }

    /// The mechanisms of all keys in the slot, whether they may be seen yet or not.
    pub(crate) fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, CK_RV> {
        self.slot(slot)?;
        let present = self.present.iter().filter_map(|handle| self.object_of(*handle));
        let keys = present.filter(|object| object.slot == slot).filter_map(|object| object.key.as_ref());
        let schemes: Vec<_> = keys.flat_map(|key| key.schemes.iter().copied()).collect();
        Ok(mechanism::of_schemes(&schemes))
    }

    pub(crate) fn open_session(
        &mut self,
        slot: CK_SLOT_ID,
        flags: CK_FLAGS,
    ) -> Result<CK_SESSION_HANDLE, CK_RV> {
        self.slot(slot)?;
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(CKR_SESSION_COUNT);
        }
        self.last_session += 1;
        self.sessions.insert(self.last_session, Session { slot, flags, found: None, signing: None });
        Ok(self.last_session)
    }

    pub(crate) fn close_session(&mut self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        let closed = self.sessions.remove(&handle).ok_or(CKR_SESSION_HANDLE_INVALID)?;
        self.forget_login(closed.slot);
        Ok(())
    }

    pub(crate) fn close_all_sessions(&mut self, slot: CK_SLOT_ID) -> Result<(), CK_RV> {
        self.slot(slot)?;
        self.sessions.retain(|_, session| session.slot != slot);
        self.forget_login(slot);
        Ok(())
    }

    /// A login ends with the last session.
    fn forget_login(&mut self, slot: CK_SLOT_ID) {
        if !self.sessions.values().any(|session| session.slot == slot) {
            self.logged_in.remove(&slot);
        }
    }

    pub(crate) fn session_info(&self, handle: CK_SESSION_HANDLE) -> Result<CK_SESSION_INFO, CK_RV> {
        let session = self.session(handle)?;
        let state = match (session.flags & CKF_RW_SESSION != 0, self.logged_in.contains(&session.slot)) {
            (false, false) => CKS_RO_PUBLIC_SESSION,
            (false, true) => CKS_RO_USER_FUNCTIONS,
            (true, false) => CKS_RW_PUBLIC_SESSION,
            (true, true) => CKS_RW_USER_FUNCTIONS,
        };
        Ok(CK_SESSION_INFO { slotID: session.slot, state, flags: session.flags, ulDeviceError: 0 })
    }

    pub(crate) fn log_out(&mut self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        let slot = self.session(handle)?.slot;
        self.logged_in.remove(&slot).then_some(()).ok_or(CKR_USER_NOT_LOGGED_IN)
    }

    pub(crate) fn begin_search(
        &mut self,
        handle: CK_SESSION_HANDLE,
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Result<(), CK_RV> {
        let session = self.session(handle)?;
        if session.found.is_some() {
            return Err(CKR_OPERATION_ACTIVE);
        }
        let seen = |handle: &CK_OBJECT_HANDLE| {
            self.visible(session, *handle).is_some_and(|object| object.fits(template))
        };
        let found = self.present.iter().rev().copied().filter(seen).collect();
        self.session_mut(handle)?.found = Some(found);
        Ok(())
    }

    pub(crate) fn next_found(
        &mut self,
        handle: CK_SESSION_HANDLE,
        most: usize,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, CK_RV> {
        let found = self.session_mut(handle)?.found.as_mut().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
        let rest = found.len().saturating_sub(most);
        Ok(found.drain(rest..).rev().collect())
    }

    pub(crate) fn end_search(&mut self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        self.session_mut(handle)?.found.take().map(drop).ok_or(CKR_OPERATION_NOT_INITIALIZED)
    }

    /// An object that may be seen in that session.
    pub(crate) fn object(
        &self,
        session: CK_SESSION_HANDLE,
        handle: CK_OBJECT_HANDLE,
    ) -> Result<Arc<Object>, CK_RV> {
        self.visible(self.session(session)?, handle).cloned().ok_or(CKR_OBJECT_HANDLE_INVALID)
    }

    pub(crate) fn begin_to_sign(
        &mut self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        parameter: &[u8],
        handle: CK_OBJECT_HANDLE,
    ) -> Result<(), CK_RV> {
        let of_session = self.session(session)?;
        if of_session.signing.is_some() {
            return Err(CKR_OPERATION_ACTIVE);
        }
        let object = self.visible(of_session, handle).ok_or(CKR_KEY_HANDLE_INVALID)?.clone();
        let key = object.key.as_ref().ok_or(CKR_KEY_TYPE_INCONSISTENT)?;
        let operation = Operation::begin(key, mechanism, parameter)?;
        self.session_mut(session)?.signing = Some(Signing { object, operation, data: Vec::new() });
        Ok(())
    }

    /// The length of the signature that was begun, in bytes.
    pub(crate) fn signature_length(&self, session: CK_SESSION_HANDLE) -> Result<usize, CK_RV> {
        let signing = self.session(session)?.signing.as_ref().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
        signing.object.key.as_ref().map(|key| key.signature_length).ok_or(CKR_KEY_HANDLE_INVALID)
    }

    pub(crate) fn go_on_signing(&mut self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<(), CK_RV> {
        let session = self.session_mut(session)?;
        session
            .signing
            .as_mut()
            .ok_or(CKR_OPERATION_NOT_INITIALIZED)?
            .extend(data)
            .inspect_err(|_| session.signing = None)
    }

    /// Gives up what was begun, of the kinds in `flags`.
    pub(crate) fn cancel(&mut self, session: CK_SESSION_HANDLE, flags: CK_FLAGS) -> Result<(), CK_RV> {
        let session = self.session_mut(session)?;
        if flags & CKF_SIGN != 0 {
            session.signing = None;
        }
        if flags & CKF_FIND_OBJECTS != 0 {
            session.found = None;
        }
        Ok(())
    }

    pub(crate) fn session_count(&self, slot: CK_SLOT_ID, with: CK_FLAGS) -> usize {
        self.sessions.values().filter(|session| session.slot == slot && session.flags & with == with).count()
    }

    fn session(&self, handle: CK_SESSION_HANDLE) -> Result<&Session, CK_RV> {
        self.sessions.get(&handle).ok_or(CKR_SESSION_HANDLE_INVALID)
    }

    fn session_mut(&mut self, handle: CK_SESSION_HANDLE) -> Result<&mut Session, CK_RV> {
        self.sessions.get_mut(&handle).ok_or(CKR_SESSION_HANDLE_INVALID)
    }

    fn object_of(&self, handle: CK_OBJECT_HANDLE) -> Option<&Arc<Object>> {
        self.objects.get(usize::try_from(handle).ok()?.checked_sub(1)?)
    }

    fn visible(&self, session: &Session, handle: CK_OBJECT_HANDLE) -> Option<&Arc<Object>> {
        self.object_of(handle).filter(|object| {
            object.slot == session.slot && (!object.private || self.logged_in.contains(&object.slot))
        })
    }

    /// Takes over what was found. What was there before keeps its handle; what is gone does, too, as
    /// a host may be about to sign with it.
    fn adopt(&mut self, mut catalogue: Catalogue) {
        self.present.clear();
        for object in catalogue.objects.drain(..) {
            let place = self.objects.iter().position(|known| **known == object).unwrap_or_else(|| {
                self.objects.push(Arc::new(object));
                self.objects.len() - 1
            });
            self.present.insert(place as CK_OBJECT_HANDLE + 1);
        }
        self.catalogue = Arc::new(catalogue);
        self.loaded = true;
    }
}

impl Signing {
    fn extend(&mut self, data: &[u8]) -> Result<(), CK_RV> {
        if self.data.len().saturating_add(data.len()) > MAX_DATA {
            return Err(CKR_DATA_LEN_RANGE);
        }
        self.data.extend_from_slice(data);
        Ok(())
    }
}

/// Gives the agent the PIN, and finds out whether it is right: opening a key logs in to its token; a
/// TPM's key tells by a signature only.
fn unlock(agents: &Agents, uri: &KeyUri, pin: Option<&[u8]>, check: bool) -> Result<(), CK_RV> {
    let failed = |error: enclasp_keystore::Error| failure::code("C_Login", &error);
    if let Some(pin) = pin {
        let pin = str::from_utf8(pin).map_err(|_| CKR_PIN_INVALID)?;
        let holder = Holder::of(uri).map_err(|error| {
            failure::log("C_Login", &error, error.hint());
            CKR_GENERAL_ERROR
        })?;
        agents.keystore(&holder).unlock(uri, Zeroizing::new(pin.to_owned())).map_err(
            |error| match error {
                // The agent does not give a token a PIN that it has refused before.
                enclasp_keystore::Error::Denied { .. } => {
                    failed(error);
                    CKR_PIN_INCORRECT
                }
                error => failed(error),
            },
        )?;
    }
    if check {
        let key = open(agents, uri)?;
        if key.info().policy.pin {
            let ctx = SignContext::new(format!("login of {} through PKCS#11", program()))
                .with_deadline(Instant::now() + SLOW_TIMEOUT);
            let message = Input::Message(b"Enclasp: whether the PIN is right");
            key.sign(key.info().algorithm.natural_scheme(), message, &ctx).map_err(failed)?;
        }
    }
    Ok(())
}

fn open(agents: &Agents, uri: &KeyUri) -> Result<Arc<dyn Key>, CK_RV> {
    agents.key(uri).map_err(|error| match error {
        enclasp_identity::Error::Keystore(error) => failure::code("opening a key", &error),
        error => {
            failure::log("opening a key", &error, error.hint());
            CKR_GENERAL_ERROR
        }
    })
}

/// The name of the host's program, for a prompt.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    path.file_name().map_or_else(|| "a program".into(), |name| name.to_string_lossy().into_owned())
}

fn locked() -> MutexGuard<'static, Option<Module>> {
    MODULE.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The lock, while this thread forks.
    static HELD: RefCell<Option<MutexGuard<'static, Option<Module>>>> = const { RefCell::new(None) };
}

/// Has every fork of this process take the lock before, and let go of it after, in both processes.
fn hold_while_forking() -> Result<(), CK_RV> {
    extern "C" fn before() {
        // A thread that is about to end, with its locals gone, forks without.
        let _ = HELD.try_with(|held| held.replace(Some(locked())));
    }
    extern "C" fn after() {
        let _ = HELD.try_with(|held| held.take());
    }
    static ONCE: Once = Once::new();
    let mut failed = 0;
    ONCE.call_once(|| {
        // SAFETY: the three functions live as long as this library, which stays loaded (build.rs);
        // neither unwinds.
        failed = unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
    });
    if failed == 0 { Ok(()) } else { Err(CKR_HOST_MEMORY) }
}
