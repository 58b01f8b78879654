//! Keys on a PKCS#11 token and in a TPM, as client and as server, against OpenSSL, in each version.

use crate::harness::{Backend, Home, VERSIONS, needs, run_with_input};
use crate::peers::{s_client, s_server};

#[test]
fn hardware_clients_are_accepted() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    for hardware in home.hardware() {
        for algorithm in ["p256", "p384", "rsa"] {
            let name = format!("{}-{algorithm}", hardware.name());
            hardware.identity(&name, algorithm, "client");
            let (server, port) = s_server(&home, "srv", "ca/root.pem", "");
            for version in VERSIONS {
                let line = format!("connect localhost:{port} --identity {name} --tls {version} --json");
                let done = home.enclasp_with_input(&line, "ping\n").succeeds();
                assert_eq!(done.text(), "gnip\n", "{done}");
                let evidence = done.json_said();
                assert_eq!(evidence["version"], format!("TLSv{version}"));
                assert_eq!(evidence["local"]["key"], hardware.key(&name));
                assert_eq!(evidence["local"]["software"], false);
                server.stderr.wait_for(&format!("CN = {name}"));
            }
        }
    }
}

#[test]
fn hardware_servers_are_accepted() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("laptop", "p256", "client");
    let backend = Backend::one_line();
    for hardware in home.hardware() {
        for algorithm in ["p256", "rsa"] {
            let name = format!("{}-{algorithm}", hardware.name());
            hardware.identity(&name, algorithm, "server");
            let (_server, port) = home.start_listening(&format!(
                "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-cn laptop",
                backend.port
            ));
            for version in VERSIONS {
                let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
                run_with_input(s_client(&home, port, "ca/root.pem", version, certificate), b"ping\n")
                    .succeeds()
                    .says(&format!("Protocol version: TLSv{version}"))
                    .says("Verification: OK")
                    .prints("heard: ping");
            }
        }
    }
}
