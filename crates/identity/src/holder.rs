//! Which process holds a key.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use enclasp_keystore::{KeyUri, KeystoreKind};

use crate::{Error, Result};

/// Whose keys an agent holds. Each has an agent of its own, so that what a PKCS#11 module or a TPM's
/// driver does to the process that it runs in, it does to no other keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Software keys.
    Soft,
    /// The tokens of a PKCS#11 module, by the path of its shared library.
    Pkcs11(PathBuf),
    /// A TPM, by its TCTI.
    Tpm(String),
}

/// The environment variable that names the module of URIs without a `module-path`.
const MODULE: &str = "ENCLASP_PKCS11_MODULE";

/// The TCTI of `tpm:` URIs without one: the resource manager of the kernel.
const TCTI: &str = "device:/dev/tpmrm0";

/// The modules that are looked for in the folders of libraries, to name them in a hint.
const KNOWN: [&str; 5] = [
    "softhsm/libsofthsm2.so",
    "opensc-pkcs11.so",
    "libykcs11.so",
    "libtpm2_pkcs11.so",
    "pkcs11/yubihsm_pkcs11.so",
];

impl Holder {
    /// Who holds the key `uri`.
    ///
    /// # Errors
    /// [`Error::NoKeystore`] if this build has no such keystore; [`Error::Module`] if a PKCS#11 URI
    /// does not say its module, and neither does `ENCLASP_PKCS11_MODULE`.
    pub fn of(uri: &KeyUri) -> Result<Self> {
        match uri.kind() {
            KeystoreKind::Soft => Ok(Self::Soft),
            KeystoreKind::Pkcs11 => {
                let variable =
                    || std::env::var_os(MODULE).filter(|value| !value.is_empty()).map(PathBuf::from);
                let module = uri.query("module-path").map(PathBuf::from).or_else(variable);
                let failed = |reason: &str| Error::Module {
                    key: uri.to_string(),
                    reason: reason.into(),
                    found: modules_here(),
                };
                let module =
                    module.ok_or_else(|| failed("it does not say which PKCS#11 module is to be used"))?;
                // The agent runs in another folder.
                if module.is_absolute() {
                    Ok(Self::Pkcs11(module))
                } else {
                    Err(failed("its module-path is not a full path"))
                }
            }
            KeystoreKind::Tpm if cfg!(feature = "tpm") => {
                Ok(Self::Tpm(uri.attribute("tcti").unwrap_or(TCTI).to_owned()))
            }
            // Nothing falls back to software silently (invariant 5).
            other => Err(Error::NoKeystore { key: uri.to_string(), keystore: other.to_string() }),
        }
    }

    /// What the files of its agent are called, for those of hardware: `pkcs11-` or `tpm-` and the
    /// beginning of a SHA-256 of which it is.
    pub(crate) fn label(&self) -> Option<String> {
        let (kind, name) = match self {
            Self::Soft => return None,
            Self::Pkcs11(module) => {
                let real = module.canonicalize().unwrap_or_else(|_| module.clone());
                ("pkcs11", real.into_os_string().into_encoded_bytes())
            }
            Self::Tpm(tcti) => ("tpm", tcti.clone().into_bytes()),
        };
        Some(format!("{kind}-{}", enclasp_pki::hex(&enclasp_pki::sha256(&name)[..4])))
    }

    /// The same for any agent, in logs and messages.
    pub(crate) fn name(&self) -> String {
        self.label().unwrap_or_else(|| "agent".to_owned())
    }

    /// The arguments of `enclasp agent` that say so.
    pub(crate) fn arguments(&self) -> Vec<&OsStr> {
        match self {
            Self::Soft => Vec::new(),
            Self::Pkcs11(module) => vec![OsStr::new("--module"), module.as_os_str()],
            Self::Tpm(tcti) => vec![OsStr::new("--tpm"), OsStr::new(tcti)],
        }
    }
}

fn modules_here() -> Vec<String> {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = ["/usr/lib", "/usr/lib64", &multiarch, "/usr/local/lib"];
    let paths = folders.iter().flat_map(|folder| KNOWN.map(|module| Path::new(folder).join(module)));
    paths.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_tpms_are_told_apart() {
        let of = |uri: &str| Holder::of(&uri.parse().unwrap());
        assert_eq!(of("soft:name=web").unwrap().label(), None);
        assert!(matches!(of("apple:label=web"), Err(Error::NoKeystore { .. })));
        assert!(matches!(of("pkcs11:object=web?module-path=m.so"), Err(Error::Module { .. })));
        let one = of("pkcs11:object=web?module-path=/one.so").unwrap();
        let other = of("pkcs11:object=web?module-path=/other.so").unwrap();
        assert_eq!(one, of("pkcs11:token=t;object=x?module-path=/one.so").unwrap());
        assert_ne!(one.label(), other.label());
        assert!(one.label().is_some_and(|label| label.starts_with("pkcs11-") && label.len() == 15));
    }
}
