//! A Java client with a PKCS#12 store reaches the service behind `enclasp server`, whose key is in
//! software, on a token or in a TPM.

use crate::harness::{Backend, CURVES, Home, VERSIONS, needs};
use crate::peers::JavaClient;

#[test]
fn java_client_is_served() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    let peers = ["p256", "p384", "rsa"];
    for peer in peers {
        home.peer(peer, peer, "client");
    }
    let backend = Backend::one_line();
    let mut servers = Vec::new();
    let mut client = JavaClient::new(&home, "ca/root.pem");
    let mut expected = Vec::new();
    let keystores = home.keystores();
    for name in keystores.iter().flat_map(|keystore| keystore.identities("server")) {
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-cn p256 --allow-cn p384 --allow-cn rsa",
            backend.port
        ));
        for peer in peers {
            for version in VERSIONS {
                client.connect(port, version, Some(peer));
                expected.push(format!(
                    "connected TLSv{version} CN={name}, OU=Ops, O=Acme heard: hello from java"
                ));
            }
        }
        servers.push(server);
    }
    let done = client.run();
    assert_eq!(done.text().lines().collect::<Vec<_>>(), expected, "{done}");
    for server in &servers {
        for peer in CURVES {
            server.stderr.wait_for_count(&format!("CN={peer}"), VERSIONS.len());
        }
    }
}

#[test]
fn and_refused_with_another_name() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("laptop-18", "p256", "client");
    home.identity("srv", "p256", "server");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop-17",
        backend.port
    ));
    let mut client = JavaClient::new(&home, "ca/root.pem");
    client.connect(port, "1.2", Some("laptop-18"));
    client.connect(port, "1.3", Some("laptop-18"));
    let done = client.run();
    assert_eq!(done.text().lines().filter(|line| line.contains("access_denied")).count(), 2, "{done}");
    server.stderr.wait_for_count("CN=laptop-18 is not among the allowed CNs (laptop-17)", 2);
    assert_eq!(backend.connections(), 0);
}
