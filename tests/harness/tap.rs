//! A relay between two programs that records what each sent, and what tcpdump would have written of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::process::PATIENCE;

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Client,
    Server,
}

/// What happened on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Happened {
    Sent(Party, Vec<u8>),
    Closed(Party),
    Reset(Party),
}

type Connection = Vec<Happened>;

/// A relay to a port, as long as the test runs.
pub(crate) struct Tap {
    pub(crate) port: u16,
    recorded: Arc<Recorded>,
}

#[derive(Default)]
struct Recorded {
    connections: Mutex<Vec<Connection>>,
    /// Directions that are still open, and connections that were accepted.
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Tap {
    /// In front of `target` on this machine.
    pub(crate) fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let recorded = Arc::new(Recorded::default());
        let shared = recorded.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
                shared.relay(client, server);
            }
        });
        Self { port, recorded }
    }

    /// What happened, once at least one connection was made and all have ended.
    pub(crate) fn recorded(&self) -> Vec<Connection> {
        let state = self.recorded.state.lock().unwrap();
        let waited = self
            .recorded
            .changed
            .wait_timeout_while(state, PATIENCE, |(open, accepted)| *accepted == 0 || *open > 0)
            .unwrap();
        assert!(!waited.1.timed_out(), "a connection does not end, or none was made");
        self.recorded.connections.lock().unwrap().clone()
    }
}

impl Recorded {
    fn relay(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let number = {
            let mut connections = self.connections.lock().unwrap();
            connections.push(Vec::new());
            connections.len() - 1
        };
        {
            let mut state = self.state.lock().unwrap();
            *state = (state.0 + 2, state.1 + 1);
        }
        let copies = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
        for (party, from, to) in [(Party::Client, client, copies.1), (Party::Server, server, copies.0)] {
            let shared = self.clone();
            thread::spawn(move || {
                shared.pass_on(number, party, from, to);
                shared.state.lock().unwrap_or_else(PoisonError::into_inner).0 -= 1;
                shared.changed.notify_all();
            });
        }
    }

    fn pass_on(&self, number: usize, party: Party, mut from: TcpStream, mut to: TcpStream) {
        let note = |happened| self.connections.lock().unwrap()[number].push(happened);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => {
                    note(Happened::Closed(party));
                    // The other may have gone first.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => {
                    // Before it arrives, so that no answer is recorded before its question.
                    note(Happened::Sent(party, buffer[..count].to_vec()));
                    if to.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
                Err(_) => {
                    note(Happened::Reset(party));
                    let _ = set_socket_linger(&to, Some(Duration::ZERO));
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
}

/// A way to capture packets: a file format and a link type of tcpdump's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CaptureFile {
    pub(crate) pcapng: bool,
    pub(crate) link: Link,
    /// Short segments, of which neighbours are swapped and some come twice.
    pub(crate) disorder: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    Ethernet,
    Loopback,
    Cooked,
    Cooked2,
}

impl CaptureFile {
    /// Each link type in each format, in order and in disorder.
    pub(crate) fn all() -> Vec<Self> {
        let links = [Link::Ethernet, Link::Loopback, Link::Cooked, Link::Cooked2];
        let mut all = Vec::new();
        for (index, link) in links.into_iter().enumerate() {
            for pcapng in [false, true] {
                all.push(Self { pcapng, link, disorder: (index % 2 == 0) == pcapng });
            }
        }
        all
    }

    /// The file of some connections, one after the other.
    pub(crate) fn write(self, connections: &[Connection]) -> Vec<u8> {
        let mut file = if self.pcapng { self.pcapng_head() } else { self.pcap_head() };
        let mut at = Duration::from_secs(1_790_000_000);
        for (index, connection) in connections.iter().enumerate() {
            for packet in self.packets(connection, 50_000 + index as u16) {
                at += Duration::from_micros(100);
                let frame = [self.link.header(), packet].concat();
                file.extend(if self.pcapng { pcapng_packet(at, &frame) } else { pcap_packet(at, &frame) });
            }
        }
        file
    }

    fn packets(self, connection: &Connection, client_port: u16) -> Vec<Vec<u8>> {
        let longest = if self.disorder { 400 } else { 1400 };
        let mut flow = Flow { client_port, next: [1000, 2000] };
        let mut packets =
            vec![flow.packet(Party::Client, SYN, b""), flow.packet(Party::Server, SYN | ACK, b"")];
        for happened in connection {
            match happened {
                Happened::Sent(party, bytes) => {
                    let segments = bytes.chunks(longest).map(|part| flow.packet(*party, ACK, part));
                    let segments: Vec<_> = segments.collect();
                    packets.extend(if self.disorder { disordered(segments) } else { segments });
                }
                Happened::Closed(party) => packets.push(flow.packet(*party, ACK | FIN, b"")),
                Happened::Reset(party) => packets.push(flow.packet(*party, ACK | RST, b"")),
            }
        }
        packets
    }

    fn pcap_head(self) -> Vec<u8> {
        let mut head = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        head.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
        head.extend(self.link.number().to_le_bytes());
        head
    }

    fn pcapng_head(self) -> Vec<u8> {
        let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &u64::MAX.to_le_bytes()].concat();
        let interface =
            [&self.link.number().to_le_bytes()[..2], &[0, 0], &0x4_0000_u32.to_le_bytes()].concat();
        [block(0x0a0d_0d0a, &section), block(1, &interface)].concat()
    }
}

impl Link {
    /// LINKTYPE_… of tcpdump.
    fn number(self) -> u32 {
        match self {
            Self::Loopback => 0,
            Self::Ethernet => 1,
            Self::Cooked => 113,
            Self::Cooked2 => 276,
        }
    }

    fn header(self) -> Vec<u8> {
        match self {
            Self::Loopback => vec![2, 0, 0, 0],
            Self::Ethernet => [&[0; 12][..], &[8, 0]].concat(),
            Self::Cooked => [&[0; 14][..], &[8, 0]].concat(),
            Self::Cooked2 => [&[8, 0][..], &[0; 18]].concat(),
        }
    }
}

/// Each two neighbours swapped, and each third segment sent once more.
fn disordered(mut segments: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    segments.chunks_mut(2).for_each(<[_]>::reverse);
    let again: Vec<_> = segments.iter().step_by(3).cloned().collect();
    segments.extend(again);
    segments
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// TCP between 192.0.2.1 and 192.0.2.2:443.
struct Flow {
    client_port: u16,
    /// The next sequence number of client and server.
    next: [u32; 2],
}

impl Flow {
    fn packet(&mut self, by: Party, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (own, other) = match by {
            Party::Client => (0, 1),
            Party::Server => (1, 0),
        };
        let (hosts, ports) = ([[192, 0, 2, 1], [192, 0, 2, 2]], [self.client_port, 443]);
        let length = (40 + payload.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend([hosts[own], hosts[other]].concat());
        packet.extend([ports[own].to_be_bytes(), ports[other].to_be_bytes()].concat());
        packet.extend([self.next[own].to_be_bytes(), self.next[other].to_be_bytes()].concat());
        packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        self.next[own] += payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        packet
    }
}

fn pcap_packet(at: Duration, frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_le_bytes();
    let time = [(at.as_secs() as u32).to_le_bytes(), at.subsec_micros().to_le_bytes()].concat();
    [&time[..], &length, &length, frame].concat()
}

fn pcapng_packet(at: Duration, frame: &[u8]) -> Vec<u8> {
    let time = at.as_micros() as u64;
    let length = (frame.len() as u32).to_le_bytes();
    let head = [0, (time >> 32) as u32, time as u32].map(u32::to_le_bytes).concat();
    let padding = vec![0; frame.len().next_multiple_of(4) - frame.len()];
    block(6, &[&head[..], &length, &length, frame, &padding].concat())
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}
