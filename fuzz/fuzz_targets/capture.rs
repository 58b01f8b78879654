//! Capture files, pcap and pcapng, and what the doctor says of the connections in them.
#![no_main]

use std::time::SystemTime;

use enclasp_doctor::{Context, capture, diagnose, observe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(connections) = capture::connections(data) else { return };
    for connection in &connections {
        let report = diagnose("fuzz", &observe(connection), &Context::at(SystemTime::UNIX_EPOCH));
        let _ = report.to_string();
        // What is written of a connection can be read.
        capture::connections(&capture::pcapng(connection)).expect("our own file");
    }
});
