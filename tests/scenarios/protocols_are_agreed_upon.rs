//! ALPN: the protocol that both ends know is agreed upon; without one there is no connection.

use crate::harness::{Home, VERSIONS, needs};
use crate::peers::s_server;

#[test]
fn protocols_are_agreed_upon() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.peer("srv", "p256", "server");
    let (_server, port) = s_server(&home, "srv", "ca/root.pem", "-alpn postgresql,http/1.1");
    for version in VERSIONS {
        let line = format!("connect localhost:{port} --identity web --tls {version} --json");
        home.enclasp(&format!("{line} --alpn h2"))
            .fails(1)
            .says("no_application_protocol, 120")
            .says("hint: offer another protocol");
        let done = home
            .enclasp_with_input(&format!("{line} --alpn h2 --alpn http/1.1"), "ping\n")
            .succeeds()
            .prints("gnip");
        assert_eq!(done.json_said()["alpn"], "http/1.1");
        let done = home.enclasp_with_input(&line, "ping\n").succeeds().prints("gnip");
        assert_eq!(done.json_said()["alpn"], serde_json::Value::Null);
    }
}
