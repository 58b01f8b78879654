//! Which keystore an agent serves, and what that needs of the system.

use std::path::{Path, PathBuf};

use enclasp_keystore::pkcs11::Pkcs11Keystore;
use enclasp_keystore::soft::{Protection, SoftKeystore};
use enclasp_keystore::{Describe, Device, Error as KeyError, Import, KeyUri, Keystore, StoreCertificate};

use crate::needs::{Needs, Reach};
use crate::pins::Pins;
use crate::{Error, needs};

/// The keystore that an agent serves. One agent has one: what a PKCS#11 module does to the process
/// that it is loaded into, it does to no other keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Backend {
    /// Software keys, in files in the agent's folder.
    Soft {
        /// What encrypts them.
        protection: Protection,
    },
    /// The tokens of a PKCS#11 module. The agent's folder holds what their keys were proved to do.
    Pkcs11 {
        /// The shared library.
        module: PathBuf,
    },
    /// The keys of a TPM 2.0, as files in the agent's folder or at handles.
    Tpm {
        /// How the TPM is reached: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`.
        tcti: String,
    },
}

impl Backend {
    /// What the sandbox has to admit. Where code that is not ours runs in this process, the sandbox
    /// is closed before any of it is loaded; our own opens its keys first, and needs less afterwards.
    pub(crate) fn needs(&self, reach: &Reach) -> Needs {
        match self {
            Self::Soft { .. } => Needs::default(),
            Self::Pkcs11 { module } => needs::of_module(module, reach),
            Self::Tpm { tcti } => needs::of_tpm(tcti, reach),
        }
    }

    /// How many signatures with one key are worth beginning at once: a software key that asks has
    /// people at several terminals, a token has several sessions, a TPM does one thing at a time
    /// and shall find the next one waiting.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Soft { .. } => 16,
            Self::Pkcs11 { .. } => 8,
            Self::Tpm { .. } => 2,
        }
    }

    pub(crate) fn open(self, folder: &Path, pins: &Pins) -> Result<Opened, Error> {
        Ok(match self {
            Self::Soft { protection } => {
                let keystore = SoftKeystore::open(folder, &protection, pins.prompter().clone())?;
                Opened::Soft(Box::new(keystore))
            }
            Self::Pkcs11 { module } => {
                Opened::Pkcs11(Pkcs11Keystore::open(&module, &folder.join("proofs"), pins.clone())?)
            }
            #[cfg(feature = "tpm")]
            Self::Tpm { tcti } => {
                let config = enclasp_keystore::tpm::TpmConfig { tcti, folder: folder.to_owned() };
                Opened::Tpm(enclasp_keystore::tpm::TpmKeystore::open(config, pins.clone())?)
            }
            #[cfg(not(feature = "tpm"))]
            Self::Tpm { .. } => return Err(Error::NoKeystore { keystore: "tpm" }),
        })
    }
}

/// A keystore that is open.
pub(crate) enum Opened {
    Soft(Box<SoftKeystore>),
    Pkcs11(Pkcs11Keystore),
    #[cfg(feature = "tpm")]
    Tpm(enclasp_keystore::tpm::TpmKeystore),
}

impl Opened {
    /// Whether everything but a person's answer takes microseconds.
    pub(crate) fn is_fast(&self) -> bool {
        matches!(self, Self::Soft(_))
    }

    pub(crate) fn keystore(&self) -> &dyn Keystore {
        match self {
            Self::Soft(keystore) => &**keystore,
            Self::Pkcs11(keystore) => keystore,
            #[cfg(feature = "tpm")]
            Self::Tpm(keystore) => keystore,
        }
    }

    /// # Errors
    /// [`KeyError::Unsupported`] unless it takes in keys that were made elsewhere.
    pub(crate) fn import(&self, uri: &KeyUri) -> Result<&dyn Import, KeyError> {
        match self {
            Self::Soft(keystore) => Ok(&**keystore),
            _ => Err(unsupported(uri, "import", "its keys are made in it and nowhere else")),
        }
    }

    /// # Errors
    /// Those of [`Describe::device`].
    pub(crate) fn device(&self, uri: &KeyUri) -> Result<Device, KeyError> {
        match self {
            Self::Soft(_) => Ok(Device {
                name: format!("the software enclave {}", env!("CARGO_PKG_VERSION")),
                tries_left: None,
                tries: "software keys have no PIN".into(),
                attestation: "none: whoever reads this agent's folder and passphrase has its keys".into(),
            }),
            Self::Pkcs11(keystore) => keystore.device(uri),
            #[cfg(feature = "tpm")]
            Self::Tpm(keystore) => keystore.device(uri),
        }
    }

    /// # Errors
    /// [`KeyError::Unsupported`] unless it keeps certificates beside its keys.
    pub(crate) fn certificates(&self, uri: &KeyUri) -> Result<&dyn StoreCertificate, KeyError> {
        match self {
            Self::Pkcs11(keystore) => Ok(keystore),
            _ => {
                Err(unsupported(uri, "find a certificate beside", "only PKCS#11 tokens have a place for one"))
            }
        }
    }
}

fn unsupported(uri: &KeyUri, operation: &str, reason: &str) -> KeyError {
    KeyError::Unsupported { key: uri.to_string(), operation: operation.into(), reason: reason.into() }
}
