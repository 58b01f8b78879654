//! The agent killed with -9: its keys are there, the next command starts another, and nothing that
//! it left behind stands in the way.

use crate::harness::{Backend, Home, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn agent_is_started_again_after_a_crash() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.peer("laptop", "p256", "client");
    let before = home.enclasp("key show soft:name=srv").succeeds().text();
    let first = home.enclasp("agent --status --json").succeeds().json();
    home.kill_agent();
    assert!(home.path("state/run/agent.sock").exists(), "a crash leaves the socket");
    assert_eq!(home.enclasp("key show soft:name=srv").succeeds().text(), before);
    let second = home.enclasp("agent --status --json").succeeds().json();
    assert_ne!(first["pid"], second["pid"]);

    // A server that runs meanwhile goes on with the next agent.
    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    for _ in 0..3 {
        let client = s_client(
            &home,
            port,
            "ca/root.pem",
            "1.3",
            "-cert laptop.pem -key laptop.key -cert_chain laptop.pem",
        );
        run_with_input(client, b"ping\n").prints("heard: ping");
        home.kill_agent();
    }
}

#[test]
fn only_one_serves_the_keys() {
    let home = Home::new();
    home.enclasp("key create soft:name=web").succeeds();
    assert_eq!(home.agents().len(), 1);
    home.enclasp("agent").fails(1).says("already serves the keys").says("hint: use that agent");
    assert_eq!(home.agents().len(), 1);
}
