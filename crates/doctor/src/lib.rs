//! The doctor: takes what was seen of a key, a file or a handshake, and returns a [`Report`] of
//! [`Finding`]s: what is wrong, why, and what to do.
//!
//! Nothing here opens a file or a socket. What is looked at may be hostile: nothing panics on it.
//! What is not understood is reported as that, with the evidence, and never guessed at.
#![forbid(unsafe_code)]

mod bisect;
mod both;
pub mod capture;
pub mod code;
mod diagnose;
mod ecdsa;
mod error;
pub mod file;
mod finding;
mod hash;
mod html;
mod key;
pub mod observe;
pub mod old_server;
mod public_key;
mod recording;
mod report;
mod rsa;
pub mod scan;
mod signature;
pub mod wire;

pub use bisect::{Bisection, Outcome, Trial, differences, examine_bisection};
pub use both::diagnose_both;
pub use code::Code;
pub use diagnose::{Context, diagnose, only_old_versions};
pub use error::{Error, Result};
pub use finding::{Confidence, Evidence, Finding, Place, Severity};
pub use html::html;
pub use key::{KeyObservation, examine_key};
pub use observe::{Observation, observe};
pub use recording::{Chunk, End, MAX_RECORDED, Recording};
pub use report::Report;
