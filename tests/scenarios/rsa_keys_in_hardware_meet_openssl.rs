//! RSA keys, which only hardware makes, as client and as server, against OpenSSL, in each version.

use crate::harness::{Backend, Home, VERSIONS, needs, run_with_input};
use crate::peers::{s_client, s_server};

#[test]
fn rsa_keys_in_hardware_meet_openssl() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.peer("laptop", "p256", "client");
    let backend = Backend::one_line();
    let (theirs, their_port) = s_server(&home, "srv", "ca/root.pem", "");
    for hardware in home.hardware() {
        let (client, server) = (hardware.named("client"), hardware.named("server"));
        hardware.identity(&client, "rsa", "client");
        hardware.identity(&server, "rsa", "server");
        let (_ours, our_port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {server} --allow-cn laptop",
            backend.port
        ));
        for version in VERSIONS {
            let line = format!("connect localhost:{their_port} --identity {client} --tls {version} --json");
            let done = home.enclasp_with_input(&line, "ping\n").succeeds();
            assert_eq!(done.text(), "gnip\n", "{done}");
            let evidence = done.json_said();
            assert_eq!(evidence["version"], format!("TLSv{version}"));
            assert_eq!(evidence["local"]["key"], hardware.key(&client));
            theirs.stderr.wait_for(&format!("CN = {client}"));

            let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
            run_with_input(s_client(&home, our_port, "ca/root.pem", version, certificate), b"ping\n")
                .succeeds()
                .says(&format!("Protocol version: TLSv{version}"))
                .says("Verification: OK")
                .prints("heard: ping");
        }
    }
}
