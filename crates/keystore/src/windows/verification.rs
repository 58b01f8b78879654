//! Verification by CNG, for builds without aws-lc.
#![expect(unsafe_code, reason = "calls of bcrypt.dll")]

use std::ptr::null_mut;

use windows_sys::Win32::Security::Cryptography::*;

use super::blob::blob;
use super::cng::{Attempt, Padding, checked};
use crate::hashing::primitive;
use crate::{Algorithm, Error, Input, Result, Scheme, encoding};

/// Verifies by `BCryptVerifySignature`; see [`crate::verify`].
pub(crate) fn verify(spki: &[u8], scheme: Scheme, input: Input<'_>, signature: &[u8]) -> Result<()> {
    let refused = |reason: String| Error::PublicKey { reason };
    let hash = scheme.hash().ok_or_else(|| refused(format!("CNG has no {scheme}")))?;
    let wrong = || refused(format!("the {scheme} signature does not verify with this key"));
    let (provider, kind, signature) = match scheme.algorithm() {
        Algorithm::P256 => {
            let pair = encoding::ecdsa_pair_of_der(signature, 32).ok_or_else(wrong)?;
            (BCRYPT_ECDSA_P256_ALG_HANDLE, BCRYPT_ECCPUBLIC_BLOB, pair)
        }
        Algorithm::P384 => {
            let pair = encoding::ecdsa_pair_of_der(signature, 48).ok_or_else(wrong)?;
            (BCRYPT_ECDSA_P384_ALG_HANDLE, BCRYPT_ECCPUBLIC_BLOB, pair)
        }
        _ => (BCRYPT_RSA_ALG_HANDLE, BCRYPT_RSAPUBLIC_BLOB, signature.to_vec()),
    };
    let key = PublicKey::import(provider, kind, &blob(spki)?)
        .map_err(|failure| refused(format!("CNG does not take the key: {:#010x}", failure.0)))?;
    let padding = Padding::of(scheme, hash);
    key.verify(&padding, &primitive(scheme, hash, input), &signature).map_err(|_| wrong())
}

/// A public key of BCrypt's: destroyed when dropped.
struct PublicKey(BCRYPT_KEY_HANDLE);

impl PublicKey {
    fn import(provider: BCRYPT_ALG_HANDLE, kind: windows_sys::core::PCWSTR, blob: &[u8]) -> Attempt<Self> {
        let mut handle = null_mut();
        // SAFETY: provider and kind are constants; the blob lives until the call returns, with its true
        // length, and the handle is written if it succeeds.
        checked(unsafe {
            BCryptImportKeyPair(provider, null_mut(), kind, &mut handle, blob.as_ptr(), blob.len() as u32, 0)
        })?;
        Ok(Self(handle))
    }

    fn verify(&self, padding: &Padding, digest: &[u8], signature: &[u8]) -> Attempt<()> {
        // SAFETY: the key is open; padding, digest and signature live until the call returns, with their
        // true lengths.
        checked(unsafe {
            BCryptVerifySignature(
                self.0,
                padding.info(),
                digest.as_ptr(),
                digest.len() as u32,
                signature.as_ptr(),
                signature.len() as u32,
                padding.flags(),
            )
        })
    }
}

impl Drop for PublicKey {
    fn drop(&mut self) {
        // SAFETY: the key is open, and nobody else has it.
        unsafe { BCryptDestroyKey(self.0) };
    }
}
