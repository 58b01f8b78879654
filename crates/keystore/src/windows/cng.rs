//! CNG's key storage providers: handles, properties, signatures.
#![expect(unsafe_code, reason = "calls of ncrypt.dll")]

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{FILETIME, NTE_NO_MORE_ITEMS};
use windows_sys::Win32::Security::Cryptography::*;
use windows_sys::core::{HRESULT, PCWSTR};

use super::failure::Failure;
use super::place::Place;
use crate::{Algorithm, Hash, Scheme};

/// What came of a call.
pub(super) type Attempt<T> = Result<T, Failure>;

/// A provider, a key, or the like: closed when dropped.
struct Handle(NCRYPT_HANDLE);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nobody else has it.
        unsafe { NCryptFreeObject(self.0) };
    }
}

/// An open key storage provider.
pub(super) struct Provider {
    handle: Handle,
    place: Place,
}

/// An open key of a provider.
pub(super) struct OpenKey {
    handle: Handle,
    place: Place,
}

impl Provider {
    pub(super) fn open(place: Place) -> Attempt<Self> {
        let mut handle = 0;
        // SAFETY: the name is a constant, and the handle is written if the call succeeds.
        checked(unsafe { NCryptOpenStorageProvider(&mut handle, provider_name(place), 0) })?;
        Ok(Self { handle: Handle(handle), place })
    }

    pub(super) fn open_key(&self, name: &str) -> Attempt<OpenKey> {
        let (name, mut handle) = (wide(name), 0);
        // Looking at a card that is not there would ask a person to insert it.
        // SAFETY: the provider is open, the name ends with a zero and lives until the call returns.
        checked(unsafe { NCryptOpenKey(self.handle.0, &mut handle, name.as_ptr(), 0, NCRYPT_SILENT_FLAG) })?;
        Ok(OpenKey { handle: Handle(handle), place: self.place })
    }

    /// Makes a key for signatures that cannot be exported. `flags` are those of `NCRYPT_UI_POLICY`.
    pub(super) fn create_key(&self, name: &str, algorithm: Algorithm, flags: u32) -> Attempt<OpenKey> {
        let kind = match algorithm {
            Algorithm::P256 => BCRYPT_ECDSA_P256_ALGORITHM,
            Algorithm::P384 => BCRYPT_ECDSA_P384_ALGORITHM,
            Algorithm::Rsa => BCRYPT_RSA_ALGORITHM,
            Algorithm::Ed25519 => return Err(Failure(windows_sys::Win32::Foundation::NTE_BAD_ALGID)),
        };
        let (title, mut handle) = (wide(name), 0);
        // SAFETY: as in `open_key`.
        checked(unsafe { NCryptCreatePersistedKey(self.handle.0, &mut handle, kind, title.as_ptr(), 0, 0) })?;
        let key = OpenKey { handle: Handle(handle), place: self.place };
        if algorithm == Algorithm::Rsa {
            key.set(NCRYPT_LENGTH_PROPERTY, &RSA_BITS.to_ne_bytes())?;
        }
        // The TPM and cards have no other keys, and do not all know these properties.
        if self.place == Place::Software {
            key.set(NCRYPT_EXPORT_POLICY_PROPERTY, &0_u32.to_ne_bytes())?;
            key.set(NCRYPT_KEY_USAGE_PROPERTY, &NCRYPT_ALLOW_SIGNING_FLAG.to_ne_bytes())?;
        }
        if flags != 0 {
            key.set_ui_policy(flags, &title)?;
        }
        let silent = if flags == 0 && self.place != Place::SmartCard { NCRYPT_SILENT_FLAG } else { 0 };
        // SAFETY: the key is open, and is not finished yet.
        checked(unsafe { NCryptFinalizeKey(key.handle.0, silent) })?;
        Ok(key)
    }

    /// The names of all keys of this user.
    pub(super) fn names(&self) -> Attempt<Vec<String>> {
        let mut names = Vec::new();
        let mut position = Buffer(null_mut());
        loop {
            let mut found = null_mut();
            // SAFETY: the provider is open; `position` is null at first and the call's own afterwards.
            let status = unsafe {
                NCryptEnumKeys(self.handle.0, null(), &mut found, &mut position.0, NCRYPT_SILENT_FLAG)
            };
            if status == NTE_NO_MORE_ITEMS {
                return Ok(names);
            }
            checked(status)?;
            let _freed = Buffer(found.cast());
            // SAFETY: the call succeeded, so that `found` is a name that lives until it is freed.
            names.push(unsafe { text((*found).pszName) });
        }
    }
}

/// The length of a new RSA key: what every TPM can do.
const RSA_BITS: u32 = 2048;

impl OpenKey {
    /// The public key as a blob, see [`super::blob`].
    pub(super) fn public_blob(&self) -> Attempt<Vec<u8>> {
        self.export(BCRYPT_ECCPUBLIC_BLOB).or_else(|_| self.export(BCRYPT_RSAPUBLIC_BLOB))
    }

    /// The flags of its `NCRYPT_UI_POLICY`; 0 if it has none.
    pub(super) fn ui_flags(&self) -> u32 {
        // The structure holds pointers into the bytes behind it, of which none is used.
        let flags_at = std::mem::offset_of!(NCRYPT_UI_POLICY, dwFlags);
        let policy = self.property(NCRYPT_UI_POLICY_PROPERTY).unwrap_or_default();
        policy.get(flags_at..flags_at + 4).map_or(0, number)
    }

    /// Whether copies of the key can be taken out; true if the provider does not say.
    pub(super) fn is_exportable(&self) -> bool {
        let policy = self.property(NCRYPT_EXPORT_POLICY_PROPERTY);
        policy.ok().and_then(|policy| policy.get(..4).map(number)) != Some(0)
    }

    /// When it was made or last changed, as a `FILETIME`.
    pub(super) fn modified(&self) -> Option<u64> {
        let bytes = self.property(NCRYPT_LAST_MODIFIED_PROPERTY).ok()?;
        let time = bytes.get(..size_of::<FILETIME>())?;
        Some(u64::from(number(time.get(4..)?)) << 32 | u64::from(number(time.get(..4)?)))
    }

    /// Says what a prompt shows: why the key is wanted, and in front of which window.
    pub(super) fn say(&self, reason: &str, window: Option<isize>) -> Attempt<()> {
        if let Some(window) = window {
            self.set(NCRYPT_WINDOW_HANDLE_PROPERTY, &window.to_ne_bytes())?;
        }
        let reason: Vec<u8> = wide(reason).into_iter().flat_map(u16::to_ne_bytes).collect();
        self.set(NCRYPT_USE_CONTEXT_PROPERTY, &reason)
    }

    /// Signs what [`crate::hashing::primitive`] made of an input. ECDSA signatures are `r ‖ s`. With
    /// `silent`, a key that has to ask a person is an error.
    pub(super) fn sign(&self, scheme: Scheme, hash: Hash, digest: &[u8], silent: bool) -> Attempt<Vec<u8>> {
        let padding = Padding::of(scheme, hash);
        let flags = padding.flags() | if silent { NCRYPT_SILENT_FLAG } else { 0 };
        // SAFETY: the key is open; padding, digest and output live until the call returns, with their
        // true lengths.
        self.filled(|output, length, written| unsafe {
            NCryptSignHash(
                self.handle.0,
                padding.info(),
                digest.as_ptr(),
                digest.len() as u32,
                output,
                length,
                written,
                flags,
            )
        })
    }

    /// Destroys the key.
    pub(super) fn delete(self) -> Attempt<()> {
        let silent = if self.place == Place::SmartCard { 0 } else { NCRYPT_SILENT_FLAG };
        // SAFETY: the key is open. The call frees the handle if it succeeds, which is why it is not
        // dropped then.
        checked(unsafe { NCryptDeleteKey(self.handle.0, silent) })?;
        std::mem::forget(self.handle);
        Ok(())
    }

    fn export(&self, kind: PCWSTR) -> Attempt<Vec<u8>> {
        // SAFETY: as in `sign`; the kind is a constant.
        self.filled(|output, length, written| unsafe {
            NCryptExportKey(self.handle.0, 0, kind, null(), output, length, written, NCRYPT_SILENT_FLAG)
        })
    }

    fn property(&self, name: PCWSTR) -> Attempt<Vec<u8>> {
        // SAFETY: as in `sign`; the name is a constant.
        self.filled(|output, length, written| unsafe {
            NCryptGetProperty(self.handle.0, name, output, length, written, NCRYPT_SILENT_FLAG)
        })
    }

    fn set(&self, name: PCWSTR, value: &[u8]) -> Attempt<()> {
        // SAFETY: the key is open; the value lives until the call returns, with its true length.
        checked(unsafe { NCryptSetProperty(self.handle.0, name, value.as_ptr(), value.len() as u32, 0) })
    }

    /// What the system says when the key is made and used. `title` ends with a zero.
    fn set_ui_policy(&self, flags: u32, title: &[u16]) -> Attempt<()> {
        let policy = NCRYPT_UI_POLICY {
            dwVersion: 1,
            dwFlags: flags,
            pszCreationTitle: title.as_ptr(),
            pszFriendlyName: title.as_ptr(),
            pszDescription: title.as_ptr(),
        };
        // SAFETY: as in `set`: the structure and the texts in it live until the call returns.
        checked(unsafe {
            NCryptSetProperty(
                self.handle.0,
                NCRYPT_UI_POLICY_PROPERTY,
                (&raw const policy).cast(),
                size_of::<NCRYPT_UI_POLICY>() as u32,
                0,
            )
        })
    }

    /// What a call writes that is asked first how much that is.
    fn filled(&self, call: impl Fn(*mut u8, u32, *mut u32) -> HRESULT) -> Attempt<Vec<u8>> {
        let mut length = 0;
        checked(call(null_mut(), 0, &mut length))?;
        let mut output = vec![0; length as usize];
        let mut written = 0;
        checked(call(output.as_mut_ptr(), length, &mut written))?;
        output.truncate(written as usize);
        Ok(output)
    }
}

/// How RSA pads; nothing for ECDSA.
pub(super) enum Padding {
    None,
    Pkcs1(BCRYPT_PKCS1_PADDING_INFO),
    Pss(BCRYPT_PSS_PADDING_INFO),
}

impl Padding {
    pub(super) fn of(scheme: Scheme, hash: Hash) -> Self {
        let name = match hash {
            Hash::Sha256 => BCRYPT_SHA256_ALGORITHM,
            Hash::Sha384 => BCRYPT_SHA384_ALGORITHM,
            Hash::Sha512 => BCRYPT_SHA512_ALGORITHM,
        };
        match scheme {
            Scheme::RsaPkcs1Sha256 | Scheme::RsaPkcs1Sha384 | Scheme::RsaPkcs1Sha512 => {
                Self::Pkcs1(BCRYPT_PKCS1_PADDING_INFO { pszAlgId: name })
            }
            // The salt is as long as the hash (RFC 8446 §4.2.3).
            Scheme::RsaPssSha256 | Scheme::RsaPssSha384 | Scheme::RsaPssSha512 => {
                Self::Pss(BCRYPT_PSS_PADDING_INFO { pszAlgId: name, cbSalt: hash.length() as u32 })
            }
            _ => Self::None,
        }
    }

    /// The same numbers as `NCRYPT_PAD_…_FLAG`.
    pub(super) fn flags(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Pkcs1(_) => BCRYPT_PAD_PKCS1,
            Self::Pss(_) => BCRYPT_PAD_PSS,
        }
    }

    /// Lives as long as `self`.
    pub(super) fn info(&self) -> *const c_void {
        match self {
            Self::None => null(),
            Self::Pkcs1(info) => (&raw const *info).cast(),
            Self::Pss(info) => (&raw const *info).cast(),
        }
    }
}

/// Memory of NCrypt's; freed when dropped.
struct Buffer(*mut c_void);

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: NCrypt gave it to us, and nobody uses it any more.
            unsafe { NCryptFreeBuffer(self.0) };
        }
    }
}

/// The name of the provider of a place, as certificates refer to it, too.
pub(super) fn provider_name(place: Place) -> PCWSTR {
    match place {
        Place::Platform => MS_PLATFORM_CRYPTO_PROVIDER,
        Place::Software => MS_KEY_STORAGE_PROVIDER,
        Place::SmartCard => MS_SMART_CARD_KEY_STORAGE_PROVIDER,
    }
}

/// UTF-16 with a zero at its end.
pub(super) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// The text of a string that ends with a zero.
///
/// # Safety
/// `string` is such a string.
pub(super) unsafe fn text(string: PCWSTR) -> String {
    let mut length = 0;
    // SAFETY: there is a zero behind whatever was read before.
    while unsafe { *string.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: so many were just read.
    String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(string, length) })
}

pub(super) fn checked(status: HRESULT) -> Attempt<()> {
    if status == 0 { Ok(()) } else { Err(Failure(status)) }
}

/// The number in four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map_or(0, u32::from_ne_bytes)
}
