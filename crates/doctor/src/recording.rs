//! What was recorded of a connection: bytes as they came, and secrets.

use std::time::Duration;

use crate::wire::{KeyLog, Side};

/// One connection, as somebody recorded it who sat at one end or between.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The client's address, as far as it is known.
    pub client: String,
    /// The server's.
    pub server: String,
    /// What was sent, in the order in which it was seen.
    pub chunks: Vec<Chunk>,
    /// How each direction ended, in the order in which they did. What has no end here was still
    /// open, or was not seen to its end.
    pub ends: Vec<(Side, Duration, End)>,
    /// Secrets that decrypt it.
    pub secrets: KeyLog,
    /// Whether bytes are missing in between: what follows a gap is not shown.
    pub has_gaps: bool,
}

/// Some bytes in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// When they came, after the connection's beginning.
    pub at: Duration,
    /// Who sent them.
    pub by: Side,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// In order (FIN).
    Closed,
    /// At once (RST).
    Reset,
    /// Nobody waited any longer.
    TimedOut,
}

/// A recording keeps no more bytes of a connection than this: what follows a handshake is not
/// needed.
pub const MAX_RECORDED: usize = 1 << 20;

/// And no more chunks.
const MAX_CHUNKS: usize = 1 << 12;

impl Recording {
    /// Adds what came, up to [`MAX_RECORDED`] bytes in all.
    pub fn push(&mut self, at: Duration, by: Side, bytes: &[u8]) {
        let kept: usize = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let bytes = bytes.get(..bytes.len().min(MAX_RECORDED - kept.min(MAX_RECORDED))).unwrap_or_default();
        if !bytes.is_empty() && self.chunks.len() < MAX_CHUNKS {
            self.chunks.push(Chunk { at, by, bytes: bytes.to_vec() });
        }
    }

    /// Notes the end of a direction; the first one counts.
    pub fn end(&mut self, at: Duration, by: Side, end: End) {
        if self.end_of(by).is_none() {
            self.ends.push((by, at, end));
        }
    }

    /// How a direction ended.
    pub fn end_of(&self, by: Side) -> Option<End> {
        self.ends.iter().find(|(side, ..)| *side == by).map(|(.., end)| *end)
    }

    /// The bytes that one side sent.
    pub fn sent_by(&self, side: Side) -> Vec<u8> {
        self.chunks.iter().filter(|chunk| chunk.by == side).flat_map(|chunk| chunk.bytes.clone()).collect()
    }
}
