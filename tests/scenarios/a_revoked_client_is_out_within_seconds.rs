//! Our authority revokes a client: by default settings, the tunnel refuses it at the next handshake and at a
//! resumed one, and with `--drop-revoked` ends the connection that it has open, within ten seconds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Backend, Home, VERSIONS, ask, eventually, needs};

#[test]
fn a_revoked_client_is_out_within_seconds() {
    if !needs(&["openssl"]) {
        return;
    }
    let (home, port, public) = Home::with_public_authority(2);
    let ca = home.serve("ca", port);
    ca.stderr.wait_for(&format!("CRLs and OCSP on {public}"));
    home.identity("srv", "p256", "server");
    let text = home.openssl("x509 -in srv.pem -noout -text").text();
    let url = text
        .split("URI:")
        .find_map(|rest| rest.split_whitespace().next().filter(|url| url.ends_with(".crl")));
    let url = url.unwrap_or_else(|| panic!("no list in {text}"));

    let echo = Backend::echo();
    for version in VERSIONS {
        let short = version.replace('.', "");
        let (name, other) = (format!("laptop-{short}"), format!("phone-{short}"));
        for name in [&name, &other] {
            home.identity(name, "p256", "client");
        }
        let server = |more: &str| {
            home.start_listening(&format!(
                "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --cacert ca/root.pem --allow-all --crl {url} {more}",
                echo.port
            ))
        };
        let (dropping, to_dropping) = server("--drop-revoked");
        let (_keeping, to_keeping) = server("");
        let client = |name: &str, to: u16| {
            home.start_listening(&format!(
                "client --listen 127.0.0.1:0 --target localhost:{to} --identity {name} --max-tls-version {version}"
            ))
        };
        let (_one, revoked) = client(&name, to_dropping);
        let (_two, kept) = client(&name, to_keeping);
        let (_three, innocent) = client(&other, to_dropping);
        let mut open = [revoked, kept, innocent].map(open);
        // Sessions are there to be resumed.
        assert_eq!(ask(revoked, "ping\n"), "ping\n");
        dropping.stderr.wait_for("resumed=true");

        home.enclasp(&format!("ca revoke --dir ca {name}")).succeeds();
        let since = Instant::now();
        eventually("the next handshake is refused, which would resume", || ask(revoked, "ping\n").is_empty());
        let refused = since.elapsed();
        let [open_revoked, open_kept, open_innocent] = &mut open;
        assert!(matches!(open_revoked.read(&mut [0]), Ok(0) | Err(_)), "the open one ends");
        eprintln!(
            "TLS {version}: refused after {refused:.1?}, open connection ended after {:.1?}",
            since.elapsed()
        );
        let line = dropping.stderr.wait_for("the client's certificate was revoked");
        assert!(line.contains(&format!("subject=\"CN={name},")), "{line}");
        eventually("the other tunnel refuses it, too", || ask(kept, "ping\n").is_empty());
        home.enclasp_with_input(
            &format!("connect localhost:{to_keeping} --identity {name} --tls {version}"),
            "ping\n",
        )
        .fails(1)
        .says("certificate_revoked");
        for stream in [open_kept, open_innocent] {
            echoes(stream);
        }
        assert_eq!(ask(innocent, "ping\n"), "ping\n");
    }
}

/// A connection that stays open.
fn open(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    echoes(&mut stream);
    stream
}

fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"still\n").expect("it is open");
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).expect("it is open");
    assert_eq!(&answer, b"still\n");
}
