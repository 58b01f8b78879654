//! Keys in the Secure Enclave of Apple's devices, and those that are in their keychain already.
//!
//! | URI | the key |
//! |---|---|
//! | `apple:label=web` | made by Enclasp: P-256, born in the Secure Enclave, which it cannot leave |
//! | `apple:label=web;presence=user` | the same; each signature asks for Touch ID, Face ID or the passcode |
//! | `apple:label=web;presence=biometry` | the same, for the fingers and faces that are enrolled now |
//! | `apple:label=web;presence=passcode` | the same, for the passcode of the device |
//! | `apple:label=Alice%20Smith` | of an identity that is there: in the keychain, on a smart card (CryptoTokenKit) |
//!
//! `presence` is said when a key is made, and may be left out afterwards. A key goes by its label in the
//! data protection keychain, which iOS has alone; an existing one by the label of its identity, which is
//! its certificate's name unless somebody changed it.
//!
//! The keys are in another processor, and what they demand is enforced there. So this keystore needs no
//! agent: it belongs in the process that uses the keys. On a Mac that process has to be signed with the
//! entitlement `keychain-access-groups`. `docs/apple.md` is the guide.

mod demand;
mod failure;

#[cfg(target_vendor = "apple")]
mod authentication;
#[cfg(target_vendor = "apple")]
mod key;
#[cfg(target_vendor = "apple")]
mod keychain;
#[cfg(target_vendor = "apple")]
mod keystore;
#[cfg(target_vendor = "apple")]
mod schemes;
#[cfg(all(target_vendor = "apple", not(feature = "aws-lc")))]
pub(crate) mod verification;

pub(crate) use failure::hint;
#[cfg(target_vendor = "apple")]
pub use keystore::{AppleConfig, AppleKeystore};
