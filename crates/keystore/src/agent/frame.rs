//! Frames: reading them from a stream and writing them, without copying more than once.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::MAX_FRAME;
use crate::{Error, Result};

const HEADER: usize = 8;

/// Encodes one frame into `buffer`, which is emptied first.
///
/// # Errors
/// [`Error::Protocol`] if the frame would be longer than [`MAX_FRAME`].
pub fn encode(id: u32, body: &impl Serialize, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&id.to_be_bytes());
    *buffer = postcard::to_extend(body, std::mem::take(buffer))
        .map_err(|e| Error::Protocol { reason: format!("a frame cannot be encoded: {e}") })?;
    let length = buffer.len() - 4;
    if length > MAX_FRAME {
        return Err(too_long(length));
    }
    buffer[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(())
}

/// Decodes the body of a frame.
///
/// # Errors
/// [`Error::Protocol`] if the bytes are not exactly one `T`.
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => {
            Err(Error::Protocol { reason: format!("{} bytes follow the end of a frame's body", rest.len()) })
        }
        Err(e) => Err(Error::Protocol { reason: format!("a frame cannot be decoded: {e}") }),
    }
}

/// Takes frames off a stream, reading as much at once as there is.
#[derive(Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameReader {
    /// The next frame's id and body, or `None` if the stream ended between two frames. When
    /// reading fails with `WouldBlock` or `TimedOut`, calling again goes on where it stopped.
    ///
    /// # Errors
    /// `InvalidData` for a length out of bounds, `UnexpectedEof` in the middle of a frame, and
    /// what the stream returns.
    pub fn next<'a>(&'a mut self, stream: &mut impl Read) -> io::Result<Option<(u32, &'a [u8])>> {
        loop {
            let have = self.end - self.start;
            let mut need = HEADER;
            if have >= HEADER {
                let length = self.u32_at(0) as usize;
                if !(4..=MAX_FRAME).contains(&length) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, too_long(length)));
                }
                need = 4 + length;
                if have >= need {
                    let id = self.u32_at(4);
                    let body = self.start + HEADER..self.start + need;
                    self.start += need;
                    return Ok(Some((id, &self.buffer[body])));
                }
            }
            self.make_room(need);
            match stream.read(&mut self.buffer[self.end..]) {
                Ok(0) if self.start == self.end => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.end += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether bytes of a further frame were read already.
    pub fn has_more(&self) -> bool {
        self.start != self.end
    }

    /// Wipes the bytes of frames that were handed out.
    pub fn wipe(&mut self) {
        let start = self.start;
        self.buffer[..start].zeroize();
    }

    fn u32_at(&self, offset: usize) -> u32 {
        let at = self.start + offset;
        u32::from_be_bytes([self.buffer[at], self.buffer[at + 1], self.buffer[at + 2], self.buffer[at + 3]])
    }

    /// Moves what is left to the front, and lets the buffer grow with what really arrives, so that
    /// a header that announces much costs little.
    fn make_room(&mut self, need: usize) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            let larger = (self.buffer.len() * 2).clamp(4096, need.max(4096));
            self.buffer.resize(larger, 0);
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

fn too_long(length: usize) -> Error {
    Error::Protocol { reason: format!("a frame of {length} bytes is not between 4 and {MAX_FRAME}") }
}

#[cfg(test)]
mod tests {
    use super::super::{Request, Response, Secret};
    use super::*;
    use crate::KeyUri;

    /// A stream that gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let take = self.0.len().min(1).min(buffer.len());
            buffer[..take].copy_from_slice(&self.0[..take]);
            self.0 = &self.0[take..];
            Ok(take)
        }
    }

    #[test]
    fn frames_survive_any_fragmentation() {
        let mut stream = Vec::new();
        let mut frame = Vec::new();
        for id in 0..200u32 {
            encode(id, &Response::Signature(vec![id as u8; id as usize * 50]), &mut frame).unwrap();
            stream.extend_from_slice(&frame);
        }
        let (mut fast, mut slow) = (FrameReader::default(), FrameReader::default());
        let (mut fast_stream, mut slow_stream) = (&stream[..], Slow(&stream));
        for id in 0..200u32 {
            let (got, body) = fast.next(&mut fast_stream).unwrap().unwrap();
            let expected = Response::Signature(vec![id as u8; id as usize * 50]);
            assert_eq!((got, decode::<Response>(body).unwrap()), (id, expected));
            assert_eq!(slow.next(&mut slow_stream).unwrap().unwrap(), (id, body));
        }
        assert!(fast.next(&mut fast_stream).unwrap().is_none());
        let mut cut = FrameReader::default();
        let error = cut.next(&mut &stream[..5]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn announced_lengths_are_bounded_and_cost_nothing_until_they_arrive() {
        for length in [0, 3, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend_from_slice(&[0; 4]);
            let error = FrameReader::default().next(&mut &bytes[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let mut reader = FrameReader::default();
        let mut announced = (MAX_FRAME as u32).to_be_bytes().to_vec();
        announced.extend_from_slice(&[0; 4]);
        assert!(reader.next(&mut &announced[..]).is_err());
        assert!(reader.buffer.len() <= 4096);
        assert!(encode(0, &Response::Signature(vec![0; MAX_FRAME]), &mut Vec::new()).is_err());
    }

    #[test]
    fn bodies_are_decoded_whole_or_not_at_all() {
        let request = Request::Import {
            uri: KeyUri::soft("web").unwrap(),
            pkcs8: Secret::new(zeroize::Zeroizing::new(vec![1, 2, 3])),
        };
        let mut frame = Vec::new();
        encode(7, &request, &mut frame).unwrap();
        let body = &frame[8..];
        assert_eq!(decode::<Request<'_>>(body).unwrap(), request);
        for cut in 0..body.len() {
            assert!(decode::<Request<'_>>(&body[..cut]).is_err(), "{cut}");
        }
        assert!(decode::<Request<'_>>(&[body, &[0]].concat()).is_err());
        assert!(!format!("{request:?}").contains("1, 2, 3"));
    }
}
