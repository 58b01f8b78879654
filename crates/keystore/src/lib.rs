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
#[cfg(unix)]
pub mod durable;
pub mod encoding;
mod error;
#[cfg(feature = "aws-lc")]
mod input;
mod key;
mod policy;
mod uri;

#[cfg(unix)]
pub mod agent;
#[cfg(feature = "aws-lc")]
pub mod conformance;
#[cfg(all(unix, feature = "pkcs11"))]
pub mod pkcs11;
#[cfg(all(unix, feature = "aws-lc"))]
mod proofs;
mod prove;
#[cfg(feature = "aws-lc")]
pub mod soft;
#[cfg(all(unix, feature = "tpm"))]
pub mod tpm;
mod verify;

pub use algorithm::{Algorithm, Hash, Scheme};
pub use cancel::Cancel;
pub use error::{Error, ProtectionFault, Result};
pub use key::{
    Capabilities, Confirm, GivePin, Import, Input, Key, KeyInfo, KeySpec, Keystore, Origin, PinWanted,
    Requester, SignContext, Signature, StoreCertificate, Verification,
};
pub use policy::{Access, Policy, Presence};
#[cfg(all(unix, feature = "aws-lc"))]
pub use proofs::ProofStore;
pub use prove::{Proof, prove};
pub use uri::{KeyUri, KeystoreKind};
pub use verify::verify;
