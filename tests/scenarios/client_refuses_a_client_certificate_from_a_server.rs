//! A certificate for clients does not make a server.

use crate::harness::{Home, needs};
use crate::peers::s_server;

#[test]
fn client_refuses_a_client_certificate_from_a_server() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.peer("laptop", "p256", "client");
    let (_server, port) = s_server(&home, "laptop", "ca/root.pem", "");
    home.enclasp(&format!("connect localhost:{port} --identity web"))
        .fails(1)
        .says("its extended key usages do not allow this use")
        .says("hint: a client needs clientAuth, a server serverAuth");
}
