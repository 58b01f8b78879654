//! Metrics go to a Graphite server as plain text, and to a URL as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::harness::Home;

#[test]
fn metrics_are_sent_to_where_they_are_collected() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (graphite, url) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().expect("its address").port();
    let (server, _) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:1 --identity srv --allow-all --metrics-interval 100ms \
         --metrics-graphite 127.0.0.1:{} --metrics-url http://127.0.0.1:{}/push?from=us",
        port(&graphite),
        port(&url)
    ));
    let (mut stream, _) = graphite.accept().expect("it connects");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    let line = text.lines().find(|line| line.starts_with("enclasp.accept.total ")).expect("a line");
    assert_eq!(line.split(' ').nth(1), Some("0"), "{line}");

    let (stream, _) = url.accept().expect("it connects");
    let (head, body) = request(&stream);
    assert!(head.starts_with("POST /push?from=us HTTP/1.1"), "{head}");
    let metrics: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(metrics[0]["metric"], "enclasp.accept.total");
    (&stream).write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").expect("it listens");
    server.stderr.wait_for("answers 500");
}

fn request(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "{head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).expect("a body");
    (head, body)
}
