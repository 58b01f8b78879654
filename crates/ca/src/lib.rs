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

mod approval;
mod audit;
mod authority;
mod backup;
mod config;
mod console;
mod database;
mod error;
mod est;
mod hierarchy;
mod http;
mod http_url;
mod https;
mod init;
mod issuance;
mod join;
mod metrics;
mod names;
mod own_certificate;
mod profile;
mod publication;
mod record;
mod refusal;
mod rotation;
mod server;
mod store;

#[cfg(test)]
#[allow(dead_code, reason = "not every test crate that has this uses all of it")]
#[path = "../../../tests/harness/postgres.rs"]
mod postgres;

pub use approval::{Waiting, WaitsFor};
pub use audit::{AuditHead, VerifiedChain};
pub use authority::{Authority, TokenRequest};
pub use backup::{NeededKey, Saved, restore};
pub use config::{Config, Former, Label};
pub use database::DatabaseUrl;
pub use error::{Error, Result};
pub use http_url::HttpUrl;
pub use init::{NewAuthority, import, init, request};
pub use join::{NewReplica, ask_to_join};
pub use profile::{NameRule, Profile, ProfileSettings};
pub use record::{Filter, IssuedBy, Record};
pub use rotation::Rotation;
pub use server::Server;
