//! `gnutls-cli` reaches the service behind `enclasp server`, whose key is in software, on a token or in
//! a TPM.

use crate::harness::{Backend, CURVES, Home, VERSIONS, needs, run_with_input};

#[test]
fn gnutls_client_is_served() {
    if !needs(&["openssl", "gnutls-cli"]) {
        return;
    }
    let home = Home::with_authority();
    for algorithm in CURVES {
        home.peer(algorithm, algorithm, "client");
    }
    let backend = Backend::one_line();
    let keystores = home.keystores();
    for (keystore, server_algorithm) in keystores.iter().flat_map(|one| CURVES.map(|curve| (one, curve))) {
        let name = keystore.named(server_algorithm);
        keystore.identity(&name, server_algorithm, "server");
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-all",
            backend.port
        ));
        for algorithm in CURVES {
            for version in VERSIONS {
                let client = home.program(
                    "gnutls-cli",
                    &format!(
                        "--x509cafile ca/root.pem --x509certfile {algorithm}.pem --x509keyfile {algorithm}.key \
                         --priority NORMAL:-VERS-ALL:+VERS-TLS{version} --port {port} localhost"
                    ),
                );
                run_with_input(client, b"ping\n")
                    .prints("The certificate is trusted")
                    .prints(&format!("(TLS{version}-"))
                    .prints("heard: ping");
                let line = server.stderr.wait_for(&format!("CN={algorithm}"));
                assert!(line.contains(&keystore.key(&name)), "{line}");
            }
        }
    }
}
