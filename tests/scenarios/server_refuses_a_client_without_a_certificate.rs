//! `enclasp server` lets nobody through to the service who presents no certificate.

use crate::harness::{Backend, Home, VERSIONS, needs, run_with_input};
use crate::peers::{JavaClient, s_client};

#[test]
fn openssl_client() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let done = run_with_input(s_client(&home, port, "ca/root.pem", version, ""), b"ping\n");
        assert!(!done.text().contains("heard"), "{done}");
        server.stderr.wait_for_count("presented no certificate", index + 1);
    }
    server.stderr.wait_for("the client has to present a certificate");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn java_client() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    let mut client = JavaClient::new(&home, "ca/root.pem");
    for version in VERSIONS {
        client.connect(port, version, None);
    }
    let done = client.run();
    for line in done.text().lines() {
        assert!(line.starts_with("failed ") || line.ends_with(" null"), "{done}");
    }
    assert_eq!(backend.connections(), 0);
}
