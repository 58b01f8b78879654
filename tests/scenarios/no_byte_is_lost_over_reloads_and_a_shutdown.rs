//! Streams that are under way while both tunnels are reloaded ten times and told to end arrive as they
//! were sent, with both versions of TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use rustix::process::Signal;

use crate::harness::{Backend, Home, VERSIONS, noise};

const STREAMS: u32 = 8;
const PIECES: u32 = 40;
const PIECE: usize = 64 * 1024;

#[test]
fn no_byte_is_lost_over_reloads_and_a_shutdown() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    for version in VERSIONS {
        let backend = Backend::echo();
        let (server, tls) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop --max-tls-version {version}",
            backend.port
        ));
        let (client, plain) = home.start_listening(&format!(
            "client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop"
        ));
        let streams: Vec<_> =
            (0..STREAMS).map(|_| TcpStream::connect(("127.0.0.1", plain)).expect("it listens")).collect();
        // One round each, so that all are carried before anything happens to the tunnels.
        for (seed, stream) in (0..).zip(&streams) {
            round(stream, seed, 0);
        }
        thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(&streams)
                .map(|(seed, stream)| {
                    scope.spawn(move || (1..PIECES).for_each(|piece| round(stream, seed, piece)))
                })
                .collect();
            for reload in 1..=10 {
                for tunnel in [&server, &client] {
                    tunnel.signal(Signal::HUP);
                    tunnel.stderr.wait_for_count("reloaded; new connections use it", reload);
                }
            }
            for tunnel in [&server, &client] {
                tunnel.signal(Signal::TERM);
            }
            threads.into_iter().for_each(|thread| thread.join().expect("nothing is lost"));
        });
        // What comes after the word to end arrives, too.
        for (seed, stream) in (0..).zip(&streams) {
            round(stream, seed, PIECES);
            stream.shutdown(Shutdown::Write).expect("it is open");
            let mut stream = stream;
            assert_eq!(stream.read(&mut [0]).expect("an end, and no reset"), 0);
        }
        server.finish().succeeds();
        client.finish().succeeds();
    }
}

/// Sends a piece and compares what comes back.
fn round(stream: &TcpStream, seed: u32, piece: u32) {
    let sent = noise(seed * 1000 + piece, PIECE);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&sent).expect("it takes it");
        });
        let mut received = vec![0; PIECE];
        let mut stream = stream;
        stream.read_exact(&mut received).expect("it all comes back");
        assert!(received == sent, "stream {seed}, piece {piece}");
    });
}
