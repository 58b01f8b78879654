//! Whatever is done to a file, the doctor says something and does not panic.

use enclasp_doctor::file::Kind;

use crate::{look, requests};

/// A small generator, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.next(3) {
        let at = random.next(bytes.len());
        match random.next(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.next(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 0x30, 0x80, 0xff, 4, 0x84][random.next(6)],
            2 => bytes.insert(at, random.next(256) as u8),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let end = (at + random.next(40)).min(bytes.len());
                let piece = bytes[at.min(end)..end].to_vec();
                let to = random.next(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

#[test]
fn no_mutation_is_too_much() {
    let corpus: Vec<Vec<u8>> = requests::wrong()
        .into_iter()
        .map(|case| case.bytes)
        .chain(requests::right().into_iter().map(|(_, bytes)| bytes))
        .collect();
    let mut random = Random(0x5eed_cafe_f00d);
    for round in 0..2000 {
        let mut bytes = corpus[round % corpus.len()].clone();
        mutate(&mut bytes, &mut random);
        let examined = look(Kind::Request, &bytes);
        // A report can be shown, and a repair leads to a file that is no worse.
        assert!(!examined.report.to_string().is_empty());
        if let Some(repair) = &examined.repair {
            assert!(!repair.bytes.is_empty(), "{bytes:02x?}");
        }
    }
}
