//! What C gives, as what Rust takes.

#![expect(unsafe_code, reason = "pointers from C")]

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::sync::Arc;

use crate::EnclaspError;
use crate::error::Result;

/// More than this of anything is a mistake of the caller's.
const MAX_COUNT: usize = 1 << 30;

pub(super) fn invalid(what: impl Display) -> EnclaspError {
    EnclaspError::new(EnclaspError::Invalid, what, None)
}

/// Text that has to be there.
///
/// # Safety
/// `text` is NULL, or ends with a zero byte.
pub(super) unsafe fn text(text: *const c_char) -> Result<String> {
    // SAFETY: the caller's promise.
    unsafe { optional_text(text)? }.ok_or_else(|| invalid("text is NULL that has to be there"))
}

/// Text, if it is not NULL.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional_text(text: *const c_char) -> Result<Option<String>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    // The text is not repeated: it may be a PIN.
    text.to_str().map(|text| Some(text.to_owned())).map_err(|_| invalid("text is not UTF-8"))
}

/// An array of texts.
///
/// # Safety
/// `all` is NULL and `count` 0, or there are `count` of them, each as for [`text`].
pub(super) unsafe fn texts(all: *const *const c_char, count: usize) -> Result<Vec<String>> {
    // SAFETY: the caller's promise.
    let all = unsafe { slice(all, count)? };
    // SAFETY: as above.
    all.iter().map(|one| unsafe { text(*one) }).collect()
}

/// A copy of bytes.
///
/// # Safety
/// `start` is NULL and `length` 0, or there are `length` bytes at it.
pub(super) unsafe fn bytes(start: *const u8, length: usize) -> Result<Vec<u8>> {
    // SAFETY: the caller's promise.
    Ok(unsafe { slice(start, length)? }.to_vec())
}

/// # Safety
/// `start` is NULL and `length` 0, or there are `length` items at it, for as long as the result is used.
unsafe fn slice<'a, T>(start: *const T, length: usize) -> Result<&'a [T]> {
    match (start.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(invalid("NULL is given for what has a length")),
        (_, MAX_COUNT..) => Err(invalid("the length is beyond what can be meant")),
        // SAFETY: the caller's promise.
        _ => Ok(unsafe { std::slice::from_raw_parts(start, length) }),
    }
}

/// An object that has to be there.
///
/// # Safety
/// `object` is NULL, or came from [`put`] and was not freed.
pub(super) unsafe fn object<T>(object: *const T) -> Result<Arc<T>> {
    // SAFETY: the caller's promise.
    unsafe { optional_object(object) }.ok_or_else(|| invalid("an object is NULL that has to be there"))
}

/// An object, if it is not NULL.
///
/// # Safety
/// As [`object`].
pub(super) unsafe fn optional_object<T>(object: *const T) -> Option<Arc<T>> {
    if object.is_null() {
        return None;
    }
    // SAFETY: it is the pointer of an Arc, by the caller's promise, and one more owner of it is made.
    unsafe {
        Arc::increment_strong_count(object);
        Some(Arc::from_raw(object))
    }
}

/// Hands an object to the caller, who frees it.
///
/// # Safety
/// `place` is NULL or a place for it.
pub(super) unsafe fn put<T>(place: *mut *const T, object: Arc<T>) -> Result<()> {
    if place.is_null() {
        return Err(invalid("there is no place for the result"));
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(Arc::into_raw(object)) };
    Ok(())
}
