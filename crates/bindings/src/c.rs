//! The interface for C: `include/enclasp.h`, whose comments say what each function does.
//!
//! Each is the method of the same name on the objects of this crate, with pointers. No panic crosses: it is
//! caught, and is a failure like others (`status`). What C gives is copied before it is used.
#![expect(unsafe_code, reason = "C functions, and pointers from C")]

mod pointers;
mod signer;

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pointers::{bytes, invalid, object, optional_object, optional_text, put, text, texts};

use crate::error::Result;
use crate::{
    Client, ClientOptions, Enclasp, EnclaspError, HttpRequest, Identity, Key, KeyType, Stream, TlsVersion,
};

thread_local! {
    /// Why the last call of this thread that failed did.
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Runs a call and turns what came of it into an `enclasp_status`.
fn status(call: impl FnOnce() -> Result<()>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(EnclaspError::new(EnclaspError::Failed, "something went wrong inside of Enclasp", None))
    });
    let Err(error) = outcome else { return 0 };
    // Text for C has no zero byte inside.
    let message = CString::new(error.to_string().replace('\0', " ")).unwrap_or_default();
    MESSAGE.with(|last| last.replace(message));
    match error {
        EnclaspError::Absent(_) => 1,
        EnclaspError::Exists(_) => 2,
        EnclaspError::Locked(_) => 3,
        EnclaspError::Denied(_) => 4,
        EnclaspError::Busy(_) => 5,
        EnclaspError::Unsupported(_) => 6,
        EnclaspError::Deadline(_) => 7,
        EnclaspError::WrongSignature(_) => 8,
        EnclaspError::Signer(_) => 9,
        EnclaspError::Unavailable(_) => 10,
        EnclaspError::Refused(_) => 11,
        EnclaspError::Untrusted(_) => 12,
        EnclaspError::Invalid(_) => 13,
        EnclaspError::Failed(_) => 14,
    }
}

#[unsafe(no_mangle)]
extern "C" fn enclasp_message() -> *const c_char {
    MESSAGE.with(|last| last.borrow().as_ptr())
}

/// Defines a function that frees an object, which the header says is used by nobody then.
macro_rules! free {
    ($($function:ident: $type:ty),*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $function(object: *const $type) {
            if !object.is_null() {
                // SAFETY: it came from `put`, and its owner gives it up.
                let object = unsafe { Arc::from_raw(object) };
                // Whatever happens while it is dropped ends here.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
            }
        }
    )*};
}

free! {
    enclasp_free: Enclasp,
    enclasp_key_free: Key,
    enclasp_identity_free: Identity,
    enclasp_client_free: Client,
    enclasp_stream_free: Stream
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_text_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: it came from `put_text`, and its owner gives it up.
        drop(unsafe { CString::from_raw(text) });
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_bytes_free(bytes: *mut u8, length: usize) {
    if !bytes.is_null() {
        let bytes = std::ptr::slice_from_raw_parts_mut(bytes, length);
        // SAFETY: it came from `enclasp_http` with that length, and its owner gives it up.
        drop(unsafe { Box::from_raw(bytes) });
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_open(folder: *const c_char, home: *mut *const Enclasp) -> i32 {
    status(|| {
        // SAFETY: the header asks for text or NULL, and for a place for the result.
        unsafe { put(home, Arc::new(Enclasp::new(optional_text(folder)?)?)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_open_key(home: *const Enclasp, uri: *const c_char, key: *mut *const Key) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put(key, object(home)?.open_key(text(uri)?)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_open_or_make_key(
    home: *const Enclasp,
    uri: *const c_char,
    key_type: i32,
    asks: bool,
    key: *mut *const Key,
) -> i32 {
    status(|| {
        let key_type = match key_type {
            0 => KeyType::P256,
            1 => KeyType::P384,
            2 => KeyType::Ed25519,
            3 => KeyType::Rsa,
            other => return Err(invalid(format!("{other} is no enclasp_key_type"))),
        };
        // SAFETY: the header asks for such pointers.
        unsafe { put(key, object(home)?.open_or_make_key(text(uri)?, key_type, asks)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_unlock(home: *const Enclasp, uri: *const c_char, pin: *const c_char) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        let (home, uri, pin) = unsafe { (object(home)?, text(uri)?, text(pin)?) };
        home.unlock(uri, pin)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_key_uri(key: *const Key, uri: *mut *mut c_char) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put_text(uri, object(key)?.uri()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_key_csr(
    key: *const Key,
    subject: *const c_char,
    names: *const *const c_char,
    count: usize,
    pem: *mut *mut c_char,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put_text(pem, object(key)?.csr(text(subject)?, texts(names, count)?)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_enroll(
    home: *const Enclasp,
    token: *const c_char,
    name: *const c_char,
    key: *const Key,
    wait: u32,
    identity: *mut *const Identity,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        let (home, token, name, key) = unsafe { (object(home)?, text(token)?, text(name)?, object(key)?) };
        let enrolled = home.enroll(token, name, key, Some(Duration::from_millis(wait.into())))?;
        // SAFETY: as above.
        unsafe { put(identity, enrolled) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_import_identity(
    home: *const Enclasp,
    name: *const c_char,
    key: *const Key,
    certificates: *const c_char,
    roots: *const c_char,
    identity: *mut *const Identity,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        let (home, name, key) = unsafe { (object(home)?, text(name)?, object(key)?) };
        // SAFETY: as above.
        let (certificates, roots) = unsafe { (text(certificates)?, optional_text(roots)?) };
        let imported = home.import_identity(name, key, certificates, roots)?;
        // SAFETY: as above.
        unsafe { put(identity, imported) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_find_identity(
    home: *const Enclasp,
    name: *const c_char,
    key: *const Key,
    identity: *mut *const Identity,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put(identity, object(home)?.identity(text(name)?, optional_object(key))?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_renew(
    home: *const Enclasp,
    identity: *const Identity,
    renewed: *mut *const Identity,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put(renewed, object(home)?.renew(object(identity)?)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_identity_renew_after(identity: *const Identity) -> i64 {
    // SAFETY: the header asks for an identity.
    unsafe { object(identity) }.map_or(0, |identity| seconds(identity.renew_after()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_identity_not_after(identity: *const Identity) -> i64 {
    // SAFETY: the header asks for an identity.
    unsafe { object(identity) }.map_or(0, |identity| seconds(identity.not_after()))
}

/// Since 1970. No certificate that we read ends before.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_delete_identity(home: *const Enclasp, name: *const c_char) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { object(home)?.delete_identity(text(name)?) }
    })
}

/// `enclasp_client_options`.
#[repr(C)]
struct Settings {
    roots: *const c_char,
    alpn: *const c_char,
    version: u16,
    timeout: u32,
    prompt_timeout: u32,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_client_new(
    identity: *const Identity,
    options: *const Settings,
    client: *mut *const Client,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for options or NULL.
        let options = match unsafe { options.as_ref() } {
            None => None,
            Some(settings) => Some(ClientOptions {
                // SAFETY: the header asks for text or NULL.
                roots: unsafe { optional_text(settings.roots)? },
                // SAFETY: as above.
                alpn: unsafe { optional_text(settings.alpn)? }.into_iter().collect(),
                tls: match settings.version {
                    0 => None,
                    12 => Some(TlsVersion::Tls12),
                    13 => Some(TlsVersion::Tls13),
                    other => return Err(invalid(format!("{other} is no version of TLS: 12 and 13 are"))),
                },
                timeout: limit(settings.timeout),
                prompt_timeout: limit(settings.prompt_timeout),
            }),
        };
        // SAFETY: the header asks for an identity or NULL, and for a place for the result.
        unsafe { put(client, Arc::new(Client::new(optional_object(identity), options)?)) }
    })
}

fn limit(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_connect(
    client: *const Client,
    host: *const c_char,
    port: u16,
    name: *const c_char,
    stream: *mut *const Stream,
) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put(stream, object(client)?.connect(text(host)?, port, optional_text(name)?)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_read(
    stream: *const Stream,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> i32 {
    status(|| {
        if buffer.is_null() || length.is_null() {
            return Err(invalid("there is no place for what is read"));
        }
        // SAFETY: the header asks for a stream.
        let read = unsafe { object(stream)? }.read(u32::try_from(capacity).unwrap_or(u32::MAX))?;
        // SAFETY: no more than `capacity` bytes were read, which is what there is room for.
        unsafe {
            buffer.copy_from_nonoverlapping(read.as_ptr(), read.len());
            length.write(read.len());
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_write(stream: *const Stream, data: *const u8, length: usize) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { object(stream)?.write(bytes(data, length)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_finish(stream: *const Stream) -> i32 {
    status(|| {
        // SAFETY: the header asks for a stream.
        unsafe { object(stream)? }.finish()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_close(stream: *const Stream) -> i32 {
    status(|| {
        // SAFETY: the header asks for a stream.
        unsafe { object(stream)? }.close()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_evidence(stream: *const Stream, json: *mut *mut c_char) -> i32 {
    status(|| {
        // SAFETY: the header asks for such pointers.
        unsafe { put_text(json, object(stream)?.evidence().json) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn enclasp_http(
    client: *const Client,
    method: *const c_char,
    url: *const c_char,
    body: *const u8,
    body_length: usize,
    timeout: u32,
    code: *mut u16,
    answer: *mut *mut u8,
    answer_length: *mut usize,
) -> i32 {
    status(|| {
        if code.is_null() || answer.is_null() || answer_length.is_null() {
            return Err(invalid("there is no place for the answer"));
        }
        // SAFETY: the header asks for such pointers.
        let (client, method, url, body) =
            unsafe { (object(client)?, text(method)?, text(url)?, bytes(body, body_length)?) };
        let body = (!body.is_empty()).then_some(body);
        let request = HttpRequest { url, method, headers: Vec::new(), body, timeout: limit(timeout) };
        let response = client.request(request)?;
        let length = response.body.len();
        let bytes = Box::into_raw(response.body.into_boxed_slice());
        // SAFETY: they are not NULL, and the header asks for places for these.
        unsafe {
            code.write(response.status);
            answer.write(bytes.cast());
            answer_length.write(length);
        }
        Ok(())
    })
}

/// Writes text, which `enclasp_text_free` frees.
///
/// # Safety
/// `place` is NULL or a place for it.
unsafe fn put_text(place: *mut *mut c_char, text: String) -> Result<()> {
    // SAFETY: the caller's promise.
    let Some(place) = (unsafe { place.as_mut() }) else {
        return Err(invalid("there is no place for the text"));
    };
    *place = null_mut();
    let text = CString::new(text).map_err(|_| invalid("there is a zero byte in the text"))?;
    *place = text.into_raw();
    Ok(())
}
