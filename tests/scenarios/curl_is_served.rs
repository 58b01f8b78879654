//! curl with a client certificate talks HTTP to a service that knows nothing of TLS, behind a server whose
//! key is in software, on a token or in a TPM.

use crate::harness::{Backend, CURVES, Home, VERSIONS, needs, run};

#[test]
fn curl_is_served() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let home = Home::with_authority();
    for algorithm in CURVES {
        home.peer(algorithm, algorithm, "client");
    }
    let backend = Backend::http();
    // A body that takes many records, both ways.
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    home.write("body", &body);
    let mut connections = 0;
    for keystore in home.keystores() {
        let name = keystore.named("p256");
        keystore.identity(&name, "p256", "server");
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-cn p256 --allow-cn p384",
            backend.port
        ));
        let curl = |more: &str| {
            run(home.program("curl", &format!("-sS --cacert ca/root.pem {more} https://localhost:{port}/")))
        };
        curl("").fails_somehow();
        for algorithm in CURVES {
            for version in VERSIONS {
                curl(&format!(
                    "--cert {algorithm}.pem --key {algorithm}.key --tlsv{version} --tls-max {version}"
                ))
                .succeeds()
                .prints("hello from the backend");
            }
            server.stderr.wait_for(&format!("CN={algorithm}"));
        }
        let done = curl("--cert p256.pem --key p256.key --data-binary @body").succeeds();
        assert!(done.stdout == body, "{} bytes came back", done.stdout.len());
        connections += 5;
        assert_eq!(backend.connections(), connections);
    }
}
