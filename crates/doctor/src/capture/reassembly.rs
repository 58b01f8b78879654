//! From segments to what both sides of each connection sent, in an order that can have been.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::packet::Segment;
use crate::recording::{End, MAX_RECORDED, Recording};
use crate::wire::Side;

/// So many segments of a connection may wait for others that come before them.
const MAX_WAITING: usize = 256;

/// So many segments of a direction may wait for a gap before them to be filled.
const MAX_EARLY: usize = 1024;

/// The connections, in the order in which they began.
pub(super) fn connections(segments: Vec<(Duration, Segment)>) -> Vec<Recording> {
    let mut connections: Vec<Connection> = Vec::new();
    let mut current: HashMap<(SocketAddr, SocketAddr), usize> = HashMap::new();
    for (at, segment) in segments {
        let pair =
            if segment.from < segment.to { (segment.from, segment.to) } else { (segment.to, segment.from) };
        let begins = segment.syn && segment.acknowledged.is_none();
        let known = current.get(&pair).copied().filter(|index| {
            // The same ports may be used again; a SYN that is sent again begins nothing.
            !begins || connections.get(*index).is_some_and(|known| known.is_begun_by(&segment))
        });
        let index = known.unwrap_or_else(|| {
            connections.push(Connection::new(at, &segment));
            connections.len() - 1
        });
        current.insert(pair, index);
        if let Some(connection) = connections.get_mut(index) {
            connection.push(at, segment);
        }
    }
    connections.into_iter().map(Connection::finish).filter(|recording| !recording.chunks.is_empty()).collect()
}

struct Connection {
    client: SocketAddr,
    /// The sequence number of the client's SYN, if it was captured.
    syn: Option<u32>,
    began: Duration,
    from_client: Stream,
    from_server: Stream,
    /// Segments that acknowledge what was not seen yet: what they answer to comes first.
    waiting: Vec<(Duration, Segment)>,
    recording: Recording,
}

/// One direction.
#[derive(Default)]
struct Stream {
    /// The sequence number of the next byte; unknown before its first segment.
    next: Option<u32>,
    /// What came too early, by how far it is after the first sequence number.
    early: BTreeMap<u32, Vec<u8>>,
    early_bytes: usize,
    /// The sequence number after its last byte, once it has ended.
    fin: Option<u32>,
}

impl Connection {
    /// The client is who sent the SYN; if it was not captured, who sends a ClientHello, or has the
    /// higher port.
    fn new(at: Duration, segment: &Segment) -> Self {
        let is_hello = matches!(segment.payload[..], [22, 3, _, _, _, 1, ..]);
        let is_answer = (segment.syn && segment.acknowledged.is_some())
            || matches!(segment.payload[..], [22, 3, _, _, _, 2, ..]);
        let from_client = if segment.syn && !is_answer {
            true
        } else {
            !is_answer && (is_hello || segment.from.port() > segment.to.port())
        };
        let (client, server) =
            if from_client { (segment.from, segment.to) } else { (segment.to, segment.from) };
        let recording =
            Recording { client: client.to_string(), server: server.to_string(), ..Recording::default() };
        Self {
            client,
            syn: None,
            began: at,
            from_client: Stream::default(),
            from_server: Stream::default(),
            waiting: Vec::new(),
            recording,
        }
    }

    fn is_begun_by(&self, syn: &Segment) -> bool {
        self.client == syn.from && self.syn.is_none_or(|sequence| sequence == syn.sequence)
    }

    fn side(&self, segment: &Segment) -> Side {
        if segment.from == self.client { Side::Client } else { Side::Server }
    }

    fn stream(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Client => &mut self.from_client,
            Side::Server => &mut self.from_server,
        }
    }

    fn push(&mut self, at: Duration, segment: Segment) {
        self.waiting.push((at, segment));
        self.settle(false);
        while self.waiting.len() > MAX_WAITING {
            self.settle(true);
        }
    }

    /// Takes in every segment whose time has come; with `force` the first one in any case.
    fn settle(&mut self, mut force: bool) {
        while let Some(index) = (0..self.waiting.len())
            .find(|index| self.waiting.get(*index).is_some_and(|(_, segment)| self.may_come(segment)))
            .or_else(|| (std::mem::take(&mut force) && !self.waiting.is_empty()).then_some(0))
        {
            let (at, segment) = self.waiting.remove(index);
            self.take(at, segment);
        }
    }

    /// Whether all that the segment acknowledges has been seen.
    fn may_come(&self, segment: &Segment) -> bool {
        let other = match self.side(segment) {
            Side::Client => &self.from_server,
            Side::Server => &self.from_client,
        };
        match (segment.acknowledged, other.next) {
            (Some(acknowledged), Some(next)) => {
                let ahead = distance(next, acknowledged);
                // The end of a stream counts as a byte.
                ahead <= 0 || (ahead == 1 && other.fin == Some(next))
            }
            _ => true,
        }
    }

    fn take(&mut self, at: Duration, segment: Segment) {
        let side = self.side(&segment);
        let at = at.saturating_sub(self.began);
        if segment.syn && side == Side::Client {
            self.syn = Some(segment.sequence);
        }
        let stream = self.stream(side);
        let start = segment.sequence.wrapping_add(segment.syn.into());
        let next = *stream.next.get_or_insert(start);
        if segment.fin {
            stream.fin = Some(start.wrapping_add(segment.payload.len() as u32));
        }
        let bytes = stream.place(next, start, segment.payload);
        if !bytes.is_empty() {
            self.recording.push(at, side, &bytes);
        }
        let stream = self.stream(side);
        if stream.fin.is_some() && stream.fin == stream.next {
            self.recording.end(at, side, End::Closed);
        }
        if segment.rst {
            self.recording.end(at, side, End::Reset);
        }
    }

    fn finish(mut self) -> Recording {
        while !self.waiting.is_empty() {
            self.settle(true);
        }
        self.recording.has_gaps = [&self.from_client, &self.from_server].iter().any(|s| !s.early.is_empty());
        self.recording
    }
}

impl Stream {
    /// Takes in a segment, and returns what can be passed on now.
    fn place(&mut self, next: u32, start: u32, payload: Vec<u8>) -> Vec<u8> {
        let ahead = distance(next, start);
        if ahead > 0 {
            let room = self.early.len() < MAX_EARLY && self.early_bytes + payload.len() <= MAX_RECORDED;
            if room && !payload.is_empty() {
                self.early_bytes += payload.len();
                // Of two with the same start the longer one counts.
                let known = self.early.entry(start).or_default();
                if payload.len() > known.len() {
                    *known = payload;
                }
            }
            return Vec::new();
        }
        let mut bytes = new_part(next, start, &payload).to_vec();
        let mut next = next.wrapping_add(bytes.len() as u32);
        // What came early may follow now, in any order of its numbers: they wrap around.
        while let Some(start) = self.early.keys().copied().find(|start| distance(next, *start) <= 0) {
            let payload = self.early.remove(&start).unwrap_or_default();
            self.early_bytes = self.early_bytes.saturating_sub(payload.len());
            let part = new_part(next, start, &payload);
            bytes.extend_from_slice(part);
            next = next.wrapping_add(part.len() as u32);
        }
        self.next = Some(next);
        bytes
    }
}

/// What of a segment is after `next`: the rest was sent before.
fn new_part(next: u32, start: u32, payload: &[u8]) -> &[u8] {
    let known = usize::try_from(next.wrapping_sub(start)).unwrap_or(usize::MAX);
    payload.get(known..).unwrap_or_default()
}

/// How far `to` is after `from`, in numbers that wrap around (RFC 9293 §3.4).
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}
