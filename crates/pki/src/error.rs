//! What can go wrong with names, requests and certificates, told apart by who is at fault.

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was not parsed, not trusted or not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    /// Text that a person wrote, or a name inside a request, breaks the rules of its kind.
    #[error("`{text}` is not a {what}: {reason}")]
    Name { what: &'static str, text: String, reason: String, hint: Option<String> },
    /// Bytes from outside that are not what they should be.
    #[error("not a {what}: {reason}")]
    Malformed { what: &'static str, reason: String },
    /// The bytes are in order, but were not signed by the key that they name.
    #[error("the signature of the {what} is wrong: {reason}")]
    Signature { what: &'static str, reason: String },
    /// A key or a signature that gives no security any more.
    #[error("the {what} is too weak: {reason}")]
    Weak { what: &'static str, reason: String },
    /// A key or a signature that is well-formed, and beyond what this program does.
    #[error("the {what} is not supported: {reason}")]
    Unsupported { what: &'static str, reason: String },
    /// An issuer will not sign this.
    #[error("cannot issue a certificate to {subject}: {reason}")]
    NotIssued { subject: String, reason: String },
    /// A certificate and a key that do not make an issuer together.
    #[error("cannot issue with {issuer}: {reason}")]
    NotAnIssuer { issuer: String, reason: String },
    /// Something of ours could not be encoded: a value beyond what DER or X.509 can hold.
    #[error("cannot encode the {what}: {reason}")]
    Encoding { what: &'static str, reason: String },
    /// The key refused or failed.
    #[error(transparent)]
    Key(#[from] enclasp_keystore::Error),
}

impl Error {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Name { hint, .. } => hint.clone(),
            Self::Signature { .. } => Some("sign it again with the key whose public key it holds".into()),
            Self::Weak { .. } | Self::Unsupported { .. } => Some(
                "P-256, P-384 and Ed25519 keys, RSA keys of 2048 to 8192 bits, and SHA-2 are supported"
                    .into(),
            ),
            Self::Malformed { .. }
            | Self::NotIssued { .. }
            | Self::NotAnIssuer { .. }
            | Self::Encoding { .. } => None,
            Self::Key(error) => error.hint(),
        }
    }
}
