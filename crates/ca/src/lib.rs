//! The authority: it decides who gets a certificate, issues it, and remembers it.
//!
//! An [`Authority`] is a folder: settings, certificates and records. [`Authority::token`] makes the
//! one-time tokens that devices enrol with, and [`Server`] answers them over EST (RFC 7030). The
//! private keys are in a keystore and are opened only by what signs: [`Server::bind`] and
//! [`Authority::sign`].
//!
//! Invariant: a certificate is recorded, durably, before anyone is handed it; a token is spent in
//! the transaction that records what it paid for, so that it yields one certificate and no more.
#![forbid(unsafe_code)]

mod authority;
mod config;
mod error;
mod est;
mod init;
mod issuance;
mod names;
mod own_certificate;
mod record;
mod refusal;
mod server;
mod store;

pub use authority::{Authority, TokenRequest};
pub use config::{Config, Lifetimes};
pub use error::{Error, Result};
pub use init::{NewAuthority, init};
pub use record::{Filter, IssuedBy, Record};
pub use server::Server;
