//! A signer that a program brings along, as a key like any other.
//!
//! What holds for it holds for hardware: its type is that of its public key; it is made to prove what it
//! can do before it is used, unless it asks a person; each of its signatures is verified before it goes
//! anywhere. It is called on a thread of its own, since it may never come back: then whoever waited gets
//! an error at the deadline, and nobody else waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use enclasp_keystore as keystore;
use keystore::{Error, Input, KeyInfo, SignContext, Signature};

/// A way to sign: key type, padding and hash together, as RFC 8446 §4.2.3 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
#[non_exhaustive]
pub enum Scheme {
    /// ECDSA on P-256 over a SHA-256 hash. The signature is DER (RFC 3279 §2.2.3).
    EcdsaSecp256r1Sha256,
    /// ECDSA on P-256 over a SHA-384 hash, in TLS 1.2 only.
    EcdsaSecp256r1Sha384,
    /// ECDSA on P-384 over a SHA-384 hash.
    EcdsaSecp384r1Sha384,
    /// ECDSA on P-384 over a SHA-256 hash, in TLS 1.2 only.
    EcdsaSecp384r1Sha256,
    /// Ed25519 (RFC 8032): 64 bytes.
    Ed25519,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256, and a salt of 32 bytes.
    RsaPssRsaeSha256,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384, and a salt of 48 bytes.
    RsaPssRsaeSha384,
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512, and a salt of 64 bytes.
    RsaPssRsaeSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256, in TLS 1.2 only.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384, in TLS 1.2 only.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512, in TLS 1.2 only.
    RsaPkcs1Sha512,
}

impl Scheme {
    /// None for a scheme that this interface has no name for yet.
    fn of(scheme: keystore::Scheme) -> Option<Self> {
        use keystore::Scheme as Theirs;
        Some(match scheme {
            Theirs::EcdsaP256Sha256 => Self::EcdsaSecp256r1Sha256,
            Theirs::EcdsaP256Sha384 => Self::EcdsaSecp256r1Sha384,
            Theirs::EcdsaP384Sha384 => Self::EcdsaSecp384r1Sha384,
            Theirs::EcdsaP384Sha256 => Self::EcdsaSecp384r1Sha256,
            Theirs::Ed25519 => Self::Ed25519,
            Theirs::RsaPssSha256 => Self::RsaPssRsaeSha256,
            Theirs::RsaPssSha384 => Self::RsaPssRsaeSha384,
            Theirs::RsaPssSha512 => Self::RsaPssRsaeSha512,
            Theirs::RsaPkcs1Sha256 => Self::RsaPkcs1Sha256,
            Theirs::RsaPkcs1Sha384 => Self::RsaPkcs1Sha384,
            Theirs::RsaPkcs1Sha512 => Self::RsaPkcs1Sha512,
            _ => return None,
        })
    }
}

/// One signature that is wanted.
#[derive(uniffi::Object)]
pub struct SigningRequest {
    message: Vec<u8>,
    scheme: Scheme,
    key: keystore::KeyUri,
    ctx: SignContext,
}

#[uniffi::export]
impl SigningRequest {
    /// What is to be signed, not hashed: the signer hashes it as the scheme says.
    pub fn message(&self) -> Vec<u8> {
        self.message.clone()
    }

    /// How it is to be signed. A signature of another scheme is refused.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// For a person to read: `TLS client authentication to db.internal:5432`.
    pub fn reason(&self) -> String {
        self.ctx.reason.clone()
    }

    /// The key's name: `signer:name=web`.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    /// How long an answer is worth something. After it, whoever waits has gone.
    pub fn time_left(&self) -> Duration {
        self.ctx
            .deadline
            .map_or(WITHOUT_DEADLINE, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether somebody still waits: the deadline has not passed, and nobody gave up. What asks a
    /// person looks at this from time to time, and closes its question when the answer is no.
    pub fn is_wanted(&self) -> bool {
        self.ctx.check(&self.key).is_ok()
    }
}

/// Signs with a key of the program's own: in the Android keystore, the Secure Enclave, an HSM.
#[uniffi::export(with_foreign)]
pub trait Signer: Send + Sync {
    /// Makes one signature: ECDSA in DER (RFC 3279 §2.2.3), RSA with the length of the modulus,
    /// Ed25519 in 64 bytes. It is called on a thread of the library's, for several requests at once if
    /// several are made, and may take until the request's time is over.
    ///
    /// # Errors
    /// [`SignerError`]; any other exception counts as [`SignerError::Failed`].
    fn sign(&self, request: Arc<SigningRequest>) -> Result<Vec<u8>, SignerError>;
}

/// Why a signer did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum SignerError {
    /// The person, or a rule, said no.
    #[error("denied: {reason}")]
    Denied {
        /// Why, for a log and for a person.
        reason: String,
    },
    /// The key is locked: the device, or a PIN that was wrong too often.
    #[error("locked: {reason}")]
    Locked {
        /// As above.
        reason: String,
    },
    /// The key cannot sign by this scheme, and never will.
    #[error("not supported: {reason}")]
    Unsupported {
        /// As above.
        reason: String,
    },
    /// Anything else.
    #[error("failed: {reason}")]
    Failed {
        /// As above.
        reason: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for SignerError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { reason: error.reason }
    }
}

/// How long a signer has if its caller has no deadline: enough for a person.
const WITHOUT_DEADLINE: Duration = Duration::from_secs(60);

/// How many calls of one signer may be under way, those that will never come back included.
const MAX_CALLS: usize = 16;

/// How often to look whether whoever waits has gone.
const LOOK: Duration = Duration::from_millis(50);

/// The longest text of a signer that is repeated, in characters.
const MAX_REASON: usize = 300;

/// The key behind a [`Signer`].
pub(crate) struct SignerKey {
    info: KeyInfo,
    signer: Arc<dyn Signer>,
    calls: Arc<AtomicUsize>,
}

impl SignerKey {
    /// The key that `info` describes. A key that asks nobody proves now what it can do, unless that is
    /// among the `proofs`.
    ///
    /// # Errors
    /// What the signer, or the verification of its signature, said, if it can do nothing.
    pub(crate) fn open(
        info: KeyInfo,
        signer: Arc<dyn Signer>,
        proofs: &keystore::ProofStore,
    ) -> keystore::Result<Self> {
        let mut key = Self { info, signer, calls: Arc::default() };
        if key.info.policy.prompts() {
            return Ok(key);
        }
        key.info.capabilities.proved = proofs.proved(&key.info.spki)?;
        // Without that one a key is of little use. Its signer may be a better one now.
        if !key.info.capabilities.proved.contains(&key.info.algorithm.natural_scheme()) {
            key.info.capabilities = keystore::capabilities(&key)?;
            let proved: Vec<_> = key.info.capabilities.proved.iter().copied().collect();
            proofs.record(&key.info.spki, &proved)?;
        }
        Ok(key)
    }

    fn call(&self, request: SigningRequest) -> keystore::Result<Signature> {
        let key = || self.info.uri.to_string();
        let failed = |reason: String| Error::Signer { key: key(), reason };
        let busy = || Error::Busy {
            key: key(),
            operation: OPERATION.into(),
            reason: format!("{MAX_CALLS} calls of its signer have not come back"),
        };
        let place = Place::of(&self.calls).ok_or_else(busy)?;
        let (answer, answered) = sync_channel(1);
        let ctx = request.ctx.clone();
        let signer = self.signer.clone();
        let call = move || {
            let signed = catch_unwind(AssertUnwindSafe(|| signer.sign(Arc::new(request))));
            drop(place);
            // Whoever waited may have gone.
            let _ = answer.send(signed);
        };
        thread::Builder::new()
            .name("enclasp signer".into())
            .spawn(call)
            .map_err(|e| failed(format!("there is no thread for it: {e}")))?;
        loop {
            match answered.recv_timeout(LOOK) {
                Ok(Ok(Ok(signature))) => return Ok(Signature::new(signature)),
                Ok(Ok(Err(error))) => return Err(self.refusal(error)),
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(failed("it ended without an answer".into()));
                }
                Err(RecvTimeoutError::Timeout) => ctx.check(&self.info.uri)?,
            }
        }
    }

    fn refusal(&self, error: SignerError) -> Error {
        let (key, operation) = (self.info.uri.to_string(), OPERATION.to_owned());
        match error {
            SignerError::Denied { reason } => Error::Denied { key, operation, reason: bounded(reason) },
            SignerError::Locked { reason } => Error::Locked { key, operation, reason: bounded(reason) },
            SignerError::Unsupported { reason } => {
                Error::Unsupported { key, operation, reason: bounded(reason) }
            }
            SignerError::Failed { reason } => Error::Signer { key, reason: bounded(reason) },
        }
    }
}

/// What errors say that a signer was asked to do.
const OPERATION: &str = "sign with";

impl keystore::Key for SignerKey {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(
        &self,
        scheme: keystore::Scheme,
        input: Input<'_>,
        ctx: &SignContext,
    ) -> keystore::Result<Signature> {
        ctx.check(&self.info.uri)?;
        let unsupported = |reason: String| Error::Unsupported {
            key: self.info.uri.to_string(),
            operation: OPERATION.into(),
            reason,
        };
        if scheme.algorithm() != self.info.algorithm {
            return Err(unsupported(format!("{scheme} does not fit a {} key", self.info.algorithm)));
        }
        let Some(named) = Scheme::of(scheme) else {
            return Err(unsupported(format!("signers are not asked for {scheme}")));
        };
        let Input::Message(message) = input else {
            return Err(unsupported("signers are given messages, not digests".into()));
        };
        let deadline = ctx.deadline.unwrap_or_else(|| Instant::now() + WITHOUT_DEADLINE);
        self.call(SigningRequest {
            message: message.to_vec(),
            scheme: named,
            key: self.info.uri.clone(),
            ctx: ctx.clone().with_deadline(deadline),
        })
    }
}

/// One of the calls that may be under way. It is given back when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn of(calls: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |calls: usize| (calls < MAX_CALLS).then_some(calls + 1);
        calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(calls.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Text of a signer, fit for a line of a log. It may be a whole stack trace.
fn bounded(text: String) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
