//! The agent's protocol, and the keystore that reaches the keys in an agent through it.
//!
//! # Protocol
//!
//! The agent listens on a Unix stream socket. Both sides send frames:
//!
//! ```text
//! +------------------+------------------+------------------------------+
//! | length, u32 BE   | id, u32 BE       | body, `length - 4` bytes     |
//! +------------------+------------------+------------------------------+
//! ```
//!
//! `length` counts the id and the body and is at most [`MAX_FRAME`]. The body is a [`Request`]
//! (client to agent) or a [`Response`] (agent to client) in the postcard encoding; nothing may
//! follow it. A client may send many requests without waiting; each response carries the id of
//! its request, and they may come in any order, since a request that asks a person takes longer.
//! Ids are the client's to choose; it should not reuse one that is still under way.
//!
//! The first request is [`Request::Hello`] with [`VERSION`]; the agent answers with its own
//! version, or refuses and closes. New kinds of request are added at the end of the enum and
//! raise the version.
//!
//! # Lane
//!
//! A pair of pipes passes a small request and its answer on for half of what a socket takes. After
//! [`Request::Lane`] the agent answers [`Response::Done`] together with three or four descriptors
//! (`SCM_RIGHTS`): the end of a pipe to write requests to, that of another to read answers from, and
//! the first one's other end, which a client keeps open and does not use, so that it gets no SIGPIPE
//! when the agent ends. The fourth, where the agent's system lets it make one, is an end of the answers'
//! pipe to write to that does not block, by which a client wakes its own reader when it has waited long
//! enough; who holds it sees at the socket, not at the pipe, that the agent has ended. There is one
//! lane to a connection, and an agent may refuse it.
//!
//! By the lane go [`Request::Sign`] and the answers to it, in the same frames, and nothing else. A
//! client waits for an answer before it sends the next request, which has at most 4096 bytes
//! (`PIPE_BUF`), length and all; it goes by the socket if it has more. An answer for which the pipe
//! has no room ends the connection. The socket stays in use for all else, and closing it closes the
//! lane.
//!
//! # Who asks
//!
//! Who asks is the peer of the socket as the kernel tells it (`SO_PEERCRED`). Closing the socket
//! cancels what is under way. No request returns a private key or a PIN.

mod client;
mod connection;
mod frame;
mod lane;
mod pin;
mod usage;
mod watch;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use client::AgentKeystore;
pub use frame::{FrameReader, decode, encode};
pub use pin::{pin_file, pin_is_given};
pub use usage::{Histogram, KeyUsage};

use crate::{Device, Error, Input, KeyInfo, KeySpec, KeyUri, Requester, Scheme};

/// The version of the protocol that this build speaks.
pub const VERSION: u16 = 4;

/// The largest `length` of a frame. It leaves room for a TLS 1.2 CertificateVerify over a
/// handshake with long certificate chains, and for a certification request with many names.
pub const MAX_FRAME: usize = 1 << 20;

/// What a client asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// The client's [`VERSION`].
    Hello(u16),
    /// Make a key. Answered with [`Response::Key`].
    Create(KeySpec),
    /// Tell about a key. Answered with [`Response::Key`].
    Open(KeyUri),
    /// Tell about all keys that the caller may use. Answered with [`Response::Keys`].
    List,
    /// Destroy a key. Answered with [`Response::Done`].
    Delete(KeyUri),
    /// Take in a private key. Answered with [`Response::Key`].
    Import {
        /// The name it shall have.
        uri: KeyUri,
        /// DER PrivateKeyInfo.
        pkcs8: Secret,
    },
    /// Sign. Answered with [`Response::Signature`].
    Sign(#[serde(borrow)] SignRequest<'a>),
    /// Tell how the agent is. Answered with [`Response::Status`].
    Status,
    /// Tells where a person can be asked for what this connection makes, opens and deletes; a
    /// signature says so itself. The agent sets `pid` itself. Answered with [`Response::Done`].
    Introduce(Requester),
    /// Gives a PIN, so that no person has to be asked for it. The agent keeps it in memory until it
    /// proves to be wrong. Answered with [`Response::Done`].
    Unlock {
        /// The key, or another of the same token.
        key: KeyUri,
        /// The PIN, UTF-8.
        pin: Secret,
    },
    /// Tell the certificate that is beside a key. Answered with [`Response::Certificate`].
    Certificate(KeyUri),
    /// Write a certificate beside a key. Answered with [`Response::Done`].
    StoreCertificate {
        /// The key.
        uri: KeyUri,
        /// The certificate, DER.
        certificate: Vec<u8>,
    },
    /// Opens a lane. Answered with [`Response::Done`] and descriptors, see [the module](self).
    Lane,
    /// Tell what the device that holds a key says of itself. Answered with [`Response::Device`].
    Describe(KeyUri),
}

/// A request for a signature.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignRequest<'a> {
    /// The key's URI.
    pub key: &'a str,
    /// The scheme to sign with.
    pub scheme: Scheme,
    /// What to sign.
    #[serde(borrow)]
    pub input: Input<'a>,
    /// Why, for a prompt and the log.
    pub reason: &'a str,
    /// How long the answer is worth waiting for, in milliseconds.
    pub timeout_ms: Option<u32>,
    /// Where a person can be asked. The agent sets `pid` itself.
    pub requester: Requester,
}

/// What the agent answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The agent's [`VERSION`].
    Hello(u16),
    /// A key that exists now.
    Key(KeyInfo),
    /// Several.
    Keys(Vec<KeyInfo>),
    /// Done, with nothing to tell.
    Done,
    /// A signature in the encoding of TLS.
    Signature(#[serde(serialize_with = "crate::key::as_bytes")] Vec<u8>),
    /// How the agent is.
    Status(Status),
    /// Refused or failed.
    Refused(Error),
    /// The DER certificate beside a key, if there is one.
    Certificate(Option<Vec<u8>>),
    /// What a device says of itself.
    Device(Device),
}

/// How the agent is, and how well it is closed off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// Signatures made since it started.
    pub signatures: u64,
    /// How its keys have been used, for its owner to know; for others it is empty.
    pub keys: Vec<KeyUsage>,
    /// Each measure of protection: its name, and `Ok` if it is in force or why it is not.
    pub protections: Vec<(String, Result<(), String>)>,
}

/// Bytes that are wiped when dropped and never shown.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps bytes.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
