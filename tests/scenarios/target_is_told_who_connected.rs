//! The PROXY protocol, version 2: before the client's bytes comes who sent them; with `tls` what the
//! handshake established, with `tls-full` the certificate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use crate::harness::{Home, VERSIONS};

/// The header's address block and its values, by type.
struct Header {
    family: u8,
    addresses: Vec<u8>,
    values: Vec<(u8, Vec<u8>)>,
}

impl Header {
    fn read(stream: &mut impl Read) -> Self {
        let mut start = [0; 16];
        stream.read_exact(&mut start).expect("a header");
        assert_eq!(&start[..12], b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(start[12], 0x21, "version 2, proxied");
        let mut body = vec![0; usize::from(start[14]) * 256 + usize::from(start[15])];
        stream.read_exact(&mut body).expect("all of it");
        let values = body.split_off(if start[13] == 0x11 { 12 } else { 0 });
        Self { family: start[13], addresses: body, values: values_of(&values) }
    }

    fn value(&self, kind: u8) -> Option<&[u8]> {
        find(&self.values, kind)
    }
}

fn values_of(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut values = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, rest) = rest.split_at(usize::from(*high) * 256 + usize::from(*low));
        values.push((*kind, value.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "nothing is left over");
    values
}

fn find(values: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
    values.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.as_slice())
}

#[test]
fn target_is_told_who_connected() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = listener.local_addr().expect("its address");
    let (heard, headers) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let header = Header::read(&mut stream);
            let mut line = [0; 5];
            stream.read_exact(&mut line).expect("the client's bytes");
            assert_eq!(&line, b"ping\n");
            stream.write_all(b"pong\n").expect("it is open");
            heard.send(header).expect("somebody looks");
        }
    });
    for (flags, tls, full) in [
        ("--proxy-protocol", false, false),
        ("--proxy-protocol --proxy-protocol-mode conn", false, false),
        ("--proxy-protocol --proxy-protocol-mode tls", true, false),
        ("--proxy-protocol-mode tls-full", true, true),
    ] {
        let (_server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target {target} --identity srv --allow-cn laptop {flags}"
        ));
        for version in VERSIONS {
            let line = format!("connect localhost:{port} --identity laptop --tls {version}");
            home.enclasp_with_input(&line, "ping\n").succeeds().prints("pong");
            let header = headers.recv().expect("a header");
            assert_eq!(header.family, 0x11, "TCP over IPv4");
            assert_eq!(header.addresses[..4], Ipv4Addr::LOCALHOST.octets());
            assert_eq!(header.addresses[4..8], Ipv4Addr::LOCALHOST.octets());
            assert_eq!(header.addresses[10..], port.to_be_bytes());
            assert_eq!(header.value(2), tls.then_some(&b"localhost"[..]), "the name that was asked for");
            let Some(ssl) = header.value(0x20) else {
                assert!(!tls);
                continue;
            };
            assert!(tls);
            assert_eq!(ssl[0], 1 | 2 | 4, "TLS, with a certificate");
            assert_eq!(ssl[1..5], [0; 4], "which verified");
            let values = values_of(&ssl[5..]);
            let expected = format!("TLSv{version}");
            assert_eq!(find(&values, 0x21), Some(expected.as_bytes()));
            assert_eq!(find(&values, 0x22), Some(&b"laptop"[..]));
            let suite = find(&values, 0x23).expect("a cipher suite");
            assert!(suite.starts_with(b"TLS_"), "{}", String::from_utf8_lossy(suite));
            let certificate = find(&values, 0x28);
            assert_eq!(certificate.is_some(), full);
            if let Some(der) = certificate {
                home.write("presented.der", der);
                home.openssl("x509 -inform DER -in presented.der -noout -subject").prints("CN = laptop");
            }
        }
    }
}
