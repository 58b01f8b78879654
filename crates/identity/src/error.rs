//! What can go wrong with an identity.

/// The result of an operation on identities.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no identity, or none like that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("there is no identity `{name}`")]
    Absent { name: String, known: Vec<String> },
    #[error("there is an identity `{name}` already")]
    Exists { name: String },
    #[error("`{name}` cannot be the name of an identity: {reason}")]
    Name { name: String, reason: String },
    #[error("cannot read the identity in {path}: {reason}")]
    Damaged { path: String, reason: String },
    /// No key has the certificate's public key.
    #[error("no key has the public key of {certificate}{}", nearest.as_ref().map(|nearest| format!("; {nearest} came nearest")).unwrap_or_default())]
    NoKey { certificate: String, nearest: Option<String> },
    #[error("there is no certificate in {source_name}")]
    NoCertificate { source_name: String },
    #[error("cannot read the PKCS#12 file: {reason}")]
    Pkcs12 { reason: String },
    /// The keystore that the URI names is not in this build, or not on this platform.
    #[error("cannot open `{key}`: this build has no `{keystore}` keystore")]
    NoKeystore { key: String, keystore: String },
    #[error("cannot open `{key}`: {reason}")]
    Module { key: String, reason: String, found: Vec<String> },
    #[error("cannot find the folder for Enclasp's state: {reason}")]
    State { reason: String },
    #[error("cannot run the process that starts agents: {reason}")]
    Supervisor { reason: String },
    #[error(transparent)]
    Keystore(#[from] enclasp_keystore::Error),
    #[error(transparent)]
    Pki(#[from] enclasp_pki::Error),
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Absent { known, .. } if known.is_empty() => {
                Some("there are none yet: `enclasp enroll` or `enclasp identity import` makes one".into())
            }
            Self::Absent { known, .. } => Some(format!("there are: {}", known.join(", "))),
            Self::Exists { name } => {
                Some(format!("say --replace, choose another name, or `enclasp identity delete {name}` first"))
            }
            Self::Name { .. } => Some(
                "a name is made of letters, digits, `.`, `_` and `-`, and does not begin with a dot".into(),
            ),
            Self::Damaged { path, .. } => {
                Some(format!("put a good copy back, or delete {path} and import or enroll again"))
            }
            Self::NoKey { .. } => Some(
                "`enclasp key list` shows the keys here; the certificate may be for a key on another machine"
                    .into(),
            ),
            Self::NoCertificate { .. } => Some("PEM (-----BEGIN CERTIFICATE-----) and DER are read".into()),
            Self::Pkcs12 { .. } => {
                Some("the passphrase may be wrong: --password-file FILE, or ENCLASP_P12_PASSWORD".into())
            }
            Self::NoKeystore { keystore, .. } if keystore == "tpm" => Some(
                "keystores in this build: soft, pkcs11; `cargo build --release --features tpm` adds tpm"
                    .into(),
            ),
            Self::NoKeystore { keystore, .. } if keystore == "signer" => {
                Some("its key is behind a program's own signer, and only that program can use it".into())
            }
            Self::NoKeystore { .. } => {
                let tpm = if cfg!(feature = "tpm") { ", tpm" } else { "" };
                Some(format!("keystores in this build: soft, pkcs11{tpm}"))
            }
            Self::Module { found, .. } => {
                let found =
                    if found.is_empty() { String::new() } else { format!("; here are {}", found.join(", ")) };
                Some(format!(
                    "say it in the URI, as in `…?module-path=/PATH/MODULE.so`, or with ENCLASP_PKCS11_MODULE{found}"
                ))
            }
            Self::State { .. } => Some("name one with --state DIR or ENCLASP_STATE".into()),
            Self::Supervisor { .. } => {
                Some("it is `enclasp` itself, as it is in PATH or as ENCLASP_PROGRAM names it".into())
            }
            Self::Keystore(error) => error.hint(),
            Self::Pki(error) => error.hint(),
        }
    }
}
