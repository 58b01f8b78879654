//! A Java server with `needClientAuth` accepts ours, of keys in software, on a token and in a TPM: what the
//! story that Enclasp comes from was after.

use crate::harness::{Home, VERSIONS, needs};
use crate::peers::Java;

#[test]
fn java_server_accepts_our_client() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    let peers = ["srv-p256", "srv-p384", "srv-rsa"];
    for peer in peers {
        home.peer(peer, &peer[4..], "server");
    }
    let java = Java::server(&home, "ca/root.pem", &peers);
    let keystores = home.keystores();
    for client in keystores.iter().flat_map(|keystore| keystore.identities("client")) {
        let mut accepted = 0;
        for peer in peers {
            for version in VERSIONS {
                let port = java.port(peer, version);
                let line = format!("connect localhost:{port} --identity {client} --json");
                let done = home.enclasp_with_input(&line, "ping\n").succeeds();
                assert_eq!(done.text(), "java heard: ping\n", "{done}");
                assert_eq!(done.json_said()["version"], format!("TLSv{version}"));
                accepted += 1;
                let line = java.says(&format!("CN={client}, OU=Ops, O=Acme"), accepted);
                assert!(line.starts_with(&format!("accepted TLSv{version} TLS_")), "{line}");
            }
        }
    }
}
