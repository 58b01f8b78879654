//! A server that demands a certificate refuses us without one, and we say what it wanted.

use crate::harness::{Home, VERSIONS, needs};
use crate::peers::{Java, Nginx, s_server};

#[test]
fn by_openssl() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let (server, port) = s_server(&home, "srv", "ca/root.pem", "");
    for version in VERSIONS {
        refused(&home, port, version);
    }
    server.stderr.wait_for("peer did not return a certificate");
}

#[test]
fn by_java() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let java = Java::server(&home, "ca/root.pem", &["srv"]);
    for (index, version) in VERSIONS.into_iter().enumerate() {
        refused(&home, java.port("srv", version), version);
        java.says("Empty client certificate chain", index + 1);
    }
}

/// nginx finishes the handshake and refuses in HTTP. How it closes then differs between versions.
#[test]
fn by_nginx() {
    if !needs(&["openssl", "nginx"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", "ca/root.pem");
    for version in VERSIONS {
        let line = format!(
            "connect localhost:{} --no-identity --cacert ca/root.pem --tls {version} --json",
            nginx.port
        );
        let done = home
            .enclasp_with_input(&line, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .prints("No required SSL certificate was sent");
        assert_eq!(done.json_said()["client_certificate"], "requested-not-sent");
    }
}

fn refused(home: &Home, port: u16, version: &str) {
    let line = format!("connect localhost:{port} --no-identity --cacert ca/root.pem --tls {version}");
    let done = home.enclasp_with_input(&line, "ping\n").fails(1).says("a client certificate").says("hint: ");
    assert!(done.stdout.is_empty(), "{done}");
    assert!(done.stderr.contains("--identity NAME"), "{done}");
}
