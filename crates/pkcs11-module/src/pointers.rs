//! Between the pointers of C and what is safe: reading what a host hands over, writing what it asked
//! for. A null pointer where there has to be something is `CKR_ARGUMENTS_BAD`.
#![expect(unsafe_code, reason = "reads and writes through the pointers of the host")]

use std::slice;

use cryptoki_sys::*;

use crate::object::{Object, Value};

/// The `count` values at `at`.
///
/// # Safety
/// `at` is null or points to `count` values that nobody changes while the result is used.
pub(crate) unsafe fn values<'a, T>(at: *const T, count: CK_ULONG) -> Result<&'a [T], CK_RV> {
    let count = usize::try_from(count).map_err(|_| CKR_ARGUMENTS_BAD)?;
    if count == 0 {
        return Ok(&[]);
    }
    let fits = count.checked_mul(size_of::<T>()).is_some_and(|size| isize::try_from(size).is_ok());
    if at.is_null() || !at.is_aligned() || !fits {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: it is not null, aligned and of a possible size; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(at, count) })
}

/// The value at `at`, to be read and changed.
///
/// # Safety
/// `at` is null or points to a value that nobody else uses while the result is used.
pub(crate) unsafe fn place<'a, T>(at: *mut T) -> Result<&'a mut T, CK_RV> {
    if at.is_null() || !at.is_aligned() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: it is not null and aligned; the rest is the caller's promise.
    Ok(unsafe { &mut *at })
}

/// Answers in the way of PKCS#11 5.2: without a place to write to, how many values there are; with
/// too little room that, too, and an error.
///
/// # Safety
/// `count` is null or points to a number; `to` is null or points to room for as many values as that
/// says.
pub(crate) unsafe fn write_all<T: Copy>(what: &[T], to: *mut T, count: *mut CK_ULONG) -> Result<(), CK_RV> {
    // SAFETY: the caller's promise.
    let count = unsafe { place(count) }?;
    let room = std::mem::replace(count, what.len() as CK_ULONG);
    if to.is_null() {
        return Ok(());
    }
    if room < *count {
        return Err(CKR_BUFFER_TOO_SMALL);
    }
    // SAFETY: there is room for `room` values, which are not fewer.
    unsafe { to.copy_from_nonoverlapping(what.as_ptr(), what.len()) };
    Ok(())
}

/// The attributes of a template.
///
/// # Safety
/// `at` is null or points to `count` attributes, each of whose values is null or has as many bytes as
/// the attribute says.
pub(crate) unsafe fn template(
    at: *const CK_ATTRIBUTE,
    count: CK_ULONG,
) -> Result<Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>, CK_RV> {
    // SAFETY: the caller's promise.
    let attributes = unsafe { values(at, count) }?;
    attributes
        .iter()
        .map(|attribute| {
            // SAFETY: the caller's promise.
            let value = unsafe { values(attribute.pValue.cast::<u8>().cast_const(), attribute.ulValueLen) }?;
            Ok((attribute.type_, value.to_vec()))
        })
        .collect()
}

/// Fills in the values of a template (PKCS#11 5.7.5). All attributes are looked at; of what is wrong
/// with them the first is returned.
///
/// # Safety
/// As [`template`], and the values can be written to.
pub(crate) unsafe fn fill(
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    object: &Object,
) -> Result<(), CK_RV> {
    // SAFETY: the caller's promise. The attributes are changed through this pointer only.
    unsafe { values(template, count) }?;
    let mut outcome = Ok(());
    for index in 0..count as usize {
        // SAFETY: `values` found that there are so many.
        let attribute = unsafe { &mut *template.add(index) };
        let filled = match object.value(attribute.type_) {
            // SAFETY: the caller's promise.
            Value::Bytes(value) => unsafe {
                write_all(value, attribute.pValue.cast::<u8>(), &raw mut attribute.ulValueLen)
            },
            Value::Sensitive => Err(CKR_ATTRIBUTE_SENSITIVE),
            Value::Absent => Err(CKR_ATTRIBUTE_TYPE_INVALID),
        };
        if filled.is_err() {
            attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        }
        outcome = outcome.and(filled);
    }
    outcome
}
