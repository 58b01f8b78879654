//! `enclasp server` refuses a certificate that leads to no root of its own, and says which CA it was.

use crate::harness::{Backend, Elsewhere, Home, NOW, VERSIONS, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn server_refuses_a_client_of_another_ca() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    Elsewhere::new(&home, "other").peer("stranger", NOW);
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let client = s_client(&home, port, "ca/root.pem", version, "-cert stranger.pem -key stranger.key");
        let done = run_with_input(client, b"ping\n");
        // The peer is told the kind of refusal, and no more.
        assert!(done.stderr.contains("alert unknown ca"), "{done}");
        let line = server.stderr.wait_for_count("no trusted root vouches for CN=other", index + 1);
        assert!(line.contains("CN=stranger"), "{line}");
    }
    assert_eq!(backend.connections(), 0);
}
