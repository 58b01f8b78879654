//! Identities: named pairs of a certificate chain and a key URI, whose public keys match.
//!
//! A [`Store`] keeps them on disk and swaps them atomically; [`State`] says where everything of a
//! user's lives and reaches the keys; [`match_key`] finds the key that a certificate is for, and
//! [`select`] the identity that fits, both with their reasons.
#![forbid(unsafe_code)]

mod error;
mod holder;
mod identity;
mod import;
mod pkcs12;
mod select;
mod state;
mod store;
mod supervisor;

pub use error::{Error, Result};
pub use holder::Holder;
pub use identity::Identity;
pub use import::{Examined, examine, match_key};
pub use pkcs12::Pkcs12;
pub use select::{Candidate, Criteria, Selection, select};
pub use state::State;
pub use store::Store;
pub use supervisor::supervise;
