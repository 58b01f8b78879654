//! Ports, and waiting for what is not there yet.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
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

/// What a plain service at `port` answers to `question`, which is all that it is told: everything
/// until it closes.
pub(crate) fn ask(port: u16, question: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // Who refuses may close at any time.
    let _ = stream.write_all(question.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => panic!("no answer: {e}"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
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
