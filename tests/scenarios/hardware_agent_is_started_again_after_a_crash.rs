//! The agent of a PKCS#11 module or a TPM killed with -9, as a crash of the module would: it takes no
//! software key with it, and a server that runs meanwhile goes on with the next one.

use crate::harness::{Backend, Home, needs, run_with_input};
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
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-all",
            backend.port
        ));
        // Without a resource manager a TPM keeps what a killed agent had loaded, and has three slots.
        let crashes = if name == "swtpm" { 1 } else { 3 };
        for _ in 0..crashes {
            hardware.kill_agent();
            let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
            let client = s_client(&home, port, "ca/root.pem", "1.3", certificate);
            let done = run_with_input(client, b"ping\n");
            assert!(done.text().contains("heard: ping"), "{done}\nserver: {}", server.stderr.text());
        }
    }
    assert_eq!(home.enclasp("agent --status --json").succeeds().json()["pid"], of_software["pid"]);
}
