//! The agent of a PKCS#11 module or a TPM killed with -9, as a crash of the module would: it takes no
//! software key with it, and a server that runs meanwhile goes on with the next one, which the
//! server's supervisor starts.

use rustix::process::{Signal, kill_process};

use crate::harness::{Backend, Done, Home, Running, eventually, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn hardware_agent_is_started_again_after_a_crash() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("laptop", "p256", "client");
    let backend = Backend::one_line();
    let of_software = home.enclasp("agent --status --json").succeeds().json();
    for hardware in home.hardware() {
        let name = hardware.name();
        hardware.identity(name, "p256", "server");
        let (server, port) = serve(&home, name, backend.port);
        // Without a resource manager a TPM keeps what a killed agent had loaded, and has three slots.
        let crashes = if name == "swtpm" { 1 } else { 3 };
        for crash in 1..=crashes {
            hardware.kill_agent();
            let done = ping(&home, port);
            assert!(done.text().contains("heard: ping"), "{done}\nserver: {}", server.stderr.text());
            // The first was started by another program.
            let logged = server.stderr.wait_for_count("was started", crash);
            assert!(crash == 1 || logged.contains("before=\"signal: 9 (SIGKILL)\""), "{logged}");
        }
        let children = server.children();
        assert_eq!(children.len(), 1, "the supervisor alone: {children:?}");
    }
    assert_eq!(home.enclasp("agent --status --json").succeeds().json()["pid"], of_software["pid"]);
}

/// What the supervisor cannot do any more is an error of the connections that need it.
#[test]
fn a_server_outlives_its_supervisor() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("laptop", "p256", "client");
    let Some(token) = home.softhsm() else { return };
    token.identity("srv", "p256", "server");
    let backend = Backend::one_line();
    let (server, port) = serve(&home, "srv", backend.port);
    let children = server.children();
    assert_eq!(children.len(), 1, "{children:?}");
    kill_process(children[0], Signal::KILL).expect("it is ours");
    eventually("the supervisor is gone", || server.children().is_empty());
    ping(&home, port).prints("heard: ping");
    token.kill_agent();
    let done = ping(&home, port);
    assert!(!done.text().contains("heard"), "{done}");
    let refused = server.stderr.wait_for("refused");
    assert!(
        refused.contains("the supervisor of agent `pkcs11-") && refused.contains("has ended"),
        "{refused}"
    );
    // Whoever else starts one serves this server, too.
    token.identity("other", "p256", "client");
    ping(&home, port).prints("heard: ping");
}

fn serve(home: &Home, identity: &str, target: u16) -> (Running, u16) {
    home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{target} --identity {identity} --allow-all"
    ))
}

fn ping(home: &Home, port: u16) -> Done {
    let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
    run_with_input(s_client(home, port, "ca/root.pem", "1.3", certificate), b"ping\n")
}
