//! Enclasp for other languages: keys, requests, enrolment, identities and mutual TLS, and signers that
//! a program brings along.
//!
//! [`Enclasp`] is where a user's keys and identities are; a [`Key`] asks for certificates; an
//! [`Identity`] is a key with its certificate; a [`Client`] opens a [`Stream`] or gets an
//! [`HttpResponse`] as one. A [`Signer`] is the program's own code behind the seam that all other keys
//! are behind: what it says of itself is not believed, and each of its signatures is verified before
//! anything is done with it.
//!
//! Python, Kotlin and Swift come from UniFFI, C from `include/enclasp.h`. Every call blocks until it is
//! done or its time is over, and any of them may be made from any thread. No panic leaves this library:
//! it becomes an error of the other language.
#![deny(unsafe_code)]
#![cfg(unix)]

mod c;
mod client;
mod enclasp;
mod error;
mod http;
mod identity;
mod key;
mod runtime;
mod signer;
mod stream;

pub use client::{Client, ClientOptions, TlsVersion};
pub use enclasp::Enclasp;
pub use error::EnclaspError;
pub use http::{HttpHeader, HttpRequest, HttpResponse};
pub use identity::Identity;
pub use key::{Key, KeyType};
pub use signer::{Scheme, Signer, SignerError, SigningRequest};
pub use stream::{Evidence, Stream};

uniffi::setup_scaffolding!("enclasp");
