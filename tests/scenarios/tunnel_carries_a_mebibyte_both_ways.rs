//! What goes through both tunnels and comes back is what was sent, over many connections at once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::harness::{Backend, Home, noise};

const SIZE: usize = 1 << 20;

#[test]
fn tunnel_carries_a_mebibyte_both_ways() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p384", "client");
    let backend = Backend::echo();
    let (_server, tls) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let (_client, plain) = home
        .start_listening(&format!("client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop"));
    thread::scope(|scope| {
        for seed in 0..16 {
            scope.spawn(move || round_trip(plain, seed));
        }
    });
    assert_eq!(backend.connections(), 16);
}

fn round_trip(port: u16, seed: u32) {
    let sent = noise(seed, SIZE);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the tunnel listens");
    let mut reader = stream.try_clone().expect("a second handle");
    let received = thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).map(|_| received)
    });
    stream.write_all(&sent).expect("it takes it");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let received = received.join().expect("no panic").expect("it all comes back");
    assert!(received == sent, "connection {seed}: {} of {SIZE} bytes came back", received.len());
}
