//! What can go wrong with a key, told apart by what the caller can do about it.

use serde::{Deserialize, Serialize};

use crate::Scheme;

/// The result of a keystore operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a keystore refused or failed. It crosses the agent's socket as it is, so it holds text
/// rather than sources. `key` is a key URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("there is no key `{key}`")]
    Absent { key: String },
    #[error("there is a key `{key}` already")]
    Exists { key: String },
    /// A PIN is needed first, or the device locked itself.
    #[error("cannot {operation} `{key}`: locked: {reason}")]
    Locked { key: String, operation: String, reason: String },
    /// A person or a rule said no.
    #[error("cannot {operation} `{key}`: denied: {reason}")]
    Denied { key: String, operation: String, reason: String },
    /// Too much is going on at once; trying again later may work.
    #[error("cannot {operation} `{key}`: busy: {reason}")]
    Busy { key: String, operation: String, reason: String },
    /// The key or the keystore can never do this.
    #[error("cannot {operation} `{key}`: not supported: {reason}")]
    Unsupported { key: String, operation: String, reason: String },
    #[error("cannot {operation} `{key}`: no answer before the deadline")]
    Deadline { key: String, operation: String },
    #[error("cannot {operation} `{key}`: cancelled")]
    Cancelled { key: String, operation: String },
    /// Invariant 3: such a signature never leaves the keystore.
    #[error("`{key}` returned a signature for {scheme} that does not verify with its own public key")]
    WrongSignature { key: String, scheme: Scheme },
    #[error("not a usable public key: {reason}")]
    PublicKey { reason: String },
    #[error("not a usable private key: {reason}")]
    PrivateKey { reason: String },
    #[error("`{uri}` is not a key URI: {reason}")]
    Uri { uri: String, reason: String },
    /// Software keys are opened only with what encrypts them.
    #[error("cannot open the keys in {folder}: {fault}")]
    Protection { folder: String, fault: ProtectionFault },
    #[error("cannot reach the keystore at {at}: {reason}")]
    Unavailable { at: String, reason: String },
    #[error("cannot {operation} {path}: {reason}")]
    Storage { operation: String, path: String, reason: String },
    /// A folder for private files that was there before, and is not private.
    #[error("the folder {path} is open to others (mode {mode:o}), and not empty")]
    OpenFolder { path: String, mode: u32 },
    /// The other end of the agent's socket does not follow the protocol.
    #[error("the agent's protocol was not followed: {reason}")]
    Protocol { reason: String },
    /// A URI must name one token and one key.
    #[error("`{key}` could be any of: {}", matches.join(", "))]
    Ambiguous { key: String, matches: Vec<String> },
    /// The PIN or auth value that was given is not the right one. It is not tried again.
    #[error("cannot {operation} `{key}`: {reason}")]
    WrongPin { key: String, operation: String, reason: String },
    /// The code that a program brought along to sign with.
    #[error("the signer of `{key}` failed: {reason}")]
    Signer { key: String, reason: String },
}

/// How what was given for software keys differs from what encrypts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ProtectionFault {
    #[error("a passphrase protects them")]
    NeedsPassphrase,
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    #[error("a key file protects them, not a passphrase")]
    NeedsKeyFile,
    #[error("at-rest.key, which they are encrypted with, is missing")]
    MissingKeyFile,
    #[error("at-rest.key is not the file that encrypted them")]
    WrongKeyFile,
}

impl ProtectionFault {
    fn hint(self) -> &'static str {
        match self {
            Self::NeedsPassphrase => "restart the agent with it: `enclasp agent --passphrase-file FILE`",
            Self::WrongPassphrase => "give the one that the first agent in this folder was started with",
            Self::NeedsKeyFile => {
                "start the agent without --passphrase, --passphrase-file and ENCLASP_PASSPHRASE"
            }
            Self::MissingKeyFile | Self::WrongKeyFile => "restore at-rest.key, from a backup of that folder",
        }
    }
}

/// A URI as a shell takes it for one word.
fn quoted(uri: &str) -> String {
    if uri.contains([';', '&', '?']) { format!("'{uri}'") } else { uri.to_owned() }
}

/// What fits `sockaddr_un`, with the zero that ends it.
const MAX_SOCKET_PATH: usize = 107;

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => "`enclasp key list` shows the keys that there are".into(),
            Self::Exists { key } => {
                format!("choose another name, or `enclasp key delete {}` first", quoted(key))
            }
            Self::Locked { key, .. } if key.starts_with("tpm:") => {
                "wait, or let the TPM's administrator end it: `tpm2_dictionarylockout --clear-lockout`".into()
            }
            Self::Locked { key, .. } if key.starts_with("pkcs11:") => {
                "the token's own tool sets or unblocks its PIN, with the SO PIN or PUK".into()
            }
            #[cfg(any(target_vendor = "apple", test))]
            Self::Denied { key, reason, .. } | Self::Locked { key, reason, .. }
                if key.starts_with("apple:") =>
            {
                crate::apple::hint(reason)?.into()
            }
            #[cfg(any(windows, test))]
            Self::Denied { key, reason, .. } | Self::Locked { key, reason, .. }
                if key.starts_with("windows:") =>
            {
                crate::windows::hint(reason)?.into()
            }
            Self::Locked { .. } => return None,
            Self::Protection { fault, .. } => fault.hint().into(),
            Self::Denied { key, reason, .. } if reason.contains("PIN") && !key.starts_with("soft:") => {
                "the PIN is asked for by pinentry, or comes from ENCLASP_PIN_FILE or ENCLASP_PIN, or from \
                 `pin-source=file:PATH` in the URI of a PKCS#11 key"
                    .into()
            }
            Self::Denied { .. } => return None,
            Self::Busy { .. } => "try again in a moment".into(),
            // There is no key yet, or it is not that one's fault.
            Self::Unsupported { operation, .. } if operation == "create" => return None,
            Self::Unsupported { key, .. } => {
                format!("`enclasp key show {}` lists what the key can do", quoted(key))
            }
            Self::Deadline { .. } => "answer the prompt sooner, or allow more time".into(),
            Self::Cancelled { .. } => return None,
            Self::WrongSignature { key, .. } => format!(
                "the keystore is broken or was given the wrong key; `enclasp key probe {}` tries every scheme",
                quoted(key)
            ),
            Self::PublicKey { .. } => "P-256, P-384, Ed25519 and RSA keys are supported".into(),
            Self::PrivateKey { .. } => "the key must be PKCS#8, of type P-256, P-384, Ed25519 or RSA".into(),
            Self::Uri { .. } => {
                "a key URI looks like soft:name=web, tpm:name=web, pkcs11:token=TOKEN;object=web, \
                 apple:label=web or windows:name=web"
                    .into()
            }
            Self::Unavailable { at, .. } if at.starts_with("tpm:tcti=tabrmd") => {
                "`systemctl status tpm2-abrmd` shows whether the resource manager runs".into()
            }
            Self::Unavailable { at, .. } if at.starts_with("tpm:tcti=swtpm") => {
                "start the simulator, or say where it listens: tcti=swtpm:host=127.0.0.1,port=2321".into()
            }
            Self::Unavailable { at, .. } if at.starts_with("tpm:tcti=device:") => format!(
                "`ls -l {}` shows whether there is a TPM 2.0 and who may use it; on most systems its users are \
                 in the group `tss`",
                at.trim_start_matches("tpm:tcti=device:")
            ),
            Self::Unavailable { at, .. } if at.starts_with("tpm:") => {
                "a URI without `tcti=` means the machine's own TPM; a resource manager's is tcti=tabrmd"
                    .into()
            }
            Self::Unavailable { at, .. } if at.starts_with("apple:") => return None,
            Self::Unavailable { at, .. } if at.starts_with("windows:") => {
                "`certutil -csplist` shows the providers there are; platform needs a TPM, smartcard a card"
                    .into()
            }
            Self::Unavailable { at, .. } if at.starts_with("pkcs11:") => {
                "check that the token is plugged in, and that `module-path` names its PKCS#11 module".into()
            }
            Self::Unavailable { at, .. } if at.len() > MAX_SOCKET_PATH => format!(
                "the path of a socket has at most {MAX_SOCKET_PATH} bytes: name a shorter one with \
                 ENCLASP_AGENT_SOCKET, and `enclasp agent --socket`"
            ),
            Self::Unavailable { .. } => {
                "`enclasp agent` starts the agent; its log says why it stopped".into()
            }
            Self::Storage { .. } => "check the space, the owner and the permissions there".into(),
            Self::OpenFolder { path, .. } => {
                format!("name a new folder; or, if nobody else needs this one, `chmod 700 {path}`")
            }
            Self::Protocol { .. } => {
                "the agent and this program differ in version: stop the agent and try again".into()
            }
            Self::Signer { .. } => "it is code of the program's own, whose log may say more".into(),
            Self::WrongPin { .. } => "give the right one; each wrong one counts".into(),
            Self::Ambiguous { key, .. } if key.starts_with("apple:") => {
                "give the others another name in Keychain Access: only one may have this label".into()
            }
            Self::Ambiguous { .. } => "add attributes until only one fits: `serial`, `object` or `id`".into(),
        })
    }
}
