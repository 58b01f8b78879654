//! Peers that send rubbish, and peers that send nothing, hold up nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Backend, Home};

#[test]
fn server_is_not_disturbed_by_garbage_and_silence() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::echo();
    // The server inherits this.
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).expect("as many as allowed");
    let (mut server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    // Far more than may be in their handshake at once.
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let silent: Vec<TcpStream> = (0..1000).map(|_| connect()).collect();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[0xff; 4096],
        // A record that promises more than there is, and one with half of a ClientHello.
        &[22, 3, 1, 0x40, 0, 1],
        &[22, 3, 1, 0, 6, 1, 0, 0x3f, 0xff, 3, 3],
        &[21, 3, 3, 0, 2, 2, 40],
    ] {
        let mut stream = connect();
        // It may close before it has read everything.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        let line = format!("connect localhost:{port} --identity laptop");
        let done = home.enclasp_with_input(&line, "still there?").succeeds();
        assert_eq!(done.text(), "still there?");
    }
    assert!(server.is_running());
    drop(silent);
    assert_eq!(backend.connections(), 6);
}
