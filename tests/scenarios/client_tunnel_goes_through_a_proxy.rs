//! `--proxy`: by HTTP CONNECT or SOCKS5, which are given the server's name; a proxy that refuses is named
//! in the log.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use crate::harness::{Backend, Home, VERSIONS, ask};

#[test]
fn client_tunnel_goes_through_a_proxy() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let (_server, tls) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let http = proxy(move |stream| {
        let head = head(stream);
        assert!(head.starts_with(&format!("CONNECT localhost:{tls} HTTP/1.1\r\n")), "{head}");
        stream.write_all(b"HTTP/1.1 200 Here you are\r\nVia: us\r\n\r\n").expect("it is open");
        Some(tls)
    });
    let socks = proxy(move |stream| {
        assert_eq!(bytes(stream, 3), [5, 1, 0]);
        stream.write_all(&[5, 0]).expect("it is open");
        assert_eq!(bytes(stream, 5), [5, 1, 0, 3, 9]);
        assert_eq!(bytes(stream, 9), b"localhost");
        assert_eq!(bytes(stream, 2), tls.to_be_bytes());
        stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).expect("it is open");
        Some(tls)
    });
    for url in
        [format!("--proxy http://127.0.0.1:{http}"), format!("--connect-proxy socks5://127.0.0.1:{socks}")]
    {
        for version in VERSIONS {
            let (_client, plain) = home.start_listening(&format!(
                "client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop --max-tls-version {version} {url}"
            ));
            assert_eq!(ask(plain, "ping\n"), "heard: ping\n");
        }
    }
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let home = Home::with_authority();
    home.identity("laptop", "p256", "client");
    let http = proxy(|stream| {
        head(stream);
        stream.write_all(b"HTTP/1.1 407 Pay first\r\n\r\n").expect("it is open");
        None
    });
    let socks = proxy(|stream| {
        bytes(stream, 3);
        stream.write_all(&[5, 0]).expect("it is open");
        bytes(stream, 4 + 1 + 9 + 2);
        stream.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).expect("it is open");
        None
    });
    for (url, cause) in [
        (format!("http://127.0.0.1:{http}"), "it answers `HTTP/1.1 407 Pay first`"),
        (format!("socks5://127.0.0.1:{socks}"), "it does not allow that target"),
    ] {
        let (client, plain) = home.start_listening(&format!(
            "client --listen 127.0.0.1:0 --target localhost:1 --identity laptop --proxy {url}"
        ));
        assert_eq!(ask(plain, "ping\n"), "");
        let line = client.stderr.wait_for(cause);
        assert!(line.contains(&format!("cannot connect to localhost:1 through {url}")), "{line}");
    }
}

/// A proxy that agrees by `greet`, which says where it then leads.
fn proxy(greet: impl Fn(&mut TcpStream) -> Option<u16> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Some(to) = greet(&mut stream) else { continue };
            let target = TcpStream::connect(("127.0.0.1", to)).expect("it listens");
            for (mut from, mut to) in [(&stream, &target), (&target, &stream)]
                .map(|(from, to)| (from.try_clone().expect("a handle"), to.try_clone().expect("a handle")))
            {
                thread::spawn(move || {
                    // Either end may be gone first.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(bytes(stream, 1));
    }
    String::from_utf8(head).expect("text")
}

fn bytes(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("so many bytes");
    bytes
}
