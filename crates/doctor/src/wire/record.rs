//! The record layer (RFC 8446 §5.1), and what comes in its place from programs that speak no TLS.

use std::fmt;

use serde::Serialize;

use super::Version;

/// Types of records.
pub(crate) mod content {
    pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(crate) const ALERT: u8 = 21;
    pub(crate) const HANDSHAKE: u8 = 22;
    pub(crate) const APPLICATION_DATA: u8 = 23;
    pub(crate) const HEARTBEAT: u8 = 24;
}

/// The largest that any version allows: 2^14 and what encryption adds (RFC 5246 §6.2.3).
const MAX_RECORD: usize = (1 << 14) + 2048;

/// Bytes that are looked at to tell what else they are.
const SAMPLE: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: u8,
    pub(crate) version: Version,
    pub(crate) payload: Vec<u8>,
}

/// What a stream turned out to carry instead of TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// What it looks like.
    pub protocol: Protocol,
    /// Where in the stream it began.
    pub offset: usize,
    /// The first bytes, in Latin-1 where they are text, else in hexadecimal.
    pub sample: String,
}

/// A protocol that is not TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Protocol {
    Http,
    Ssh,
    /// A greeting of a server that wants STARTTLS first: SMTP, FTP, IMAP, POP3.
    Greeting,
    /// The header of HAProxy's PROXY protocol.
    Proxy,
    /// An SSL 2.0 ClientHello.
    Ssl2,
    Unknown,
}

/// The next thing in a stream.
pub(crate) enum Framing {
    Record(Record),
    Stranger(Stranger),
}

/// Cuts a stream into records, however it arrives.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    buffer: Vec<u8>,
    /// How much of the stream is before `buffer`.
    taken: usize,
    lost: bool,
}

impl Deframer {
    /// Takes more of the stream. After something that is not TLS nothing is kept any more.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.lost {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Whether the stream stopped within a record.
    pub(crate) fn is_within(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Says what the bytes are that never became a record, at the end of the stream.
    pub(crate) fn finish(&mut self) -> Option<Stranger> {
        (!self.buffer.is_empty() && !self.may_be_record()).then(|| self.stranger())
    }

    pub(crate) fn next(&mut self) -> Option<Framing> {
        if !self.may_be_record() {
            // A few more bytes tell better what it is.
            return (self.buffer.len() >= SAMPLE).then(|| Framing::Stranger(self.stranger()));
        }
        let [kind, major, minor, high, low] = *self.buffer.first_chunk()?;
        let end = 5 + usize::from(u16::from_be_bytes([high, low]));
        let payload = self.buffer.get(5..end)?.to_vec();
        self.buffer.drain(..end);
        self.taken += end;
        Some(Framing::Record(Record { kind, version: u16::from_be_bytes([major, minor]), payload }))
    }

    /// Whether what has come can be the beginning of a record.
    fn may_be_record(&self) -> bool {
        let at = |index: usize| self.buffer.get(index).copied();
        at(0).is_none_or(|kind| (content::CHANGE_CIPHER_SPEC..=content::HEARTBEAT).contains(&kind))
            && at(1).is_none_or(|major| major == 3)
            && at(3)
                .zip(at(4))
                .is_none_or(|(high, low)| usize::from(u16::from_be_bytes([high, low])) <= MAX_RECORD)
    }

    fn stranger(&mut self) -> Stranger {
        self.lost = true;
        let sample = &self.buffer[..self.buffer.len().min(SAMPLE)];
        let stranger =
            Stranger { protocol: Protocol::of(sample), offset: self.taken, sample: printable(sample) };
        self.buffer.clear();
        stranger
    }
}

impl Protocol {
    fn of(bytes: &[u8]) -> Self {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"HTTP/"];
        let starts = |prefix: &[u8]| bytes.starts_with(prefix);
        if METHODS.into_iter().any(starts) || starts(b"PRI * HTTP/2") {
            Self::Http
        } else if starts(b"SSH-") {
            Self::Ssh
        } else if starts(b"PROXY ") || starts(b"\r\n\r\n\0\r\nQUIT\n") {
            Self::Proxy
        } else if starts(b"220 ") || starts(b"220-") || starts(b"* OK") || starts(b"+OK") {
            Self::Greeting
        } else if matches!(bytes, [first, _, 1, 0 | 3, _, ..] if *first >= 0x80) {
            Self::Ssl2
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Ssh => "SSH",
            Self::Greeting => "the greeting of a mail or file server",
            Self::Proxy => "a PROXY protocol header",
            Self::Ssl2 => "an SSL 2.0 ClientHello",
            Self::Unknown => "something unknown",
        })
    }
}

fn printable(bytes: &[u8]) -> String {
    let is_text = bytes.iter().all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~'));
    if is_text { bytes.escape_ascii().to_string() } else { enclasp_pki::hex(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stream: &[u8], step: usize) -> (Vec<Record>, Option<Stranger>) {
        let mut deframer = Deframer::default();
        let mut records = Vec::new();
        for bytes in stream.chunks(step) {
            deframer.push(bytes);
            while let Some(framing) = deframer.next() {
                match framing {
                    Framing::Record(record) => records.push(record),
                    Framing::Stranger(stranger) => return (records, Some(stranger)),
                }
            }
        }
        let stranger = deframer.finish();
        (records, stranger)
    }

    #[test]
    fn records_are_the_same_however_they_arrive() {
        let stream = [&[22, 3, 1, 0, 3, 1, 2, 3][..], &[21, 3, 3, 0, 2, 2, 40], &[23, 3, 3, 0, 0]].concat();
        let whole = all(&stream, stream.len());
        assert_eq!(whole.0.len(), 3);
        assert_eq!(whole.0[1].payload, [2, 40]);
        for step in 1..stream.len() {
            assert_eq!(all(&stream, step), whole, "in steps of {step}");
        }
    }

    #[test]
    fn other_protocols_are_recognized_at_every_step() {
        let cases: [(&[u8], Protocol); 7] = [
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Protocol::Http),
            (b"HTTP/1.1 400 Bad Request\r\n", Protocol::Http),
            (b"SSH-2.0-OpenSSH_9.2", Protocol::Ssh),
            (b"220 mail.example ESMTP", Protocol::Greeting),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Protocol::Proxy),
            (&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], Protocol::Ssl2),
            (&[22, 9, 9, 0, 5, 1, 2], Protocol::Unknown),
        ];
        for (bytes, expected) in cases {
            for step in 1..=bytes.len() {
                assert_eq!(all(bytes, step).1.map(|stranger| stranger.protocol), Some(expected));
            }
        }
        // After a record, too.
        let late = [&[21, 3, 3, 0, 2, 2, 40][..], b"HTTP/1.1 400 Bad Request"].concat();
        let (records, stranger) = all(&late, late.len());
        assert_eq!((records.len(), stranger.map(|stranger| stranger.offset)), (1, Some(7)));
    }
}
