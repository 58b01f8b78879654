//! Ports, and waiting for what is not there yet.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::ports::free_ports;
use super::process::PATIENCE;

/// A port that nobody listens on. For programs that cannot pick one themselves.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

pub(crate) fn wait_until_listening(port: u16) {
    eventually("somebody listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "not after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
