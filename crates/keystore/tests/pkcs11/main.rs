//! The PKCS#11 keystore against real modules: SoftHSM, kryoptic, and a TPM through tpm2-pkcs11.
#![cfg(feature = "pkcs11")]

mod conformance;
mod finding;
mod modules;
mod pins;
mod recovery;
mod support;
