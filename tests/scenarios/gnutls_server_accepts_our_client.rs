//! `gnutls-serv` that demands and verifies certificates accepts ours, of keys in software, on a token and
//! in a TPM.

use crate::harness::{CURVES, Home, Running, VERSIONS, free_port, needs, wait_until_listening};

#[test]
fn gnutls_server_accepts_our_client() {
    if !needs(&["openssl", "gnutls-serv"]) {
        return;
    }
    let home = Home::with_authority();
    let keystores = home.keystores();
    let clients: Vec<String> = keystores.iter().flat_map(|keystore| keystore.identities("client")).collect();
    for server_algorithm in CURVES {
        let peer = format!("srv-{server_algorithm}");
        home.peer(&peer, server_algorithm, "server");
        let port = free_port();
        let server = Running::start(home.program(
            "gnutls-serv",
            &format!(
                "--echo --port {port} --x509certfile {peer}.pem --x509keyfile {peer}.key --x509cafile ca/root.pem \
                 --require-client-cert --verify-client-cert"
            ),
        ));
        wait_until_listening(port);
        for client in &clients {
            for version in VERSIONS {
                let line = format!("connect localhost:{port} --identity {client} --tls {version} --json");
                let done = home.enclasp_with_input(&line, "ping\n").succeeds();
                assert_eq!(done.text(), "ping\n", "{done}");
                assert_eq!(done.json_said()["version"], format!("TLSv{version}"));
            }
            server.stdout.wait_for(&format!("CN={client}"));
        }
    }
}

#[test]
fn and_refuses_us_without_a_certificate() {
    if !needs(&["openssl", "gnutls-serv"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let port = free_port();
    let _server = Running::start(home.program(
        "gnutls-serv",
        &format!(
            "--echo --port {port} --x509certfile srv.pem --x509keyfile srv.key --x509cafile ca/root.pem \
             --require-client-cert"
        ),
    ));
    wait_until_listening(port);
    for version in VERSIONS {
        let line = format!("connect localhost:{port} --no-identity --cacert ca/root.pem --tls {version}");
        let done = home.enclasp_with_input(&line, "ping\n").fails(1).says("a client certificate");
        assert!(done.stdout.is_empty(), "{done}");
    }
}
