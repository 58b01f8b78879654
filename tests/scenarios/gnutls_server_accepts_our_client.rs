//! `gnutls-serv` that demands and verifies certificates accepts ours.

use crate::harness::{ALGORITHMS, CURVES, Home, Running, VERSIONS, free_port, needs, wait_until_listening};

#[test]
fn gnutls_server_accepts_our_client() {
    if !needs(&["openssl", "gnutls-serv"]) {
        return;
    }
    let home = Home::with_authority();
    for algorithm in ALGORITHMS {
        home.identity(algorithm, algorithm, "client");
    }
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
        for algorithm in ALGORITHMS {
            for version in VERSIONS {
                let line = format!("connect localhost:{port} --identity {algorithm} --tls {version} --json");
                let done = home.enclasp_with_input(&line, "ping\n").succeeds();
                assert_eq!(done.text(), "ping\n", "{done}");
                assert_eq!(done.json_said()["version"], format!("TLSv{version}"));
            }
            server.stdout.wait_for(&format!("CN={algorithm}"));
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
