//! An identity as a rustls configuration: signer, verifier, authorization, evidence, handshake driver.
//!
//! A [`Credential`] is a certificate chain and the [`Key`](enclasp_keystore::Key) whose public key
//! it carries. A [`Client`] or a [`Server`] is made of one, of the roots that it trusts and of
//! [`Options`], once; it then makes any number of connections, each with its [`Evidence`].
//!
//! What holds for every signature that leaves through here:
//!
//! - its scheme comes from the certificate's public key and from what the key was proved to do, and
//!   the peer offered it; TLS 1.3 never sees a curve with another curve's hash;
//! - it has verified with that public key, unless the keystore vouches for its own arithmetic;
//! - a key that may be slow signs off the async workers, with a deadline, and is told when the
//!   connection is gone.
//!
//! rustls reports none of the reasons for which a key did not sign. They are kept aside and
//! returned as the [`Error`] of the connection.
#![forbid(unsafe_code)]

mod access;
mod alert;
mod client;
mod credential;
mod error;
mod evidence;
mod handshake;
mod known;
mod observed;
mod options;
mod recorder;
mod revocation;
mod server;
mod sessions;
mod signer;
mod verifier;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use access::{Access, Rule, Term, UriPattern};
pub use client::{Client, ClientStream, Servers, explain};
pub use credential::Credential;
pub use error::{Error, Result};
pub use evidence::{
    CertificateSummary, ClientCertificate, Evidence, Handshake, Party, Role, SignatureEvidence,
};
pub use handshake::close;
pub use observed::{Signing, observing, observing_client, observing_server};
pub use options::{Options, Version, server_name};
pub use revocation::Revocation;
pub use server::{Clients, Server, ServerStream};
