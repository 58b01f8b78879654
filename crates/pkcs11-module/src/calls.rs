//! The functions that do something, as the host calls them.
#![expect(unsafe_code, reason = "the host's pointers are what PKCS#11 says they are")]
#![expect(non_snake_case, reason = "they are called so in PKCS#11")]

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use cryptoki_sys::*;

use crate::module::{self, with};
use crate::pointers::{fill, place, template, values, write_all};

/// The version of PKCS#11 as `C_GetInfo` of the current interface tells it.
pub(crate) const CURRENT: CK_VERSION = CK_VERSION { major: 3, minor: 0 };
/// The version for hosts that ask for no interface.
pub(crate) const OLDER: CK_VERSION = CK_VERSION { major: 2, minor: 40 };

/// More random bytes than this at once are a host's mistake.
const MAX_RANDOM: usize = 1 << 20;

pub(crate) unsafe extern "C" fn C_Initialize(arguments: *mut std::ffi::c_void) -> CK_RV {
    answer(|| {
        if !arguments.is_null() {
            // SAFETY: it is null or points to CK_C_INITIALIZE_ARGS (PKCS#11 5.4.1).
            let arguments = unsafe { place(arguments.cast::<CK_C_INITIALIZE_ARGS>()) }?;
            let given = [
                arguments.CreateMutex.is_some(),
                arguments.DestroyMutex.is_some(),
                arguments.LockMutex.is_some(),
                arguments.UnlockMutex.is_some(),
            ];
            if !arguments.pReserved.is_null() || given.contains(&true) && given.contains(&false) {
                return Err(CKR_ARGUMENTS_BAD);
            }
            // Ours are the system's locks.
            if given == [true; 4] && arguments.flags & CKF_OS_LOCKING_OK == 0 {
                return Err(CKR_CANT_LOCK);
            }
        }
        module::initialize()
    })
}

pub(crate) unsafe extern "C" fn C_Finalize(reserved: *mut std::ffi::c_void) -> CK_RV {
    answer(|| if reserved.is_null() { module::finalize() } else { Err(CKR_ARGUMENTS_BAD) })
}

pub(crate) unsafe extern "C" fn C_GetInfo(info: *mut CK_INFO) -> CK_RV {
    // SAFETY: the caller's promise.
    answer(|| unsafe { write_info(info, CURRENT) })
}

pub(crate) unsafe extern "C" fn C_GetInfo_2_40(info: *mut CK_INFO) -> CK_RV {
    // SAFETY: the caller's promise.
    answer(|| unsafe { write_info(info, OLDER) })
}

/// # Safety
/// `info` is null or a place for it.
unsafe fn write_info(info: *mut CK_INFO, cryptokiVersion: CK_VERSION) -> Result<(), CK_RV> {
    with(|_| Ok(()))?;
    let info_value = CK_INFO {
        cryptokiVersion,
        manufacturerID: padded("Enclasp"),
        flags: 0,
        libraryDescription: padded("Keys of Enclasp's agents"),
        libraryVersion: library_version(),
    };
    // SAFETY: the caller's promise.
    *unsafe { place(info) }? = info_value;
    Ok(())
}

pub(crate) unsafe extern "C" fn C_GetSlotList(
    _token_present: CK_BBOOL,
    slots: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    answer(|| {
        // Slots come and go only when the host asks how many there are (PKCS#11 5.5.1), and some
        // never do.
        if slots.is_null() { module::refresh() } else { module::load() }?;
        let ids = with(|module| Ok(module.slots().iter().map(|slot| slot.id).collect::<Vec<_>>()))?;
        // SAFETY: the host's promise.
        unsafe { write_all(&ids, slots, count) }
    })
}

pub(crate) unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    answer(|| {
        let label = with(|module| Ok(module.slot(slot)?.label.clone()))?;
        let told = CK_SLOT_INFO {
            slotDescription: padded(&format!("Enclasp: {label}")),
            manufacturerID: padded("Enclasp"),
            flags: CKF_TOKEN_PRESENT,
            hardwareVersion: CK_VERSION::default(),
            firmwareVersion: library_version(),
        };
        // SAFETY: the host's promise.
        *unsafe { place(info) }? = told;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    answer(|| {
        let told = with(|module| {
            let token = module.slot(slot)?;
            // Where there is no PIN, a person is asked elsewhere, if at all.
            let login = match token.pin_opens {
                Some(_) => CKF_LOGIN_REQUIRED,
                None => CKF_PROTECTED_AUTHENTICATION_PATH,
            };
            Ok(CK_TOKEN_INFO {
                label: padded(&token.label),
                manufacturerID: padded("Enclasp"),
                model: padded("agent"),
                serialNumber: padded(&token.serial),
                flags: CKF_RNG
                    | CKF_TOKEN_INITIALIZED
                    | CKF_USER_PIN_INITIALIZED
                    | CKF_WRITE_PROTECTED
                    | login,
                ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
                ulSessionCount: module.session_count(slot, 0) as CK_ULONG,
                ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
                ulRwSessionCount: module.session_count(slot, CKF_RW_SESSION) as CK_ULONG,
                ulMaxPinLen: 255,
                ulMinPinLen: 0,
                ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
                ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
                ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
                ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
                hardwareVersion: CK_VERSION::default(),
                firmwareVersion: library_version(),
                utcTime: [b' '; 16],
            })
        })?;
        // SAFETY: the host's promise.
        *unsafe { place(info) }? = told;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    mechanisms: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    answer(|| {
        module::load()?;
        let found = with(|module| module.mechanisms(slot))?;
        // SAFETY: the host's promise.
        unsafe { write_all(&found, mechanisms, count) }
    })
}

pub(crate) unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    answer(|| {
        if !with(|module| module.mechanisms(slot))?.contains(&mechanism) {
            return Err(CKR_MECHANISM_INVALID);
        }
        // SAFETY: the host's promise.
        *unsafe { place(info) }? = crate::mechanism::info(mechanism);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: *mut std::ffi::c_void,
    _notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    answer(|| {
        // SAFETY: the host's promise.
        let session = unsafe { place(session) }?;
        *session = with(|module| module.open_session(slot, flags))?;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    answer(|| with(|module| module.close_session(session)))
}

pub(crate) unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    answer(|| with(|module| module.close_all_sessions(slot)))
}

pub(crate) unsafe extern "C" fn C_GetSessionInfo(
    session: CK_SESSION_HANDLE,
    info: *mut CK_SESSION_INFO,
) -> CK_RV {
    answer(|| {
        let told = with(|module| module.session_info(session))?;
        // SAFETY: the host's promise.
        *unsafe { place(info) }? = told;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
) -> CK_RV {
    answer(|| {
        // SAFETY: the host's promise.
        let pin = if pin.is_null() { None } else { Some(unsafe { values(pin.cast_const(), length) }?) };
        module::log_in(session, user, pin)
    })
}

pub(crate) unsafe extern "C" fn C_Logout(session: CK_SESSION_HANDLE) -> CK_RV {
    answer(|| with(|module| module.log_out(session)))
}

pub(crate) unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    attributes: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    answer(|| {
        let object = with(|module| module.object(session, object))?;
        // SAFETY: the host's promise.
        unsafe { fill(attributes, count, &object) }
    })
}

pub(crate) unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    attributes: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    answer(|| {
        // SAFETY: the host's promise.
        let template = unsafe { template(attributes, count) }?;
        module::refresh()?;
        with(|module| module.begin_search(session, &template))
    })
}

pub(crate) unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    answer(|| {
        if objects.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        // SAFETY: the host's promise.
        let count = unsafe { place(count) }?;
        let found = with(|module| module.next_found(session, usize::try_from(most).unwrap_or(usize::MAX)))?;
        // SAFETY: there is room for `most` handles, and there are not more.
        unsafe { ptr::copy_nonoverlapping(found.as_ptr(), objects, found.len()) };
        *count = found.len() as CK_ULONG;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) -> CK_RV {
    answer(|| with(|module| module.end_search(session)))
}

pub(crate) unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    answer(|| {
        if mechanism.is_null() {
            return with(|module| module.cancel(session, CKF_SIGN));
        }
        // SAFETY: the host's promise.
        let mechanism = unsafe { place(mechanism) }?;
        // SAFETY: the same for what it points to.
        let parameter =
            unsafe { values(mechanism.pParameter.cast::<u8>().cast_const(), mechanism.ulParameterLen) }?;
        with(|module| module.begin_to_sign(session, mechanism.mechanism, parameter, key))
    })
}

pub(crate) unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    length: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_length: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: the host's promise.
    answer(|| unsafe { finish(session, values(data.cast_const(), length)?, signature, signature_length) })
}

pub(crate) unsafe extern "C" fn C_SignUpdate(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    length: CK_ULONG,
) -> CK_RV {
    answer(|| {
        // SAFETY: the host's promise.
        let data = unsafe { values(data.cast_const(), length) }?;
        with(|module| module.go_on_signing(session, data))
    })
}

pub(crate) unsafe extern "C" fn C_SignFinal(
    session: CK_SESSION_HANDLE,
    signature: *mut CK_BYTE,
    signature_length: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: the host's promise.
    answer(|| unsafe { finish(session, &[], signature, signature_length) })
}

/// Signs if there is room for the signature; otherwise tells its length, and goes on waiting for the
/// rest (PKCS#11 5.2).
///
/// # Safety
/// As [`write_all`].
unsafe fn finish(
    session: CK_SESSION_HANDLE,
    rest: &[u8],
    signature: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> Result<(), CK_RV> {
    let needed = with(|module| module.signature_length(session))? as CK_ULONG;
    // SAFETY: the caller's promise.
    let room = unsafe { place(length) }?;
    if signature.is_null() {
        *room = needed;
        return Ok(());
    }
    if *room < needed {
        *room = needed;
        return Err(CKR_BUFFER_TOO_SMALL);
    }
    let made = module::sign(session, rest)?;
    // SAFETY: the caller's promise.
    unsafe { write_all(&made, signature, length) }
}

/// Random numbers of the system.
pub(crate) unsafe extern "C" fn C_GenerateRandom(
    session: CK_SESSION_HANDLE,
    random: *mut CK_BYTE,
    length: CK_ULONG,
) -> CK_RV {
    answer(|| {
        with(|module| module.session_info(session))?;
        let count = usize::try_from(length).ok().filter(|count| *count <= MAX_RANDOM && !random.is_null());
        let mut numbers = vec![0; count.ok_or(CKR_ARGUMENTS_BAD)?];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut numbers))
            .map_err(|_| CKR_DEVICE_ERROR)?;
        let mut room = length;
        // SAFETY: the host's promise.
        unsafe { write_all(&numbers, random, &raw mut room) }
    })
}

pub(crate) unsafe extern "C" fn C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS) -> CK_RV {
    answer(|| with(|module| module.cancel(session, flags)))
}

/// Runs a call: nothing of what happens in it reaches the host but its return value.
fn answer(call: impl FnOnce() -> Result<(), CK_RV>) -> CK_RV {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => CKR_OK,
        Ok(Err(code)) => code,
        Err(_) => CKR_GENERAL_ERROR,
    }
}

/// The text in a field of fixed size, filled up with spaces, cut where a character ends.
fn padded<const SIZE: usize>(text: &str) -> [u8; SIZE] {
    let mut field = [b' '; SIZE];
    let end = (0..=SIZE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    field
}

fn library_version() -> CK_VERSION {
    let number = |text: &str| text.parse().unwrap_or(0);
    CK_VERSION {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_the_call() {
        assert_eq!(answer(|| panic!("on purpose")), CKR_GENERAL_ERROR);
    }

    #[test]
    fn fields_are_padded_and_cut_between_characters() {
        assert_eq!(&padded::<8>("Enclasp"), b"Enclasp ");
        assert_eq!(padded::<4>("häß"), *"hä ".as_bytes());
    }
}
