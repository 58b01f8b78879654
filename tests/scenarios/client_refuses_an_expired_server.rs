//! An expired server certificate is refused, with the time at which it expired.

use crate::harness::{Elsewhere, Home, LONG_AGO, needs};
use crate::peers::s_server;

#[test]
fn client_refuses_an_expired_server() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    let other = Elsewhere::new(&home, "old");
    other.peer("srv", LONG_AGO);
    let (_server, port) = s_server(&home, "srv", "ca/root.pem", "");
    home.enclasp(&format!("connect localhost:{port} --identity web --cacert {}", other.root()))
        .fails(1)
        .says("expired")
        .says("2021-01-01T00:00:00Z")
        .says("hint: the peer has to renew it");
}
