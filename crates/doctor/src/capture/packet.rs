//! From a captured packet to its TCP segment.

use std::net::{IpAddr, SocketAddr};

use crate::wire::Reader;

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    /// If the ACK flag is set.
    pub(super) acknowledged: Option<u32>,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) payload: Vec<u8>,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;

/// The segment in a packet of that link type (LINKTYPE_ values). `None` if it has none, or only a
/// fragment of one.
pub(super) fn segment(link: u32, packet: &[u8]) -> Option<Segment> {
    let mut reader = Reader::new(packet);
    match link {
        // NULL and LOOP: the address family, in a byte order of its own; the IP version says it too.
        0 | 108 => drop(reader.take(4)?),
        // Ethernet.
        1 => {
            reader.take(12)?;
            ethertype(&mut reader)?;
        }
        // RAW, in its three values, and IPV4 and IPV6.
        12 | 14 | 101 | 228 | 229 => {}
        // Linux cooked, versions 1 and 2.
        113 => {
            reader.take(14)?;
            ethertype(&mut reader)?;
        }
        276 => {
            let kind = reader.u16()?;
            reader.take(18)?;
            (kind == IPV4 || kind == IPV6).then_some(())?;
        }
        _ => return None,
    }
    ip(reader.rest())
}

/// Passes over VLAN tags.
fn ethertype(reader: &mut Reader<'_>) -> Option<()> {
    loop {
        match reader.u16()? {
            IPV4 | IPV6 => return Some(()),
            0x8100 | 0x88a8 => drop(reader.take(2)?),
            _ => return None,
        }
    }
}

fn ip(packet: &[u8]) -> Option<Segment> {
    match packet.first()? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Segment> {
    let mut reader = Reader::new(packet);
    let header = usize::from(reader.u8()? & 0xf) * 4;
    reader.u8()?;
    let total = usize::from(reader.u16()?);
    reader.u16()?;
    let fragment = reader.u16()?;
    reader.u8()?;
    let protocol = reader.u8()?;
    reader.u16()?;
    let (from, to): ([u8; 4], [u8; 4]) = (reader.array()?, reader.array()?);
    // More fragments, or not the first one.
    if protocol != TCP || fragment & 0x3fff != 0 {
        return None;
    }
    // Ethernet pads short packets; a network card that cuts for the kernel leaves the total at 0.
    let total = if total == 0 { packet.len() } else { total.min(packet.len()) };
    tcp(from.into(), to.into(), packet.get(header..total)?)
}

fn ipv6(packet: &[u8]) -> Option<Segment> {
    let mut reader = Reader::new(packet);
    reader.take(4)?;
    let length = usize::from(reader.u16()?);
    let mut next = reader.u8()?;
    reader.u8()?;
    let (from, to): ([u8; 16], [u8; 16]) = (reader.array()?, reader.array()?);
    let rest = reader.rest();
    let length = if length == 0 { rest.len() } else { length.min(rest.len()) };
    let mut reader = Reader::new(rest.get(..length)?);
    // Hop-by-hop options, routing, destination options.
    while matches!(next, 0 | 43 | 60) {
        next = reader.u8()?;
        let length = usize::from(reader.u8()?) * 8 + 6;
        reader.take(length)?;
    }
    if next != TCP {
        return None;
    }
    tcp(from.into(), to.into(), reader.rest())
}

fn tcp(from: IpAddr, to: IpAddr, segment: &[u8]) -> Option<Segment> {
    let mut reader = Reader::new(segment);
    let (source, destination) = (reader.u16()?, reader.u16()?);
    let (sequence, acknowledged) = (reader.u32()?, reader.u32()?);
    let header = usize::from(reader.u8()? >> 4) * 4;
    let flags = reader.u8()?;
    Some(Segment {
        from: SocketAddr::new(from, source),
        to: SocketAddr::new(to, destination),
        sequence,
        acknowledged: (flags & 0x10 != 0).then_some(acknowledged),
        fin: flags & 1 != 0,
        syn: flags & 2 != 0,
        rst: flags & 4 != 0,
        payload: segment.get(header.max(20)..)?.to_vec(),
    })
}
