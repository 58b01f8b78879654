//! `openssl s_server` that demands certificates accepts ours, with each type of key, in software, on a token
//! and in a TPM, and each version.

use crate::harness::{Home, VERSIONS, needs};
use crate::peers::s_server;

#[test]
fn openssl_server_accepts_our_client() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    let keystores = home.keystores();
    let clients: Vec<_> = keystores
        .iter()
        .flat_map(|keystore| keystore.algorithms().iter().map(move |algorithm| (keystore, *algorithm)))
        .collect();
    for (keystore, algorithm) in &clients {
        keystore.identity(&keystore.named(algorithm), algorithm, "client");
    }
    for server_algorithm in ["p256", "p384", "rsa"] {
        let peer = format!("srv-{server_algorithm}");
        home.peer(&peer, server_algorithm, "server");
        let (server, port) = s_server(&home, &peer, "ca/root.pem", "");
        let mut accepted = 0;
        for (keystore, algorithm) in &clients {
            let name = keystore.named(algorithm);
            for version in VERSIONS {
                let line = format!("connect localhost:{port} --identity {name} --tls {version} --json");
                let done = home.enclasp_with_input(&line, "ping\n").succeeds();
                assert_eq!(done.text(), "gnip\n", "{done}");
                let evidence = done.json_said();
                assert_eq!(evidence["version"], format!("TLSv{version}"));
                assert_eq!(evidence["client_certificate"], "sent");
                assert_eq!(evidence["local"]["key"], keystore.key(&name));
                assert_eq!(evidence["local"]["software"], false);
                accepted += 1;
                server.stderr.wait_for_count(&format!("CN = {name}"), accepted.min(1));
                server.stderr.wait_for_count("Verification: OK", accepted);
                let signature = evidence["signatures"]
                    .as_array()
                    .and_then(|all| all.iter().find(|signature| signature["by"] == "client"))
                    .unwrap_or_else(|| panic!("no signature of ours: {done}"))
                    .clone();
                assert_eq!(signature["message"], "CertificateVerify");
                let (scheme, code_point) = match *algorithm {
                    "p256" => ("ecdsa_secp256r1_sha256", "0x0403"),
                    "p384" => ("ecdsa_secp384r1_sha384", "0x0503"),
                    _ => ("ed25519", "0x0807"),
                };
                assert_eq!(signature["scheme"], scheme, "{done}");
                assert_eq!(signature["code_point"], code_point, "{done}");
            }
        }
    }
}
