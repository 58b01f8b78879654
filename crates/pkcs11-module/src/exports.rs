//! The three functions that a host finds by name, and the tables that they lead to.
#![expect(unsafe_code, reason = "exported to C, and writes through its pointers")]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_void};
use std::ptr;

use cryptoki_sys::*;

use crate::calls::*;
use crate::pointers::{place, write_all};

/// The table of PKCS#11 2.40. Most hosts look for this one.
///
/// # Safety
/// `list` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    // SAFETY: the caller's promise.
    match unsafe { place(list) } {
        Ok(list) => {
            *list = ptr::from_ref(&TABLE_2_40).cast_mut();
            CKR_OK
        }
        Err(code) => code,
    }
}

/// The interfaces that there are: PKCS#11 3.0, which is what a host gets that does not care, and 2.40.
///
/// # Safety
/// `count` is null or a number, `list` null or room for so many interfaces.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn C_GetInterfaceList(list: *mut CK_INTERFACE, count: *mut CK_ULONG) -> CK_RV {
    // SAFETY: the caller's promise.
    match unsafe { write_all(&*INTERFACES.0.get(), list, count) } {
        Ok(()) => CKR_OK,
        Err(code) => code,
    }
}

/// The first interface of that name and version, either of which may be null, with those flags.
///
/// # Safety
/// `name` is null or text that ends with a zero byte, `version` null or a version, `interface` null or
/// a place for a pointer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn C_GetInterface(
    name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    interface: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    // SAFETY: the caller's promise.
    let known_name = name.is_null() || unsafe { CStr::from_ptr(name.cast()) } == NAME;
    // SAFETY: the caller's promise.
    let wanted = unsafe { version.as_ref() };
    let fits =
        |of: &CK_VERSION| wanted.is_none_or(|wanted| (wanted.major, wanted.minor) == (of.major, of.minor));
    let found = [CURRENT, OLDER].iter().position(fits).filter(|_| known_name && FLAGS & flags == flags);
    // SAFETY: the caller's promise.
    match (unsafe { place(interface) }, found) {
        (Ok(interface), Some(index)) => {
            // SAFETY: there are as many interfaces as versions.
            *interface = unsafe { INTERFACES.0.get().cast::<CK_INTERFACE>().add(index) };
            CKR_OK
        }
        _ => CKR_ARGUMENTS_BAD,
    }
}

/// The name of the interfaces that PKCS#11 itself defines.
const NAME: &CStr = c"PKCS 11";

/// Not read-only: `pkcs11-spy` puts a table of its own into the interface that it is given.
struct Interfaces(UnsafeCell<[CK_INTERFACE; 2]>);

// SAFETY: this module only reads them, and what a host writes to them is the host's business.
unsafe impl Sync for Interfaces {}

/// What each interface can do: a child goes on with what it inherited when its process forked.
const FLAGS: CK_FLAGS = CKF_INTERFACE_FORK_SAFE;

static INTERFACES: Interfaces = {
    const fn interface(table: *const c_void) -> CK_INTERFACE {
        CK_INTERFACE {
            pInterfaceName: NAME.as_ptr().cast_mut().cast(),
            pFunctionList: table.cast_mut(),
            flags: FLAGS,
        }
    }
    let tables = [(&raw const TABLE_3_0).cast(), (&raw const TABLE_2_40).cast()];
    Interfaces(UnsafeCell::new([interface(tables[0]), interface(tables[1])]))
};

/// A function that a table has to have, and that says that it is not supported.
trait Unsupported {
    const STUB: Self;
}

macro_rules! unsupported {
    ($($argument:ident)*) => {
        impl<$($argument),*> Unsupported for Option<unsafe extern "C" fn($($argument),*) -> CK_RV> {
            const STUB: Self = {
                extern "C" fn stub<$($argument),*>($(_: $argument),*) -> CK_RV {
                    CKR_FUNCTION_NOT_SUPPORTED
                }
                Some(stub::<$($argument),*>)
            };
        }
    };
}

unsupported!(A);
unsupported!(A B);
unsupported!(A B C);
unsupported!(A B C D);
unsupported!(A B C D E);
unsupported!(A B C D E F);
unsupported!(A B C D E F G);
unsupported!(A B C D E F G H);
unsupported!(A B C D E F G H I);

/// A table of this `type` and `version`, with these functions besides those that every table has.
macro_rules! table {
    ($type:ident, $version:expr, $info:expr, [$($done:ident),*], [$($not_done:ident),*]) => {
        table!(@fields $type, $version, $info,
            [
                C_Initialize, C_Finalize, C_GetFunctionList, C_GetSlotList, C_GetSlotInfo,
                C_GetTokenInfo, C_GetMechanismList, C_GetMechanismInfo, C_OpenSession, C_CloseSession,
                C_CloseAllSessions, C_GetSessionInfo, C_Login, C_Logout, C_GetAttributeValue,
                C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal, C_SignInit, C_Sign, C_SignUpdate,
                C_SignFinal, C_GenerateRandom
                $(, $done)*
            ],
            [
                C_InitToken, C_InitPIN, C_SetPIN, C_GetOperationState, C_SetOperationState,
                C_CreateObject, C_CopyObject, C_DestroyObject, C_GetObjectSize, C_SetAttributeValue,
                C_EncryptInit, C_Encrypt, C_EncryptUpdate, C_EncryptFinal, C_DecryptInit, C_Decrypt,
                C_DecryptUpdate, C_DecryptFinal, C_DigestInit, C_Digest, C_DigestUpdate, C_DigestKey,
                C_DigestFinal, C_SignRecoverInit, C_SignRecover, C_VerifyInit, C_Verify,
                C_VerifyUpdate, C_VerifyFinal, C_VerifyRecoverInit, C_VerifyRecover,
                C_DigestEncryptUpdate, C_DecryptDigestUpdate, C_SignEncryptUpdate,
                C_DecryptVerifyUpdate, C_GenerateKey, C_GenerateKeyPair, C_WrapKey, C_UnwrapKey,
                C_DeriveKey, C_SeedRandom, C_GetFunctionStatus, C_CancelFunction,
                C_WaitForSlotEvent
                $(, $not_done)*
            ])
    };
    (@fields $type:ident, $version:expr, $info:expr, [$($done:ident),*], [$($not_done:ident),*]) => {
        $type {
            version: $version,
            C_GetInfo: Some($info),
            $($done: Some($done),)*
            $($not_done: Unsupported::STUB,)*
        }
    };
}

static TABLE_2_40: CK_FUNCTION_LIST = table!(CK_FUNCTION_LIST, OLDER, C_GetInfo_2_40, [], []);

static TABLE_3_0: CK_FUNCTION_LIST_3_0 = table!(
    CK_FUNCTION_LIST_3_0,
    CURRENT,
    C_GetInfo,
    [C_GetInterfaceList, C_GetInterface, C_SessionCancel],
    [
        C_LoginUser,
        C_MessageEncryptInit,
        C_EncryptMessage,
        C_EncryptMessageBegin,
        C_EncryptMessageNext,
        C_MessageEncryptFinal,
        C_MessageDecryptInit,
        C_DecryptMessage,
        C_DecryptMessageBegin,
        C_DecryptMessageNext,
        C_MessageDecryptFinal,
        C_MessageSignInit,
        C_SignMessage,
        C_SignMessageBegin,
        C_SignMessageNext,
        C_MessageSignFinal,
        C_MessageVerifyInit,
        C_VerifyMessage,
        C_VerifyMessageBegin,
        C_VerifyMessageNext,
        C_MessageVerifyFinal
    ]
);
