//! A server whose certificate leads to a root that we do not trust gets no certificate of ours.

use crate::harness::{Elsewhere, Home, NOW, VERSIONS, needs};
use crate::peers::s_server;

#[test]
fn client_refuses_a_server_of_another_ca() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    Elsewhere::new(&home, "evil").peer("impostor", NOW);
    let (server, port) = s_server(&home, "impostor", "ca/root.pem", "");
    for version in VERSIONS {
        home.enclasp(&format!("connect localhost:{port} --identity web --tls {version}"))
            .fails(1)
            .says(&format!("the certificate of localhost:{port} (CN=impostor,O=Acme) is not valid"))
            .says("no trusted root vouches for CN=evil")
            .says("hint: give the root that issued it");
    }
    assert!(!server.stderr.text().contains("CN = web"), "{}", server.stderr.text());
}
