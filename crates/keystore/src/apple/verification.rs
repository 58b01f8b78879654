//! Verification by Security.framework, for builds without aws-lc.
#![expect(unsafe_code, reason = "Security.framework's dictionaries are untyped")]

use core_foundation::base::TCFType;
use core_foundation::data::CFData;
use core_foundation::dictionary::CFDictionary;
use core_foundation::error::CFErrorRef;
use core_foundation::string::CFString;
use security_framework::key::SecKey;
use security_framework_sys::item::{
    kSecAttrKeyClass, kSecAttrKeyClassPublic, kSecAttrKeyType, kSecAttrKeyTypeECSECPrimeRandom,
    kSecAttrKeyTypeRSA,
};
use security_framework_sys::key::SecKeyCreateWithData;

use super::keychain::{names, taken};
use super::schemes::algorithm;
use crate::{Algorithm, Error, Input, Result, Scheme, encoding};

names! {
    elliptic_curve = kSecAttrKeyTypeECSECPrimeRandom;
    key_class = kSecAttrKeyClass;
    key_type = kSecAttrKeyType;
    public_key_class = kSecAttrKeyClassPublic;
    rsa = kSecAttrKeyTypeRSA;
}

/// Verifies by `SecKeyVerifySignature`; see [`crate::verify`].
pub(crate) fn verify(spki: &[u8], scheme: Scheme, input: Input<'_>, signature: &[u8]) -> Result<()> {
    let refused = |reason: String| Error::PublicKey { reason };
    let (algorithm, bytes) =
        algorithm(scheme, input).ok_or_else(|| refused(format!("the system has no {scheme}")))?;
    match public_key(spki)?.verify_signature(algorithm, bytes, signature) {
        Ok(true) => Ok(()),
        _ => Err(refused(format!("the {scheme} signature does not verify with this key"))),
    }
}

/// The public key in a DER SubjectPublicKeyInfo as the system takes it.
fn public_key(spki: &[u8]) -> Result<SecKey> {
    let kind = if Algorithm::of_spki(spki)? == Algorithm::Rsa { rsa() } else { elliptic_curve() };
    let bytes = CFData::from_buffer(encoding::public_bits(spki)?);
    let attributes = CFDictionary::from_CFType_pairs(&[
        (key_type(), kind.into_CFType()),
        (key_class(), public_key_class().into_CFType()),
    ]);
    let mut error: CFErrorRef = std::ptr::null_mut();
    // SAFETY: data and dictionary live until the call returns a key that is ours, or an error that is.
    unsafe {
        let key =
            SecKeyCreateWithData(bytes.as_concrete_TypeRef(), attributes.as_concrete_TypeRef(), &mut error);
        if key.is_null() {
            Err(Error::PublicKey { reason: taken(error).text })
        } else {
            Ok(SecKey::wrap_under_create_rule(key))
        }
    }
}
