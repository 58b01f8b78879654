//! Whatever is done to a file, the doctor says something and does not panic.

use enclasp_doctor::file::Kind;

use crate::{certificates, keys, look, requests};

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
    let requests = requests::wrong().into_iter().map(|case| case.bytes);
    let requests = requests.chain(requests::right().into_iter().map(|(_, bytes)| bytes));
    let certificates = certificates::wrong().into_iter().map(|(_, bytes, ..)| bytes);
    let lists = certificates::wrong_lists().into_iter().map(|(_, bytes, _)| bytes);
    let keys = keys::cases().into_iter().map(|case| case.bytes);
    let corpus: Vec<(Kind, Vec<u8>)> = requests
        .map(|bytes| (Kind::Request, bytes))
        .chain(certificates.map(|bytes| (Kind::Certificate, bytes)))
        .chain(lists.map(|bytes| (Kind::RevocationList, bytes)))
        .chain(keys.map(|bytes| (Kind::Key, bytes)))
        .collect();
    let kinds = [Kind::Request, Kind::Certificate, Kind::Key, Kind::Pkcs12, Kind::RevocationList];
    let mut random = Random(0x5eed_cafe_f00d);
    for round in 0..1500 {
        let (kind, bytes) = &corpus[round % corpus.len()];
        let mut bytes = bytes.clone();
        mutate(&mut bytes, &mut random);
        // Now and then as what it is not.
        let kind = if random.next(10) == 0 { kinds[random.next(kinds.len())] } else { *kind };
        let examined = look(kind, &bytes);
        assert!(!examined.report.to_string().is_empty());
        if let Some(repair) = &examined.repair {
            assert!(
                !repair.bytes.is_empty() && *repair.bytes != bytes,
                "{kind:?} {bytes:02x?}\n{}",
                examined.report
            );
        }
    }
}
