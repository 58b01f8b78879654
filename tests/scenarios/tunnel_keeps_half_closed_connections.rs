//! The end of one direction is passed on, and the other direction goes on: through both tunnels.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::harness::{Backend, Home};

#[test]
fn tunnel_keeps_half_closed_connections() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::counts_until_the_end();
    let (_server, tls) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let (_client, plain) = home
        .start_listening(&format!("client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop"));
    let mut stream = TcpStream::connect(("127.0.0.1", plain)).expect("the tunnel listens");
    stream.write_all(&[7; 100_000]).expect("it takes it");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "100000 bytes");

    // `connect` does the same with its standard input.
    home.enclasp_with_input(&format!("connect localhost:{tls} --identity laptop"), [7; 70_000])
        .succeeds()
        .prints("70000 bytes");
}
