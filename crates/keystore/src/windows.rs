//! Keys that Windows keeps (CNG): in the TPM, in software, on smart cards.
//!
//! | URI | the key |
//! |---|---|
//! | `windows:name=web` | in the TPM (the Platform Crypto Provider), which it cannot leave |
//! | `windows:name=web;provider=software` | in files that the system encrypts for the user |
//! | `windows:name=web;provider=smartcard` | on a smart card |
//!
//! A name is that of a key container of the user's, whoever made it: what other programs and the
//! administrator made is found, too, and so are the keys of the certificates in the user's store.
//!
//! The keys are in another process of the system's, or in another chip, and what they demand is enforced
//! there. So this keystore needs no agent: it belongs in the process that uses the keys. `docs/windows.md`
//! is the guide.

mod blob;
mod failure;
mod place;

#[cfg(windows)]
mod cng;
#[cfg(windows)]
mod key;
#[cfg(windows)]
mod keystore;
#[cfg(windows)]
mod store;
#[cfg(all(windows, not(feature = "aws-lc")))]
pub(crate) mod verification;

pub(crate) use failure::hint;
#[cfg(windows)]
pub use keystore::{WindowsConfig, WindowsKeystore};
