//! `C_Sign` alone: the one call of PKCS#11 that cryptoki offers only together with `C_SignInit`.
//!
//! A key with CKA_ALWAYS_AUTHENTICATE wants its PIN between the two (PKCS#11 3.1 §5.6.6).
#![expect(unsafe_code, reason = "calls a function of the module through its pointer")]

use std::path::Path;

use cryptoki::context::Function;
use cryptoki::error::{Error, Result, Rv};
use cryptoki::session::Session;
use cryptoki_sys::{CK_BYTE_PTR, CK_FUNCTION_LIST, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_ULONG_PTR};

/// Room for the longest signature that we verify, that of an RSA key of 8192 bits.
const MAX_SIGNATURE: usize = 1024;

type Sign =
    unsafe extern "C" fn(CK_SESSION_HANDLE, CK_BYTE_PTR, CK_ULONG, CK_BYTE_PTR, CK_ULONG_PTR) -> CK_RV;

/// The module's `C_Sign`.
pub(super) struct SinglePart {
    sign: Sign,
    /// Keeps the code of `sign` in memory.
    _library: cryptoki_sys::Pkcs11,
}

impl SinglePart {
    /// Looks the function up in the module at `path`, which is loaded already.
    pub(super) fn load(path: &Path) -> Result<Self> {
        // SAFETY: loading runs the library's initialisers, which cryptoki has had run before.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }.map_err(Error::LibraryLoading)?;
        let Ok(get_function_list) = &library.C_GetFunctionList else {
            return Err(Error::MissingSymbol("C_GetFunctionList"));
        };
        let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
        // SAFETY: the symbol has the type that PKCS#11 gives it, and `list` is a place to write to.
        Rv::from(unsafe { get_function_list(&mut list) }).into_result(Function::GetFunctionList)?;
        // SAFETY: the call succeeded, so `list` is null or points to a list that the module owns
        // and keeps while it is loaded.
        let sign = unsafe { list.as_ref() }.and_then(|list| list.C_Sign).ok_or(Error::NullFunctionPointer)?;
        Ok(Self { sign, _library: library })
    }

    /// Finishes what `C_SignInit` began in `session`.
    pub(super) fn sign(&self, session: &Session, data: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; MAX_SIGNATURE];
        let mut length = MAX_SIGNATURE as CK_ULONG;
        let data_length = CK_ULONG::try_from(data.len())?;
        // SAFETY: the pointers and lengths are those of `data`, which the module only reads (its
        // type lacks the `const`), and of `signature`, of which it writes at most `length` bytes.
        let code = unsafe {
            (self.sign)(
                session.handle(),
                data.as_ptr().cast_mut(),
                data_length,
                signature.as_mut_ptr(),
                &mut length,
            )
        };
        Rv::from(code).into_result(Function::Sign)?;
        signature.truncate(usize::try_from(length)?);
        Ok(signature)
    }
}
