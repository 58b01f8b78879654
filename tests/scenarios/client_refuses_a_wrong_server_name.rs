//! A certificate of the right CA for another host is refused, and the names that it has are named.

use crate::harness::{Home, VERSIONS, needs};
use crate::peers::s_server;

#[test]
fn client_refuses_a_wrong_server_name() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.peer("srv", "p256", "server");
    let (_server, port) = s_server(&home, "srv", "ca/root.pem", "");
    for version in VERSIONS {
        home.enclasp(&format!(
            "connect localhost:{port} --identity web --server-name db.internal --tls {version}"
        ))
        .fails(1)
        .says("it is not for this name, but for dns:localhost, ip:127.0.0.1")
        .says("hint: connect by a name that the certificate has");
        // The right name at whatever address, and an address that the certificate has.
        for by_name in ["--server-name localhost", "--server-name 127.0.0.1", ""] {
            let line = format!("connect 127.0.0.1:{port} --identity web --tls {version} {by_name}");
            home.enclasp_with_input(&line, "ping\n").succeeds().prints("gnip");
        }
    }
}
