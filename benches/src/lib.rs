//! What the benches share: measuring, the processes that are measured, and reports.
//!
//! A claim about speed is a ratio of two things that were measured in turns in one run, so that
//! whatever else the machine does meets both. `docs/benchmarks.md` has the numbers.
#![forbid(unsafe_code)]

pub mod authority;
pub mod bare;
pub mod chart;
pub mod hardware;
pub mod load;
pub mod measure;
#[path = "../../tests/harness/ports.rs"]
mod ports;
pub mod process;
pub mod proxies;
pub mod report;
pub mod ssh_agent;
pub mod tls;

/// What is signed, as long as what a TLS 1.3 CertificateVerify signs with SHA-384 (RFC 8446 §4.4.3).
pub const MESSAGE: [u8; 146] = [b' '; 146];
