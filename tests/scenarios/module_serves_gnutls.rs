//! GnuTLS authenticates with key and certificate of an identity, as client and as server.

use crate::harness::{
    ALGORITHMS, Home, Running, VERSIONS, free_port, module, needs, run_with_input, wait_until_listening,
};
use crate::peers::Nginx;

#[test]
fn module_serves_gnutls_clients() {
    if !needs(&["openssl", "nginx", "gnutls-cli"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", home.trusted());
    for algorithm in ALGORITHMS {
        home.identity(algorithm, algorithm, "client");
        // GnuTLS looks in the first token that a URI fits, and in no other.
        let key = match algorithm {
            "ed25519" => "pkcs11:token=Enclasp%20Ed25519;object=ed25519".to_owned(),
            _ => format!("pkcs11:object={algorithm}"),
        };
        for version in VERSIONS {
            let line = format!(
                "--provider {} --x509cafile ca/root.pem --x509keyfile {key};type=private \
                 --x509certfile {key};type=cert --priority NORMAL:-VERS-ALL:+VERS-TLS{version} \
                 -p {} localhost",
                module().display(),
                nginx.port
            );
            run_with_input(home.host("gnutls-cli", &line), b"GET / HTTP/1.0\r\n\r\n")
                .prints(&format!("nginx saw CN={algorithm},"))
                .prints(&format!("over TLSv{version}"));
        }
    }
}

/// It sends the certificate alone, so that the client has to know the issuing one.
#[test]
fn module_serves_gnutls_servers() {
    if !needs(&["openssl", "gnutls-serv"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let port = free_port();
    let line = format!(
        "--echo --port {port} --provider {} --x509keyfile pkcs11:object=srv;type=private \
         --x509certfile pkcs11:object=srv;type=cert --x509cafile ca/root.pem --require-client-cert --verify-client-cert",
        module().display()
    );
    let server = Running::start(home.host("gnutls-serv", &line));
    wait_until_listening(port);
    for version in VERSIONS {
        let line = format!(
            "connect localhost:{port} --identity laptop --cacert ca/issuing.pem --tls {version} --json"
        );
        let done = home.enclasp_with_input(&line, "ping\n").succeeds();
        assert_eq!(done.text(), "ping\n", "{done}");
        assert_eq!(done.json_said()["version"], format!("TLSv{version}"));
    }
    server.stdout.wait_for("CN=laptop");
}
