//! Private keys that can be used and not read.
//!
//! A [`Keystore`] makes and holds private keys; a [`Key`] signs with one. Nothing in this crate
//! returns a private key's bytes, and nothing in it knows TLS, certificates or an async runtime.
//!
//! A key says which signature [`Scheme`]s it can be used with in two ways: by its public key
//! ([`KeyInfo::spki`], from which [`Algorithm::of_spki`] derives what is possible), and by what it
//! was *proved* to do ([`Capabilities`]). Metadata from elsewhere is never believed.
#![deny(unsafe_code)]

mod algorithm;
mod cancel;
#[cfg(any(feature = "pkcs11", target_vendor = "apple", windows))]
mod certificate;
pub mod conformance;
pub mod durable;
pub mod encoding;
mod error;
#[cfg(any(unix, windows))]
mod hashing;
mod input;
mod key;
#[cfg(any(target_vendor = "apple", windows, test))]
mod patience;
mod policy;
mod proofs;
mod prove;
mod uri;
mod verify;

// The keystores. What those of other platforms know without calling them is compiled for the tests of all.
#[cfg(unix)]
pub mod agent;
#[cfg(any(target_vendor = "apple", test))]
pub mod apple;
#[cfg(all(unix, feature = "pkcs11"))]
pub mod pkcs11;
#[cfg(feature = "aws-lc")]
pub mod soft;
#[cfg(all(unix, feature = "tpm"))]
pub mod tpm;
#[cfg(any(windows, test))]
pub mod windows;

pub use algorithm::{Algorithm, Hash, Scheme};
pub use cancel::Cancel;
pub use error::{Error, ProtectionFault, Result};
pub use key::{
    Capabilities, Confirm, Describe, Device, GivePin, Import, Input, Key, KeyInfo, KeySpec, Keystore, Origin,
    PinWanted, Requester, SignContext, Signature, StoreCertificate, Verification,
};
pub use policy::{Access, Policy, Presence};
pub use proofs::ProofStore;
pub use prove::{Proof, capabilities, prove};
pub use uri::{KeyUri, KeystoreKind};
pub use verify::verify;
