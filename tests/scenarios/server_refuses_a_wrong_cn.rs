//! Of two certificates of the same CA, only the one that a rule names gets through.

use crate::harness::{Backend, Home, VERSIONS, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn server_refuses_a_wrong_cn() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.peer("laptop-17", "p256", "client");
    home.peer("laptop-18", "p256", "client");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop-17",
        backend.port
    ));
    let connect = |name: &str, version: &str| {
        let certificate = format!("-cert {name}.pem -cert_chain {name}.pem -key {name}.key");
        run_with_input(s_client(&home, port, "ca/root.pem", version, &certificate), b"ping\n")
    };
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let done = connect("laptop-18", version);
        assert!(done.stderr.contains("alert access denied"), "{done}");
        server.stderr.wait_for_count("CN=laptop-18 is not among the allowed CNs (laptop-17)", index + 1);
    }
    assert_eq!(backend.connections(), 0);
    for version in VERSIONS {
        connect("laptop-17", version).prints("heard: ping");
    }
}

#[test]
fn without_a_rule_it_does_not_start() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.enclasp("server --listen 127.0.0.1:0 --target 127.0.0.1:1 --identity srv")
        .fails(2)
        .says("error: nobody is admitted: no access rule is given")
        .says("--allow-cn NAME");
}
