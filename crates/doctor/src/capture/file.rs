//! The two formats of capture files: pcap, and pcapng with its blocks.

use std::time::Duration;

use crate::wire::{KeyLog, Reader};
use crate::{Error, Result};

/// A file's packets and secrets.
pub(super) struct CaptureFile<'a> {
    pub(super) packets: Vec<Packet<'a>>,
    pub(super) secrets: KeyLog,
}

/// A packet as it was captured.
pub(super) struct Packet<'a> {
    /// Since 1970.
    pub(super) at: Duration,
    /// What its first bytes are: a LINKTYPE_ value.
    pub(super) link: u32,
    pub(super) data: &'a [u8],
}

pub(super) fn read(bytes: &[u8]) -> Result<CaptureFile<'_>> {
    let magic = bytes.first_chunk::<4>().copied().unwrap_or_default();
    match magic {
        [0x0a, 0x0d, 0x0d, 0x0a] => pcapng(bytes),
        [0xd4, 0xc3, 0xb2, 0xa1] => pcap(bytes, false, 1000),
        [0xa1, 0xb2, 0xc3, 0xd4] => pcap(bytes, true, 1000),
        [0x4d, 0x3c, 0xb2, 0xa1] => pcap(bytes, false, 1),
        [0xa1, 0xb2, 0x3c, 0x4d] => pcap(bytes, true, 1),
        _ => Err(Error::Capture { reason: "its first bytes are neither those of pcap nor of pcapng".into() }),
    }
}

/// Numbers in the byte order of the machine that wrote the file.
struct Numbers<'a> {
    reader: Reader<'a>,
    big_endian: bool,
}

impl<'a> Numbers<'a> {
    fn u16(&mut self) -> Option<u16> {
        let bytes = self.reader.array()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.reader.array()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn take(&mut self, count: u32) -> Option<&'a [u8]> {
        self.reader.take(usize::try_from(count).ok()?)
    }
}

/// The old format: one link type, one packet after the other. `nanos` are in a unit of its times.
fn pcap(bytes: &[u8], big_endian: bool, nanos: u64) -> Result<CaptureFile<'_>> {
    let mut numbers = Numbers { reader: Reader::new(bytes), big_endian };
    let mut header = || {
        numbers.take(20)?;
        numbers.u32()
    };
    let link =
        header().ok_or_else(|| Error::Capture { reason: "it ends within its header".into() })? & 0x0fff_ffff;
    let mut packets = Vec::new();
    let mut next = || {
        let (seconds, fraction, captured, _) =
            (numbers.u32()?, numbers.u32()?, numbers.u32()?, numbers.u32()?);
        let at = Duration::from_secs(seconds.into()) + Duration::from_nanos(u64::from(fraction) * nanos);
        Some(Packet { at, link, data: numbers.take(captured)? })
    };
    // A capture that was not ended in order ends within a packet.
    while let Some(packet) = next() {
        packets.push(packet);
    }
    Ok(CaptureFile { packets, secrets: KeyLog::default() })
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const DECRYPTION_SECRETS: u32 = 10;
const TLS_KEY_LOG: u32 = 0x544c_534b;

/// An interface of a section.
struct Interface {
    link: u32,
    /// Units of its times in a second.
    ticks: u64,
}

/// The new format: blocks of many types, those that are not known are passed over.
fn pcapng(bytes: &[u8]) -> Result<CaptureFile<'_>> {
    let mut file = CaptureFile { packets: Vec::new(), secrets: KeyLog::default() };
    let mut interfaces = Vec::new();
    let mut numbers = Numbers { reader: Reader::new(bytes), big_endian: false };
    let mut sections = 0;
    let mut next = || {
        let mut start = Numbers { reader: numbers.reader, big_endian: numbers.big_endian };
        let kind = start.u32()?;
        if kind == SECTION_HEADER {
            // The byte order is the one in which this number reads so.
            start.take(4)?;
            numbers.big_endian = start.reader.array()? == [0x1a, 0x2b, 0x3c, 0x4d];
        }
        numbers.u32()?;
        let length = numbers.u32()?;
        let content = numbers.take(length.checked_sub(12)?)?;
        // Blocks are padded to 32 bits.
        numbers.take(4)?;
        let mut block = Numbers { reader: Reader::new(content), big_endian: numbers.big_endian };
        match kind {
            SECTION_HEADER => {
                sections += 1;
                interfaces.clear();
            }
            INTERFACE => {
                let link = block.u16()?;
                block.take(6)?;
                interfaces.push(Interface { link: link.into(), ticks: ticks(&mut block) });
            }
            ENHANCED_PACKET => {
                let index = usize::try_from(block.u32()?).ok()?;
                let (high, low, captured, _) = (block.u32()?, block.u32()?, block.u32()?, block.u32()?);
                let data = block.take(captured)?;
                if let Some(Interface { link, ticks }) = interfaces.get(index) {
                    let time = u64::from(high) << 32 | u64::from(low);
                    let nanos = u128::from(time % ticks) * 1_000_000_000 / u128::from(*ticks);
                    let at = Duration::from_secs(time / ticks)
                        + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
                    file.packets.push(Packet { at, link: *link, data });
                }
            }
            SIMPLE_PACKET => {
                block.u32()?;
                let data = block.reader.rest();
                if let Some(Interface { link, .. }) = interfaces.first() {
                    file.packets.push(Packet { at: Duration::ZERO, link: *link, data });
                }
            }
            DECRYPTION_SECRETS if block.u32()? == TLS_KEY_LOG => {
                let length = block.u32()?;
                let text = String::from_utf8_lossy(block.take(length)?);
                file.secrets.extend(&KeyLog::parse(&text));
            }
            _ => {}
        }
        Some(())
    };
    while next().is_some() {}
    if sections == 0 {
        return Err(Error::Capture { reason: "it ends within its header".into() });
    }
    Ok(file)
}

/// The option `if_tsresol` of an interface; without it, microseconds.
fn ticks(block: &mut Numbers<'_>) -> u64 {
    const TIME_RESOLUTION: u16 = 9;
    while let (Some(option), Some(length)) = (block.u16(), block.u16()) {
        let Some(value) = block.take(u32::from(length).next_multiple_of(4)) else { break };
        if let (TIME_RESOLUTION, Some(value)) = (option, value.first()) {
            let exponent = u32::from(value & 0x7f);
            let ticks =
                if *value < 0x80 { 10_u64.checked_pow(exponent) } else { 1_u64.checked_shl(exponent) };
            return ticks.unwrap_or(1_000_000).max(1);
        }
    }
    1_000_000
}
