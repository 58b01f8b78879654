//! `enclasp server` refuses an expired certificate, and says when it expired.

use crate::harness::{Backend, Elsewhere, Home, LONG_AGO, VERSIONS, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn server_refuses_an_expired_client() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    let other = Elsewhere::new(&home, "other");
    other.peer("old", LONG_AGO);
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --cacert {} --allow-all",
        backend.port,
        other.root()
    ));
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let client = s_client(&home, port, "ca/root.pem", version, "-cert old.pem -key old.key");
        let done = run_with_input(client, b"ping\n");
        assert!(done.stderr.contains("alert certificate expired"), "{done}");
        let line = server.stderr.wait_for_count("2021-01-01T00:00:00Z", index + 1);
        assert!(line.contains("expired"), "{line}");
    }
    assert_eq!(backend.connections(), 0);
}
