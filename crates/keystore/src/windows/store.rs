//! The user's certificate store, where certificates say which key is theirs.
#![expect(unsafe_code, reason = "calls of crypt32.dll")]

use std::ptr::{null, null_mut};

use windows_sys::Win32::Security::Cryptography::*;
use windows_sys::core::{BOOL, w};

use super::cng::{Attempt, provider_name, text, wide};
use super::failure::Failure;
use super::place::Place;

/// The open store "MY" of the current user.
pub(super) struct Store(HCERTSTORE);

/// A certificate, and the key that it says is its own.
pub(super) struct Found {
    pub(super) der: Vec<u8>,
    pub(super) key: Option<(Place, String)>,
}

impl Store {
    pub(super) fn open() -> Attempt<Self> {
        // SAFETY: the name is a constant, and of the kind that the provider takes.
        let store = unsafe {
            CertOpenStore(CERT_STORE_PROV_SYSTEM_W, 0, 0, CERT_SYSTEM_STORE_CURRENT_USER, w!("MY").cast())
        };
        if store.is_null() { Err(last_failure()) } else { Ok(Self(store)) }
    }

    pub(super) fn certificates(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut context: *const CERT_CONTEXT = null();
        loop {
            // SAFETY: the store is open; the call frees the context before, which is not used any more.
            context = unsafe { CertEnumCertificatesInStore(self.0, context) };
            if context.is_null() {
                return found;
            }
            // SAFETY: the context lives until the next turn.
            let (der, key) = unsafe { (encoded(context), key_of(context)) };
            found.push(Found { der, key });
        }
    }

    /// Adds a certificate, in place of the same one, as that of the key `name`.
    pub(super) fn add(&self, der: &[u8], place: Place, name: &str) -> Attempt<()> {
        let context = Context::of(der)?;
        let mut name = wide(name);
        let key = CRYPT_KEY_PROV_INFO {
            pwszContainerName: name.as_mut_ptr(),
            pwszProvName: provider_name(place).cast_mut(),
            // These, and no key specification, say that it is a key of CNG's.
            dwProvType: 0,
            dwFlags: 0,
            cProvParam: 0,
            rgProvParam: null_mut(),
            dwKeySpec: 0,
        };
        // SAFETY: context and store are open; the structure and the texts in it, which are only read, live
        // until the calls return.
        unsafe {
            succeeded(CertSetCertificateContextProperty(
                context.0,
                CERT_KEY_PROV_INFO_PROP_ID,
                0,
                (&raw const key).cast(),
            ))?;
            succeeded(CertAddCertificateContextToStore(
                self.0,
                context.0,
                CERT_STORE_ADD_REPLACE_EXISTING,
                null_mut(),
            ))
        }
    }

    /// Removes a certificate, if it is there.
    pub(super) fn delete(&self, der: &[u8]) -> Attempt<()> {
        let wanted = Context::of(der)?;
        // SAFETY: store and context are open.
        let found = unsafe {
            CertFindCertificateInStore(
                self.0,
                X509_ASN_ENCODING,
                0,
                CERT_FIND_EXISTING,
                wanted.0.cast(),
                null(),
            )
        };
        if found.is_null() {
            return Ok(());
        }
        // SAFETY: the context is open, and the call frees it whatever comes of it.
        succeeded(unsafe { CertDeleteCertificateFromStore(found) })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the store is open, and nobody else has it.
        unsafe { CertCloseStore(self.0, 0) };
    }
}

/// A certificate that is in no store: freed when dropped.
struct Context(*mut CERT_CONTEXT);

impl Context {
    fn of(der: &[u8]) -> Attempt<Self> {
        // SAFETY: the bytes live until the call returns, with their true length; it copies them.
        let context =
            unsafe { CertCreateCertificateContext(X509_ASN_ENCODING, der.as_ptr(), der.len() as u32) };
        if context.is_null() { Err(last_failure()) } else { Ok(Self(context)) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is open, and nobody else has it.
        unsafe { CertFreeCertificateContext(self.0) };
    }
}

/// # Safety
/// `context` is open.
unsafe fn encoded(context: *const CERT_CONTEXT) -> Vec<u8> {
    // SAFETY: an open context holds the certificate's bytes, with their true length.
    unsafe {
        let CERT_CONTEXT { pbCertEncoded, cbCertEncoded, .. } = *context;
        std::slice::from_raw_parts(pbCertEncoded, cbCertEncoded as usize).to_vec()
    }
}

/// Which key of CNG's a certificate says is its own.
///
/// # Safety
/// `context` is open.
unsafe fn key_of(context: *const CERT_CONTEXT) -> Option<(Place, String)> {
    let mut length = 0;
    // SAFETY: the context is open; without a buffer, the call only says how much it would write.
    let there = unsafe {
        CertGetCertificateContextProperty(context, CERT_KEY_PROV_INFO_PROP_ID, null_mut(), &mut length)
    };
    // The structure comes first, and the texts that it points to behind it.
    if there == 0 || (length as usize) < size_of::<CRYPT_KEY_PROV_INFO>() {
        return None;
    }
    let mut buffer = vec![0_u64; (length as usize).div_ceil(size_of::<u64>())];
    // SAFETY: the buffer has at least that length.
    let got = unsafe {
        CertGetCertificateContextProperty(
            context,
            CERT_KEY_PROV_INFO_PROP_ID,
            buffer.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if got == 0 {
        return None;
    }
    // SAFETY: the call succeeded, so that the buffer, which is aligned for it, begins with this structure;
    // its texts are in the buffer and end with a zero.
    let (provider, name) = unsafe {
        let info = &*buffer.as_ptr().cast::<CRYPT_KEY_PROV_INFO>();
        if info.pwszProvName.is_null() || info.pwszContainerName.is_null() {
            return None;
        }
        (text(info.pwszProvName), text(info.pwszContainerName))
    };
    // SAFETY: the names of providers are constants that end with a zero.
    let place = Place::ALL.into_iter().find(|place| unsafe { text(provider_name(*place)) } == provider)?;
    Some((place, name))
}

fn succeeded(done: BOOL) -> Attempt<()> {
    if done == 0 { Err(last_failure()) } else { Ok(()) }
}

/// Why the last call of this thread failed, as an HRESULT: crypt32's own codes are ones already.
fn last_failure() -> Failure {
    /// The facility of the system's codes.
    const WIN32: u32 = 0x8007_0000;
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or_default();
    Failure(if code < 0 { code } else { (WIN32 | code as u32 & 0xffff) as i32 })
}
