//! Scenarios: the real `enclasp` program and real peers, one scenario per file.
//!
//! `sh tests/run.sh` runs them with all else; `sh tests/run.sh server_refuses` runs some. What a
//! scenario needs and this machine lacks skips it loudly, and fails it when `CI` is set.

mod harness;
mod peers;
mod scenarios;
