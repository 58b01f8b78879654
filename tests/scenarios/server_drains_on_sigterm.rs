//! SIGTERM: nobody new gets in, what is open goes on to its end, and then the server is gone.

use std::net::TcpStream;

use rustix::process::Signal;

use crate::harness::{Backend, Home, eventually};

#[test]
fn server_drains_on_sigterm() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::echo();
    let (mut server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let mut client = home.start(&format!("connect localhost:{port} --identity laptop"));
    client.send(b"before\n");
    client.stdout.wait_for("before\n");
    server.signal(Signal::TERM);
    eventually("nobody listens any more", || TcpStream::connect(("127.0.0.1", port)).is_err());
    client.send(b"after\n");
    client.stdout.wait_for("after\n");
    assert!(server.is_running(), "it waits for the connection");
    client.finish().succeeds();
    server.finish().succeeds();
}

#[test]
fn and_does_not_wait_for_ever() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::echo();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop --shutdown-timeout 1s",
        backend.port
    ));
    let mut client = home.start(&format!("connect localhost:{port} --identity laptop"));
    client.send(b"hello\n");
    client.stdout.wait_for("hello\n");
    server.signal(Signal::TERM);
    server.finish().succeeds().says("ending connections that are still open");
}
