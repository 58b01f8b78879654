//! The doctor: takes what was seen of a key, a file or a handshake, and returns a [`Report`] of
//! [`Finding`]s: what is wrong, why, and what to do.
//!
//! Nothing here opens a file or a socket. What is looked at may be hostile: nothing panics on it.
//! What is not understood is reported as that, with the evidence, and never guessed at.
#![forbid(unsafe_code)]

pub mod code;
pub mod file;
mod finding;
mod key;
mod report;

pub use code::Code;
pub use finding::{Confidence, Evidence, Finding, Place, Severity};
pub use key::{KeyObservation, examine_key};
pub use report::Report;
