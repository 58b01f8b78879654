//! Signers that are C functions.

#![expect(unsafe_code, reason = "functions and pointers from C")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;

use super::pointers::{bytes, invalid, object, put, text};
use super::status;
use crate::{Enclasp, Key, Scheme, Signer, SignerError, SigningRequest};

/// `ENCLASP_MAX_SIGNATURE`.
const MAX_SIGNATURE: usize = 1024;

/// `ENCLASP_MAX_REASON`.
const MAX_REASON: usize = 256;

/// `enclasp_sign`.
type Sign = unsafe extern "C" fn(
    context: *mut c_void,
    request: *const Request,
    signature: *mut u8,
    length: *mut usize,
    reason: *mut c_char,
) -> i32;

/// `enclasp_signing_request`.
struct Request {
    request: Arc<SigningRequest>,
    message: Vec<u8>,
    reason: CString,
}

/// What a function of the caller's is called with, until it is released.
struct Context {
    context: *mut c_void,
    release: Option<Release>,
}

type Release = unsafe extern "C" fn(context: *mut c_void);

// SAFETY: the header says that the functions are called on other threads, several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: it is the caller's function for this very context, called once.
            unsafe { release(self.context) };
        }
    }
}

struct CSigner {
    sign: Sign,
    context: Context,
}

impl Signer for CSigner {
    fn sign(&self, request: Arc<SigningRequest>) -> Result<Vec<u8>, SignerError> {
        let failed = |reason: &str| SignerError::Failed { reason: reason.to_owned() };
        let message = request.message();
        // Reasons have no zero byte: they are made of host names.
        let reason = CString::new(request.reason()).unwrap_or_default();
        let request = Request { request, message, reason };
        let mut signature = vec![0; MAX_SIGNATURE];
        let mut length = 0;
        let mut reason = [0_u8; MAX_REASON];
        // SAFETY: the places are as large as the header says, and live as long as the call.
        let outcome = unsafe {
            (self.sign)(
                self.context.context,
                &request,
                signature.as_mut_ptr(),
                &mut length,
                reason.as_mut_ptr().cast(),
            )
        };
        if outcome == 0 {
            if length > MAX_SIGNATURE {
                return Err(failed("it says that its signature is longer than there is room for"));
            }
            signature.truncate(length);
            return Ok(signature);
        }
        let reason = CStr::from_bytes_until_nul(&reason).unwrap_or_default().to_string_lossy().into_owned();
        Err(match outcome {
            3 => SignerError::Locked { reason },
            4 => SignerError::Denied { reason },
            6 => SignerError::Unsupported { reason },
            _ => SignerError::Failed { reason },
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_signer_key(
    home: *const Enclasp,
    name: *const c_char,
    public_key: *const u8,
    length: usize,
    asks: bool,
    sign: Option<Sign>,
    context: *mut c_void,
    release: Option<Release>,
    key: *mut *const Key,
) -> i32 {
    status(|| {
        // From here on it is released, whatever is wrong.
        let context = Context { context, release };
        let sign = sign.ok_or_else(|| invalid("there is no function that signs"))?;
        // SAFETY: the header asks for such pointers.
        let (home, name, public_key) = unsafe { (object(home)?, text(name)?, bytes(public_key, length)?) };
        let made = home.signer_key(name, public_key, Arc::new(CSigner { sign, context }), asks)?;
        // SAFETY: as above.
        unsafe { put(key, made) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_request_message(request: *const Request, length: *mut usize) -> *const u8 {
    // SAFETY: the signer was given it, and its place for the length.
    unsafe {
        length.write((*request).message.len());
        (*request).message.as_ptr()
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_request_scheme(request: *const Request) -> i32 {
    // SAFETY: the signer was given it.
    match unsafe { &(*request).request }.scheme() {
        Scheme::EcdsaSecp256r1Sha256 => 0,
        Scheme::EcdsaSecp256r1Sha384 => 1,
        Scheme::EcdsaSecp384r1Sha384 => 2,
        Scheme::EcdsaSecp384r1Sha256 => 3,
        Scheme::Ed25519 => 4,
        Scheme::RsaPssRsaeSha256 => 5,
        Scheme::RsaPssRsaeSha384 => 6,
        Scheme::RsaPssRsaeSha512 => 7,
        Scheme::RsaPkcs1Sha256 => 8,
        Scheme::RsaPkcs1Sha384 => 9,
        Scheme::RsaPkcs1Sha512 => 10,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_request_reason(request: *const Request) -> *const c_char {
    // SAFETY: the signer was given it.
    unsafe { (*request).reason.as_ptr() }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_request_time_left(request: *const Request) -> u32 {
    // SAFETY: the signer was given it.
    let left = unsafe { &(*request).request }.time_left();
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_request_is_wanted(request: *const Request) -> bool {
    // SAFETY: the signer was given it.
    unsafe { &(*request).request }.is_wanted()
}
