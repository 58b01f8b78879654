//! A recording as a capture file, for `doctor capture`, `doctor both` and Wireshark.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::recording::{End, Recording};
use crate::wire::Side;

/// LINKTYPE_RAW: packets begin with their IP header.
const RAW: u16 = 101;

/// No segment has more bytes.
const SEGMENT: usize = 1400;

/// What is written where the recording has no address.
const CLIENT: &str = "192.0.2.1:50000";
const SERVER: &str = "192.0.2.2:443";

/// A pcapng file with the connection's bytes in TCP segments of our making, and its secrets in a
/// Decryption Secrets Block. Checksums are zero.
pub fn pcapng(recording: &Recording) -> Vec<u8> {
    let mut file = Vec::new();
    // Version 1.0, a section of unknown length.
    let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    block(&mut file, 0x0a0d_0d0a, &section);
    // The option if_tsresol: microseconds; the end of the options.
    let interface = [&RAW.to_le_bytes()[..], &[0, 0], &[0; 4], &[9, 0, 1, 0, 6, 0, 0, 0], &[0; 4]].concat();
    block(&mut file, 1, &interface);
    let secrets = recording.secrets.to_text();
    if !secrets.is_empty() {
        let header = [0x544c_534b_u32.to_le_bytes(), length(secrets.as_bytes())].concat();
        block(&mut file, 10, &[&header, secrets.as_bytes()].concat());
    }
    for (at, packet) in packets(recording) {
        let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        let high = ((micros >> 32) as u32).to_le_bytes();
        let low = (micros as u32).to_le_bytes();
        let header = [[0; 4], high, low, length(&packet), length(&packet)].concat();
        block(&mut file, 6, &[header, packet].concat());
    }
    file
}

fn length(bytes: &[u8]) -> [u8; 4] {
    (bytes.len() as u32).to_le_bytes()
}

fn block(file: &mut Vec<u8>, kind: u32, content: &[u8]) {
    let padding = content.len().next_multiple_of(4) - content.len();
    let total = ((content.len() + padding + 12) as u32).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(total);
    file.extend_from_slice(content);
    file.extend(std::iter::repeat_n(0, padding));
    file.extend(total);
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// The connection's packets, from their IP headers on.
pub(super) fn packets(recording: &Recording) -> Vec<(Duration, Vec<u8>)> {
    let address = |text: &str, default: &str| {
        text.parse().or_else(|_| default.parse()).unwrap_or(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0))
    };
    let client: SocketAddr = address(&recording.client, CLIENT);
    let server: SocketAddr = address(&recording.server, SERVER);
    let mut writer = Writer { client, server, next: [1000, 2000], packets: Vec::new() };
    writer.send(Duration::ZERO, Side::Client, SYN, &[]);
    writer.send(Duration::ZERO, Side::Server, SYN | ACK, &[]);
    writer.send(Duration::ZERO, Side::Client, ACK, &[]);
    let mut ends = recording.ends.iter().peekable();
    for chunk in &recording.chunks {
        while let Some((side, at, end)) = ends.next_if(|(_, at, _)| *at < chunk.at) {
            writer.end(*at, *side, *end);
        }
        for part in chunk.bytes.chunks(SEGMENT) {
            writer.send(chunk.at, chunk.by, ACK | PSH, part);
        }
    }
    for (side, at, end) in ends {
        writer.end(*at, *side, *end);
    }
    writer.packets
}

struct Writer {
    client: SocketAddr,
    server: SocketAddr,
    /// Of client and server.
    next: [u32; 2],
    packets: Vec<(Duration, Vec<u8>)>,
}

impl Writer {
    fn end(&mut self, at: Duration, side: Side, end: End) {
        match end {
            End::Closed => self.send(at, side, FIN | ACK, &[]),
            End::Reset => self.send(at, side, RST | ACK, &[]),
            End::TimedOut => {}
        }
    }

    fn send(&mut self, at: Duration, side: Side, flags: u8, payload: &[u8]) {
        let [client, server] = self.next;
        let (from, to, sequence, acknowledged) = match side {
            Side::Client => (self.client, self.server, client, server),
            Side::Server => (self.server, self.client, server, client),
        };
        let acknowledged = if flags & ACK == 0 { 0 } else { acknowledged };
        let mut tcp = Vec::new();
        tcp.extend(from.port().to_be_bytes());
        tcp.extend(to.port().to_be_bytes());
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(acknowledged.to_be_bytes());
        tcp.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(payload);
        self.packets.push((at, ip(from.ip(), to.ip(), tcp)));
        let counted = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let next = match side {
            Side::Client => &mut self.next[0],
            Side::Server => &mut self.next[1],
        };
        *next = next.wrapping_add(counted);
    }
}

fn ip(from: IpAddr, to: IpAddr, tcp: Vec<u8>) -> Vec<u8> {
    let length = tcp.len() as u16;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (length + 20).to_be_bytes();
            let header =
                [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, 64, 6, 0, 0], &from.octets(), &to.octets()];
            [header.concat(), tcp].concat()
        }
        _ => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[6, 64], &octets(from), &octets(to)];
            [header.concat(), tcp].concat()
        }
    }
}
