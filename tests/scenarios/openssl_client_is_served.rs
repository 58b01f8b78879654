//! `openssl s_client` reaches the service behind `enclasp server`, with each type of key, in software, on a
//! token and in a TPM, and each version.

use crate::harness::{Backend, Home, VERSIONS, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn openssl_client_is_served() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    for peer in ["p256", "p384", "ed25519", "rsa"] {
        home.peer(peer, peer, "client");
    }
    let backend = Backend::one_line();
    let keystores = home.keystores();
    for name in keystores.iter().flat_map(|keystore| keystore.identities("server")) {
        let key = home.enclasp(&format!("identity show {name} --json")).succeeds().json()["key"].clone();
        let key = key.as_str().expect("a URI");
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-ou Ops --allow-dns localhost",
            backend.port
        ));
        for peer in ["p256", "p384", "ed25519", "rsa"] {
            for version in VERSIONS {
                let certificate = format!("-cert {peer}.pem -cert_chain {peer}.pem -key {peer}.key");
                run_with_input(s_client(&home, port, "ca/root.pem", version, &certificate), b"ping\n")
                    .succeeds()
                    .says(&format!("Protocol version: TLSv{version}"))
                    .says("Verification: OK")
                    .prints("heard: ping");
                let line = server.stderr.wait_for(&format!("CN={peer}"));
                assert!(line.contains(key), "{line}");
            }
        }
    }
}
