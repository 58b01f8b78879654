//! The agent's frames: a stream of any bytes, as the agent and as its client read it.
#![no_main]

use enclasp_keystore::agent::{FrameReader, Request, Response, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    let mut reader = FrameReader::default();
    let mut again = Vec::new();
    while let Ok(Some((id, body))) = reader.next(&mut stream) {
        if let Ok(request) = decode::<Request<'_>>(body) {
            // What was understood can be said again, and means the same.
            encode(id, &request, &mut again).expect("it fitted a frame before");
            assert_eq!(decode::<Request<'_>>(&again[8..]).expect("our own encoding"), request);
        }
        if let Ok(response) = decode::<Response>(body) {
            encode(id, &response, &mut again).expect("it fitted a frame before");
            assert_eq!(decode::<Response>(&again[8..]).expect("our own encoding"), response);
        }
    }
});
