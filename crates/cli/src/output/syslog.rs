//! The log as datagrams to the local syslog (RFC 3164 §4.1, as its local socket takes them).

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::{Failure, Outcome};

/// Other system daemons.
const FACILITY: u8 = 3;

/// The socket of syslog.
pub(super) struct Syslog(UnixDatagram);

impl Syslog {
    pub(super) fn open(path: &Path) -> Outcome<Self> {
        let opened = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
        opened.map(Self).map_err(|e| {
            Failure::new(format!("cannot log to {}: {e}", path.display()))
                .hint("does a syslog daemon run? without --syslog, the log is on standard error")
        })
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { socket: &self.0, severity: severity(Level::INFO) }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { socket: &self.0, severity: severity(*metadata.level()) }
    }
}

/// One event, which is written in one piece.
pub(super) struct Line<'a> {
    socket: &'a UnixDatagram,
    severity: u8,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let priority = FACILITY * 8 + self.severity;
        let mut message = format!("<{priority}>enclasp[{}]: ", std::process::id()).into_bytes();
        message.extend(text.trim_ascii());
        self.socket.send(&message)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Numerical codes of RFC 3164, table 2.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_datagram_with_its_priority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(Syslog::open(&path).is_err());
        let daemon = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::open(&path).unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_writer(syslog).with_ansi(false).without_time().with_level(false);
        tracing::subscriber::with_default(subscriber.with_target(false).finish(), || {
            tracing::warn!(peer = "p", "refused");
        });
        let mut buffer = [0; 200];
        let length = daemon.recv(&mut buffer).unwrap();
        let expected = format!("<28>enclasp[{}]: refused peer=\"p\"", std::process::id());
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
    }
}
