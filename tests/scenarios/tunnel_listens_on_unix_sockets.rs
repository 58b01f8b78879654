//! Both tunnels with Unix sockets on their plain sides: only who may open the file gets in.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use rustix::process::Signal;

use crate::harness::{Home, VERSIONS, eventually, noise};

#[test]
fn tunnel_listens_on_unix_sockets() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let service = UnixListener::bind(home.path("service.sock")).expect("a socket");
    thread::spawn(move || {
        for mut stream in service.incoming().map_while(Result::ok) {
            let mut heard = String::new();
            stream.read_to_string(&mut heard).expect("text");
            write!(stream, "heard {heard}").expect("it is open");
        }
    });
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target unix:{} --identity srv --allow-cn laptop",
        home.path("service.sock").display()
    ));
    let socket = home.path("client.sock");
    let client = home.start(&format!(
        "client --listen unix:{} --target localhost:{port} --identity laptop",
        socket.display()
    ));
    client.stderr.wait_for("listening on unix:");
    let mut stream = UnixStream::connect(&socket).expect("the tunnel listens");
    stream.write_all(b"hello").expect("it takes it");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "heard hello");
    drop(client);
    eventually("the socket is removed", || !socket.exists());
}

/// Every hop is a Unix socket, and what is under way when all are told to end arrives.
#[test]
fn tunnels_drain_over_unix_sockets() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let at = |name: &str| format!("unix:{}", home.path(name).display());
    let service = UnixListener::bind(home.path("service.sock")).expect("a socket");
    thread::spawn(move || {
        for mut stream in service.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a handle");
                // Either end may be gone first.
                let _ = std::io::copy(&mut reader, &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    for version in VERSIONS {
        let server = home.start(&format!(
            "server --listen {} --target {} --identity srv --allow-cn laptop --max-tls-version {version}",
            at("server.sock"),
            at("service.sock")
        ));
        let client = home.start(&format!(
            "client --listen {} --target {} --identity laptop --override-server-name localhost",
            at("client.sock"),
            at("server.sock")
        ));
        for tunnel in [&server, &client] {
            tunnel.stderr.wait_for("listening on unix:");
        }
        let stream = UnixStream::connect(home.path("client.sock")).expect("the tunnel listens");
        let round = |seed: u32| {
            let sent = noise(seed, 256 * 1024);
            thread::scope(|scope| {
                scope.spawn(|| (&stream).write_all(&sent).expect("it is open"));
                let mut back = vec![0; sent.len()];
                (&stream).read_exact(&mut back).expect("it comes back");
                assert!(back == sent, "what comes back is what was sent");
            });
        };
        round(1);
        for tunnel in [&client, &server] {
            tunnel.signal(Signal::TERM);
        }
        eventually("nobody new gets in", || {
            ["client.sock", "server.sock"].iter().all(|name| UnixStream::connect(home.path(name)).is_err())
        });
        round(2);
        stream.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!((&stream).read(&mut [0]).expect("an end, and no reset"), 0);
        for tunnel in [client, server] {
            tunnel.finish().succeeds();
        }
    }
}
