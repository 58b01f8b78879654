//! Enrolment: from a one-time [`Token`] to an identity, over EST (RFC 7030).
//!
//! [`enroll`] does the whole of it in one resumable step: key, request, certificate, identity.
//! [`renew`] gets a new certificate for the same key, [`rekey`] for a new one, and [`certify`] for a key
//! that another identity answers for. [`Client`] speaks EST alone, and [`est`] has the wire types that
//! the authority's server shares.
//!
//! Nothing is trusted that was not pinned: a token carries the SHA-256 of the authority's root, and
//! a server that cannot show a chain to that root is never sent the token.
#![forbid(unsafe_code)]

mod client;
pub mod duration;
mod endpoint;
mod enrolment;
mod error;
pub mod est;
mod pending;
mod renewal;
pub mod schedule;
mod token;
mod trust;

pub use client::Client;
pub use endpoint::Endpoint;
pub use enrolment::{Enrolment, Step, enroll};
pub use error::{Error, Result};
pub use renewal::{Sponsor, bisect, certify, forget_rekey, rekey, renew, retire};
pub use token::{MAX_TOKEN, Token, TokenContents, TokenSecret, subject_of};
pub use trust::Trust;
