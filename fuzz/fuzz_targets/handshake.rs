//! What was recorded of a connection: records, handshake messages, alerts, and what the doctor says of them.
#![no_main]

use std::time::{Duration, SystemTime};

use enclasp_doctor::wire::{KeyLog, Side};
use enclasp_doctor::{Context, End, Recording, diagnose, diagnose_both, html, observe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let recording = recording(data);
    let seen = observe(&recording);
    let mut context = Context::at(SystemTime::UNIX_EPOCH);
    context.certificate_wanted = data.len() % 2 == 0;
    let report = diagnose("fuzz", &seen, &context);
    let _ = html(&[(&report, &seen.events)]);
    let mut other = recording.clone();
    other.chunks.truncate(2);
    let _ = diagnose_both(&recording, &other, &context).to_string();
});

/// Chunks, each after a byte that says who sent it and two that say how long it is.
fn recording(mut data: &[u8]) -> Recording {
    let mut recording = Recording::default();
    let mut at = Duration::ZERO;
    while let [kind, high, low, rest @ ..] = data {
        let by = if kind & 1 == 0 { Side::Client } else { Side::Server };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        at += Duration::from_millis(1);
        match kind >> 1 {
            1 => recording.end(at, by, End::Closed),
            2 => recording.end(at, by, End::Reset),
            3 => recording.secrets.extend(&KeyLog::parse(&String::from_utf8_lossy(bytes))),
            _ => recording.push(at, by, bytes),
        }
        data = rest;
    }
    recording
}
