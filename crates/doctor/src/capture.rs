//! Captures: files of packets, as tcpdump and Wireshark write them, to recordings of connections.

mod file;
mod packet;
mod reassembly;
mod write;

pub use write::pcapng;

use crate::{Recording, Result};

/// The TCP connections in a capture file (pcap or pcapng; Ethernet, loopback, Linux cooked or raw
/// IP), in the order in which they began. Secrets that are in the file are taken along.
///
/// # Errors
/// [`Error::Capture`](crate::Error::Capture) if it is no capture file, or is damaged at its
/// beginning. What is damaged later ends the capture there.
pub fn connections(bytes: &[u8]) -> Result<Vec<Recording>> {
    let file = file::read(bytes)?;
    let mut segments: Vec<_> = file
        .packets
        .iter()
        .filter_map(|packet| packet::segment(packet.link, packet.data).map(|segment| (packet.at, segment)))
        .collect();
    // Of several interfaces, one may have been written later.
    segments.sort_by_key(|(at, _)| *at);
    let mut connections = reassembly::connections(segments);
    for connection in &mut connections {
        connection.secrets.extend(&file.secrets);
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::recording::{Chunk, End};
    use crate::wire::Side;

    fn recording() -> Recording {
        let mut recording = Recording {
            client: "[2001:db8::7]:51000".into(),
            server: "[2001:db8::1]:443".into(),
            ..Recording::default()
        };
        let chunk = |at, by, length: usize, first: u8| Chunk {
            at: Duration::from_millis(at),
            by,
            bytes: (0..length).map(|index| first.wrapping_add(index as u8)).collect(),
        };
        recording.chunks = vec![
            chunk(1, Side::Client, 3000, 1),
            chunk(2, Side::Server, 4500, 2),
            chunk(3, Side::Client, 10, 3),
        ];
        recording.end(Duration::from_millis(4), Side::Server, End::Closed);
        recording.end(Duration::from_millis(5), Side::Client, End::Reset);
        recording.secrets.add([7; 32], "SERVER_TRAFFIC_SECRET_0", &[9; 32]);
        recording
    }

    fn assert_same(read: &Recording, what: &str) {
        let expected = recording();
        for side in [Side::Client, Side::Server] {
            assert!(read.sent_by(side) == expected.sent_by(side), "{what}: the {side}'s bytes");
            assert_eq!(read.end_of(side), expected.end_of(side), "{what}: the {side}'s end");
        }
        assert!(!read.has_gaps, "{what}");
        let order = |recording: &Recording| {
            let mut sides: Vec<Side> = recording.chunks.iter().map(|chunk| chunk.by).collect();
            sides.dedup();
            sides
        };
        assert_eq!(order(read), order(&expected), "{what}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let read = connections(&pcapng(&recording())).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].client, "[2001:db8::7]:51000");
        assert_eq!(read[0].secrets.to_text(), recording().secrets.to_text());
        assert_same(&read[0], "pcapng");
    }

    /// Every link type, both byte orders of the old format, packets in odd orders and twice.
    #[test]
    fn links_orders_and_retransmissions_make_no_difference() {
        let packets = write::packets(&recording());
        let ethertype = |packet: &[u8]| if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        type Frame<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
        let links: [(u32, Frame<'_>); 6] = [
            (1, &|packet| [&[0; 12][..], &ethertype(packet), packet].concat()),
            (1, &|packet| [&[0; 12][..], &[0x81, 0, 0, 5], &ethertype(packet), packet].concat()),
            (0, &|packet| [&[if packet[0] >> 4 == 6 { 30 } else { 2 }, 0, 0, 0][..], packet].concat()),
            (113, &|packet| [&[0; 14][..], &ethertype(packet), packet].concat()),
            (276, &|packet| [&ethertype(packet)[..], &[0; 18], packet].concat()),
            (101, &|packet| packet.to_vec()),
        ];
        for (link, frame) in links {
            for big_endian in [false, true] {
                let frames: Vec<_> = packets.iter().map(|(at, packet)| (*at, frame(packet))).collect();
                let read = connections(&pcap(link, big_endian, &frames)).unwrap();
                assert_same(&read[0], &format!("link type {link}"));
            }
        }
        // Neighbours swapped, at every place; and each packet once more at the end.
        for swapped in 3..packets.len() - 1 {
            let mut frames: Vec<_> = packets.iter().map(|(_, packet)| packet.clone()).collect();
            frames.swap(swapped, swapped + 1);
            frames.extend(packets[..packets.len() - 1].iter().map(|(_, packet)| packet.clone()));
            let frames: Vec<_> =
                frames.into_iter().zip(0..).map(|(packet, at)| (Duration::from_micros(at), packet)).collect();
            let read = connections(&pcap(101, false, &frames)).unwrap();
            assert_eq!(read.len(), 1);
            if swapped + 2 < packets.len() {
                assert_same(&read[0], &format!("packets {swapped} and {} swapped", swapped + 1));
            }
        }
    }

    #[test]
    fn a_missing_packet_is_a_gap() {
        let mut packets = write::packets(&recording());
        // The client's first packet with data, of three.
        packets.remove(3);
        let read = connections(&pcap(101, false, &packets)).unwrap();
        assert!(read[0].has_gaps);
        assert!(read[0].sent_by(Side::Client).is_empty());
    }

    #[test]
    fn cut_and_changed_files_do_no_harm() {
        let packets: Vec<_> = write::packets(&recording());
        for file in [pcapng(&recording()), pcap(101, false, &packets)] {
            for end in 0..file.len() {
                let _ = connections(&file[..end]);
            }
            for index in 0..file.len().min(2000) {
                let mut changed = file.clone();
                changed[index] ^= 0xff;
                let _ = connections(&changed);
            }
        }
    }

    fn pcap(link: u32, big_endian: bool, frames: &[(Duration, Vec<u8>)]) -> Vec<u8> {
        let number = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let version = if big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let mut file =
            [number(0xa1b2_c3d4), version, number(0), number(0), number(65535), number(link)].concat();
        for (at, frame) in frames {
            let length = number(frame.len() as u32);
            file.extend(number(at.as_secs() as u32));
            file.extend(number(at.subsec_micros()));
            file.extend([length, length].concat());
            file.extend(frame);
        }
        file
    }
}
