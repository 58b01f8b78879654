//! The seam: what a keystore and a key are.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Access, Algorithm, Cancel, Error, KeyUri, Policy, Result, Scheme};

/// A place that makes and holds private keys.
pub trait Keystore: Send + Sync {
    /// Makes a key pair. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Unsupported`], [`Error::Storage`].
    fn create(&self, spec: &KeySpec) -> Result<Box<dyn Key>>;

    /// Opens a key that exists.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is none of that name.
    fn open(&self, uri: &KeyUri) -> Result<Box<dyn Key>>;

    /// Opens a key, or makes it: an attempt that ended before it was recorded may have left it.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for [`Error::Absent`].
    fn open_or_create(&self, spec: &KeySpec) -> Result<Box<dyn Key>> {
        match self.open(&spec.uri) {
            Err(Error::Absent { .. }) => self.create(spec),
            outcome => outcome,
        }
    }

    /// What keys there are, sorted by URI.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Storage`].
    fn list(&self) -> Result<Vec<KeyInfo>>;

    /// Destroys a key for good.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is none of that name.
    fn delete(&self, uri: &KeyUri) -> Result<()>;
}

/// A private key that can be used and not read.
pub trait Key: Send + Sync {
    /// What is known of the key.
    fn info(&self) -> &KeyInfo;

    /// Signs. Blocks as long as the hardware or a person takes, at most until the deadline.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the key is not of the scheme's type, [`Error::Denied`] if a person
    /// or a rule refused, [`Error::Deadline`], [`Error::Cancelled`], [`Error::WrongSignature`].
    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature>;

    /// Whether [`sign`](Self::sign) has verified what it returns. Whoever sends a signature to a
    /// peer verifies it first if this says [`Verification::Needed`].
    fn verification(&self) -> Verification {
        Verification::Needed
    }

    /// Whether [`sign`](Self::sign) returns in microseconds whatever happens: the key is in this
    /// process and asks nobody. Any other may keep its caller waiting, if only because another
    /// process hangs.
    fn is_immediate(&self) -> bool {
        false
    }
}

impl<K: Key + ?Sized> Key for std::sync::Arc<K> {
    fn info(&self) -> &KeyInfo {
        (**self).info()
    }

    fn sign(&self, scheme: Scheme, input: Input<'_>, ctx: &SignContext) -> Result<Signature> {
        (**self).sign(scheme, input, ctx)
    }

    fn verification(&self) -> Verification {
        (**self).verification()
    }

    fn is_immediate(&self) -> bool {
        (**self).is_immediate()
    }
}

/// Whether signatures were verified by the side that made them (invariant 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// The receiver has to verify each one.
    Needed,
    /// The owner of the key verifies, as often as its kind asks for.
    Done,
}

/// Gives the PIN of a token or the auth value of a key: from a file, the environment, or a person.
pub trait GivePin: Send + Sync {
    /// The PIN. A wrong one is never tried twice by a keystore: it says how many tries remain, and
    /// asks anew only when it is used anew.
    ///
    /// # Errors
    /// [`Error::Denied`] if the person refused or nobody can be asked, [`Error::Deadline`],
    /// [`Error::Cancelled`].
    fn pin(&self, wanted: &PinWanted<'_>, ctx: &SignContext) -> Result<Zeroizing<String>>;
}

/// Which PIN is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PinWanted<'a> {
    /// The key that it is wanted for.
    pub key: &'a KeyUri,
    /// What it opens, for a person: ``token `HSM 1` ``.
    pub what: &'a str,
    /// How many tries remain before it is locked, where that is known.
    pub tries_left: Option<u32>,
    /// Whether it is chosen now: a person then enters it twice.
    pub new: bool,
}

/// A keystore that can hold a certificate beside its key.
pub trait StoreCertificate {
    /// Writes the DER certificate beside the key, in place of one that is there.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Denied`], [`Error::Unsupported`].
    fn store_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<()>;

    /// The DER certificate that is beside the key, if there is one.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no such key.
    fn certificate(&self, uri: &KeyUri) -> Result<Option<Vec<u8>>>;
}

/// A keystore whose devices tell about themselves.
pub trait Describe {
    /// What the device that holds the key says of itself. No key is used and no PIN is tried for it.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Unavailable`] if there is no such device.
    fn device(&self, uri: &KeyUri) -> Result<Device>;
}

/// What a device that holds keys says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its maker, its model and the version of its firmware, for a person.
    pub name: String,
    /// How many more wrong PINs it takes before it locks, where it says so; 0 if it is locked.
    pub tries_left: Option<u32>,
    /// What it says of wrong PINs, in words.
    pub tries: String,
    /// What can vouch for the device and its keys, in words.
    pub attestation: String,
}

/// A keystore that takes in a private key made elsewhere.
pub trait Import {
    /// Stores `pkcs8` (DER PrivateKeyInfo, RFC 5958) as a key whose origin is
    /// [`Origin::Imported`].
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if it cannot be read, [`Error::Exists`] if the name is taken.
    fn import(&self, uri: &KeyUri, pkcs8: Zeroizing<Vec<u8>>) -> Result<Box<dyn Key>>;
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    /// The name it shall have.
    pub uri: KeyUri,
    /// The type of the key pair.
    pub algorithm: Algorithm,
    /// What it demands before it signs.
    pub policy: Policy,
    /// Who else may use it.
    pub access: Access,
}

impl KeySpec {
    /// A P-256 key that signs freely, for its owner alone.
    pub fn new(uri: KeyUri) -> Self {
        Self { uri, algorithm: Algorithm::P256, policy: Policy::default(), access: Access::default() }
    }
}

/// Where a private key was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// In its keystore; it has never been anywhere else.
    Generated,
    /// Outside; copies may exist.
    Imported,
}

/// What is known of a key. Its public key is always known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name.
    pub uri: KeyUri,
    /// DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    #[serde(with = "hexadecimal")]
    pub spki: Vec<u8>,
    /// Its type, derived from `spki`.
    pub algorithm: Algorithm,
    /// What it demands before it signs.
    pub policy: Policy,
    /// What it was proved to do.
    pub capabilities: Capabilities,
    /// Who else may use it.
    pub access: Access,
    /// Where it was born.
    pub origin: Origin,
    /// When it was made or imported.
    pub created: SystemTime,
}

impl KeyInfo {
    /// The schemes that may be used now, the natural one first: those that were proved and, for a
    /// key that asks a person, the natural one, which its first real signature proves
    /// (invariant 2). Schemes that do not fit the public key never appear.
    pub fn usable_schemes(&self) -> Vec<Scheme> {
        let Ok(algorithm) = Algorithm::of_spki(&self.spki) else {
            return Vec::new();
        };
        algorithm
            .schemes()
            .iter()
            .copied()
            .filter(|scheme| {
                self.capabilities.proved.contains(scheme)
                    || (self.policy.prompts() && *scheme == algorithm.natural_scheme())
            })
            .collect()
    }
}

/// The schemes for which a key produced a signature that verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Proved schemes, bound to the SPKI of the [`KeyInfo`] that they stand in.
    pub proved: BTreeSet<Scheme>,
}

/// What is to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// The message itself; the keystore hashes it where the scheme says so.
    Message(#[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
    /// The message's digest under the scheme's hash. Refused by Ed25519.
    Digest(#[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
}

/// For whom, how long, and why a signature is wanted.
#[derive(Clone, Debug, Default)]
pub struct SignContext {
    /// Shown to a person who is asked: "TLS client authentication to db.internal:5432".
    pub reason: String,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
    /// Set when nobody waits any more.
    pub cancel: Cancel,
    /// Who asks, for a prompt to say and to appear in the right place.
    pub requester: Requester,
}

/// The program that wants a signature, and where a person in front of it can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Its process id, as the kernel reports it to the agent. A caller's own word is ignored.
    pub pid: Option<u32>,
    /// Path of its terminal.
    pub tty: Option<String>,
    /// Its `TERM`.
    pub term: Option<String>,
    /// Its `DISPLAY`.
    pub display: Option<String>,
    /// Its `WAYLAND_DISPLAY`.
    pub wayland_display: Option<String>,
    /// Its `XAUTHORITY`.
    pub xauthority: Option<String>,
}

/// Asks a person whether a key may sign.
pub trait Confirm: Send + Sync {
    /// Returns when a person has agreed.
    ///
    /// # Errors
    /// [`Error::Denied`] if the person refused or nobody can be asked, [`Error::Deadline`],
    /// [`Error::Cancelled`].
    fn confirm(&self, key: &KeyInfo, ctx: &SignContext) -> Result<()>;
}

impl SignContext {
    /// A context with a reason and nothing else.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// The same with a deadline.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// # Errors
    /// [`Error::Cancelled`] or [`Error::Deadline`] if the signature is no longer wanted.
    pub fn check(&self, key: &KeyUri) -> Result<()> {
        let operation = || "sign with".to_owned();
        if self.cancel.is_cancelled() {
            Err(Error::Cancelled { key: key.to_string(), operation: operation() })
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Err(Error::Deadline { key: key.to_string(), operation: operation() })
        } else {
            Ok(())
        }
    }
}

/// A signature in the encoding of TLS: ECDSA as DER `Ecdsa-Sig-Value` (RFC 3279 §2.2.3), Ed25519
/// as 64 bytes, RSA as an integer of the modulus' length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// Wraps encoded bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The encoded bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Signature {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Encodes bytes in one piece, where serde would take them one by one.
pub(crate) fn as_bytes<S: serde::Serializer>(
    bytes: &impl AsRef<[u8]>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes.as_ref())
}

/// Bytes as lower-case hexadecimal where people read them, as bytes elsewhere.
pub(crate) mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serializer.serialize_str(&text)
        } else {
            bytes.serialize(serializer)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}
