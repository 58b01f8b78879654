//! The keychain: finding, making, adding and removing items.
#![expect(unsafe_code, reason = "Security.framework's dictionaries are untyped")]

use std::time::{Duration, SystemTime};

use core_foundation::ConcreteCFType;
use core_foundation::base::{CFType, TCFType, ToVoid};
use core_foundation::boolean::CFBoolean;
use core_foundation::data::CFData;
use core_foundation::date::CFDate;
use core_foundation::dictionary::CFDictionary;
use core_foundation::error::{CFError, CFErrorRef};
use core_foundation::number::CFNumber;
use core_foundation::string::{CFString, CFStringRef};
use security_framework::access_control::{ProtectionMode, SecAccessControl};
use security_framework::base::Error as SecurityError;
use security_framework::certificate::SecCertificate;
use security_framework::identity::SecIdentity;
use security_framework::item::{
    AddRef, ItemAddOptions, ItemAddValue, ItemClass, ItemSearchOptions, KeyClass, Limit, Location, Reference,
    SearchResult,
};
use security_framework::key::SecKey;
use security_framework_sys::access_control::{
    kSecAccessControlBiometryCurrentSet, kSecAccessControlDevicePasscode, kSecAccessControlPrivateKeyUsage,
    kSecAccessControlUserPresence,
};
use security_framework_sys::item::*;
use security_framework_sys::key::SecKeyCreateRandomKey;
use security_framework_sys::keychain_item::SecItemDelete;

use super::authentication::Authentication;
use super::demand::Demand;
use super::failure::{Domain, Failure};
use crate::{Algorithm, Error, Result, encoding};

/// What came of a call.
pub(super) type Attempt<T> = std::result::Result<T, Failure>;

// What security-framework-sys does not declare.
#[allow(non_upper_case_globals)]
unsafe extern "C" {
    static kSecAttrApplicationTag: CFStringRef;
    static kSecAttrCreationDate: CFStringRef;
}

/// Functions that return the names of attributes, and values that are names, too.
macro_rules! names {
    ($($name:ident = $constant:ident;)*) => {$(
        pub(super) fn $name() -> CFString {
            // SAFETY: a constant of Security.framework, which is there as long as the process.
            unsafe { CFString::wrap_under_get_rule($constant) }
        }
    )*};
}
#[cfg(not(feature = "aws-lc"))]
pub(super) use names;

names! {
    access_control = kSecAttrAccessControl;
    access_group = kSecAttrAccessGroup;
    application_label = kSecAttrApplicationLabel;
    application_tag = kSecAttrApplicationTag;
    creation_date = kSecAttrCreationDate;
    data_protection_keychain = kSecUseDataProtectionKeychain;
    elliptic_curve = kSecAttrKeyTypeECSECPrimeRandom;
    is_permanent = kSecAttrIsPermanent;
    key_size = kSecAttrKeySizeInBits;
    key_type = kSecAttrKeyType;
    label = kSecAttrLabel;
    private_key_attributes = kSecPrivateKeyAttrs;
    secure_enclave = kSecAttrTokenIDSecureEnclave;
    token_id = kSecAttrTokenID;
    value = kSecValueRef;
}

/// A private key in the keychain, or on a token that shows there.
pub(super) struct Item {
    pub(super) key: SecKey,
    /// DER SubjectPublicKeyInfo.
    pub(super) spki: Vec<u8>,
    pub(super) label: String,
    /// What its application tag says, if Enclasp made it.
    pub(super) demand: Option<Demand>,
    /// Whether it is in the Secure Enclave.
    pub(super) in_enclave: bool,
    /// The SHA-1 of its public key, by which the keychain pairs it with certificates.
    pub(super) public_key_hash: Vec<u8>,
    pub(super) created: Option<SystemTime>,
    /// The certificate of the identity that it was found by, in DER.
    pub(super) certificate: Option<Vec<u8>>,
}

/// Which items to look for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Keys,
    Identities,
}

/// Looks for private keys with a label, or for all. Nobody is asked for anything.
///
/// A Mac has two keychains, and a search of both at once is documented for neither; smart cards are a
/// group of their own. What one search finds, another one's failure does not hide.
pub(super) fn find(wanted: Wanted, label: Option<&str>, group: Option<&str>) -> Attempt<Vec<Item>> {
    let mut found: Vec<Item> = Vec::new();
    let mut failure = None;
    for place in [Place::DataProtection, Place::Tokens, Place::Other] {
        match search(place, wanted, label, group) {
            Ok(items) => {
                for item in items {
                    if found.iter().all(|other| other.spki != item.spki) {
                        found.push(item);
                    }
                }
            }
            Err(error) => _ = failure.get_or_insert(error),
        }
    }
    match failure {
        Some(failure) if found.is_empty() => Err(failure),
        _ => Ok(found),
    }
}

/// The key with that public key hash, for a signature that `authentication` answers for.
pub(super) fn key(public_key_hash: &[u8], authentication: &Authentication) -> Attempt<SecKey> {
    let mut query = ItemSearchOptions::new();
    place_in(&mut query, Place::DataProtection, None);
    query
        .key_class(KeyClass::private())
        .application_label(public_key_hash)
        .local_authentication_context(Some(authentication.as_cf()))
        .load_refs(true)
        .limit(1);
    query
        .search()?
        .into_iter()
        .find_map(|found| match found {
            SearchResult::Ref(Reference::Key(key)) => Some(key),
            _ => None,
        })
        .ok_or_else(not_found)
}

/// Makes a P-256 key in the Secure Enclave.
pub(super) fn generate(name: &str, demand: Demand, group: Option<&str>) -> Attempt<SecKey> {
    // One that demands a person exists only while there is a passcode. The others sign in the
    // background, too, once the device was unlocked.
    let (protection, flags) = match demand {
        Demand::Nothing => (ProtectionMode::AccessibleAfterFirstUnlockThisDeviceOnly, 0),
        Demand::User => {
            (ProtectionMode::AccessibleWhenPasscodeSetThisDeviceOnly, kSecAccessControlUserPresence)
        }
        Demand::Biometry => {
            (ProtectionMode::AccessibleWhenPasscodeSetThisDeviceOnly, kSecAccessControlBiometryCurrentSet)
        }
        Demand::Passcode => {
            (ProtectionMode::AccessibleWhenPasscodeSetThisDeviceOnly, kSecAccessControlDevicePasscode)
        }
    };
    let flags = kSecAccessControlPrivateKeyUsage | flags;
    let access = SecAccessControl::create_with_protection(Some(protection), flags)?;
    let tag = CFData::from_buffer(demand.tag().as_bytes());
    let mut private = vec![
        (is_permanent(), CFBoolean::true_value().into_CFType()),
        (label(), CFString::new(name).into_CFType()),
        (application_tag(), tag.into_CFType()),
        (access_control(), access.into_CFType()),
    ];
    private.extend(group.map(|group| (access_group(), CFString::new(group).into_CFType())));
    let attributes = CFDictionary::from_CFType_pairs(&[
        (key_type(), elliptic_curve().into_CFType()),
        (key_size(), CFNumber::from(256).into_CFType()),
        (token_id(), secure_enclave().into_CFType()),
        (label(), CFString::new(name).into_CFType()),
        (data_protection_keychain(), CFBoolean::true_value().into_CFType()),
        (private_key_attributes(), CFDictionary::from_CFType_pairs(&private).into_CFType()),
    ]);
    let mut error: CFErrorRef = std::ptr::null_mut();
    // SAFETY: the dictionary lives until the call returns, which is one of its two outcomes: a key that
    // is ours, or an error that is ours.
    unsafe {
        let key = SecKeyCreateRandomKey(attributes.as_concrete_TypeRef(), &mut error);
        if key.is_null() { Err(taken(error)) } else { Ok(SecKey::wrap_under_create_rule(key)) }
    }
}

/// The DER SubjectPublicKeyInfo of a private key's public key.
pub(super) fn spki(key: &SecKey) -> Result<Vec<u8>> {
    // A point for elliptic curves, an RSAPublicKey for RSA.
    let bytes = key
        .public_key()
        .and_then(|public| public.external_representation())
        .ok_or_else(|| Error::PublicKey { reason: "the keychain does not show it".into() })?;
    match bytes.len() {
        65 => encoding::ec_spki(Algorithm::P256, &bytes),
        97 => encoding::ec_spki(Algorithm::P384, &bytes),
        _ => encoding::rsa_spki_of_public_key(&bytes),
    }
}

/// Destroys the key with that public key hash.
pub(super) fn delete_key(public_key_hash: &[u8]) -> Attempt<()> {
    let mut query = ItemSearchOptions::new();
    place_in(&mut query, Place::DataProtection, None);
    query.key_class(KeyClass::private()).application_label(public_key_hash);
    Ok(query.delete()?)
}

/// The certificates of the key with that public key hash, in DER.
pub(super) fn certificates(public_key_hash: &[u8]) -> Attempt<Vec<Vec<u8>>> {
    let mut query = ItemSearchOptions::new();
    place_in(&mut query, Place::DataProtection, None);
    query.class(ItemClass::certificate()).pub_key_hash(public_key_hash).load_refs(true).limit(Limit::All);
    Ok(results(&query)?
        .into_iter()
        .filter_map(|found| match found {
            SearchResult::Ref(Reference::Certificate(certificate)) => Some(certificate.to_der()),
            _ => None,
        })
        .collect())
}

/// Adds a certificate, which makes an identity together with its key.
pub(super) fn add_certificate(der: &[u8], name: &str, group: Option<&str>) -> Attempt<()> {
    let certificate = SecCertificate::from_der(der)?;
    let mut options = ItemAddOptions::new(ItemAddValue::Ref(AddRef::Certificate(certificate)));
    options.set_label(name).set_location(Location::DataProtectionKeychain);
    if let Some(group) = group {
        options.set_access_group(group);
    }
    Ok(options.add()?)
}

pub(super) fn delete_certificate(der: &[u8]) -> Attempt<()> {
    let certificate = SecCertificate::from_der(der)?;
    let query = CFDictionary::from_CFType_pairs(&[
        (value(), certificate.into_CFType()),
        (data_protection_keychain(), CFBoolean::true_value().into_CFType()),
    ]);
    // SAFETY: the dictionary lives until the call returns.
    match unsafe { SecItemDelete(query.as_concrete_TypeRef()) } {
        0 => Ok(()),
        status => Err(SecurityError::from_code(status).into()),
    }
}

/// Where to search.
#[derive(Clone, Copy)]
enum Place {
    /// The data protection keychain, where ours are.
    DataProtection,
    /// Smart cards that CryptoTokenKit drives.
    Tokens,
    /// Wherever the system looks if nothing is said: on a Mac, the login keychain.
    Other,
}

fn place_in(query: &mut ItemSearchOptions, place: Place, group: Option<&str>) {
    match place {
        Place::DataProtection => {
            #[cfg(target_os = "macos")]
            query.ignore_legacy_keychains();
            if let Some(group) = group {
                query.access_group(group);
            }
        }
        Place::Tokens => _ = query.access_group_token(),
        Place::Other => {}
    }
}

fn search(place: Place, wanted: Wanted, name: Option<&str>, group: Option<&str>) -> Attempt<Vec<Item>> {
    let mut query = ItemSearchOptions::new();
    place_in(&mut query, place, group);
    match wanted {
        Wanted::Keys => query.key_class(KeyClass::private()),
        Wanted::Identities => query.class(ItemClass::identity()),
    };
    query.load_refs(true).load_attributes(true).limit(Limit::All);
    if let Some(name) = name {
        query.label(name);
    }
    let found = results(&query)?;
    Ok(found
        .iter()
        .filter_map(|found| match found {
            SearchResult::Dict(attributes) => item(attributes),
            _ => None,
        })
        .collect())
}

/// What a search finds; that is nothing is no failure.
fn results(query: &ItemSearchOptions) -> Attempt<Vec<SearchResult>> {
    match query.search().map_err(Failure::from) {
        Err(failure) if failure.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

/// The item with these attributes; `None` if its key is of a type that we do not know.
fn item(attributes: &CFDictionary) -> Option<Item> {
    let (key, certificate) = match attribute::<SecIdentity>(attributes, &value()) {
        Some(identity) => (identity.private_key().ok()?, identity.certificate().ok()),
        None => (attribute::<SecKey>(attributes, &value())?, None),
    };
    let hash = attribute::<CFData>(attributes, &application_label()).map(|hash| hash.to_vec());
    Some(Item {
        spki: spki(&key).ok()?,
        label: attribute::<CFString>(attributes, &label())?.to_string(),
        demand: attribute::<CFData>(attributes, &application_tag()).and_then(|tag| Demand::of_tag(&tag)),
        in_enclave: attribute::<CFString>(attributes, &token_id()) == Some(secure_enclave()),
        public_key_hash: hash.or_else(|| key.application_label())?,
        created: attribute::<CFDate>(attributes, &creation_date()).and_then(|date| time(&date)),
        certificate: certificate.map(|certificate| certificate.to_der()),
        key,
    })
}

/// The value of an attribute, if it is there and of that type.
fn attribute<T: ConcreteCFType>(attributes: &CFDictionary, name: &CFString) -> Option<T> {
    let value = attributes.find(name.to_void())?;
    // SAFETY: what is in a dictionary of the keychain are Core Foundation objects; this retains one, and
    // the downcast looks at its type.
    unsafe { CFType::wrap_under_get_rule(*value) }.downcast::<T>()
}

fn time(date: &CFDate) -> Option<SystemTime> {
    /// Seconds from 1970 to 2001, from which these dates count.
    const EPOCH: f64 = 978_307_200.0;
    let since = Duration::try_from_secs_f64(EPOCH + date.abs_time()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn not_found() -> Failure {
    SecurityError::from_code(super::failure::NOT_FOUND as i32).into()
}

/// The failure in an error that a call gave us.
///
/// # Safety
/// `error` is null or an error that is the caller's to release.
pub(super) unsafe fn taken(error: CFErrorRef) -> Failure {
    if error.is_null() {
        return Failure { domain: Domain::Other, code: 0, text: "the system did not say why".into() };
    }
    // SAFETY: it is the caller's, who hands it over.
    unsafe { CFError::wrap_under_create_rule(error) }.into()
}

impl From<CFError> for Failure {
    fn from(error: CFError) -> Self {
        Self {
            domain: Domain::named(&error.domain().to_string()),
            code: error.code() as i64,
            text: error.description().to_string(),
        }
    }
}

impl From<SecurityError> for Failure {
    fn from(error: SecurityError) -> Self {
        let text = error.message().unwrap_or_default();
        Self { domain: Domain::Security, code: error.code().into(), text }
    }
}
