//! nginx serves with the key of an identity: it loads the key as root, forks, and signs in the worker.

use crate::harness::{ENGINE, Home, VERSIONS, needs};
use crate::peers::Nginx;

#[test]
fn module_serves_nginx() {
    if !needs(&["openssl", "nginx", ENGINE]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let key = "engine:pkcs11:pkcs11:object=srv;type=private";
    let nginx = Nginx::start_with(&home, home.host("nginx", ""), "srv", key, "ca/root.pem");
    for version in VERSIONS {
        let line = format!("connect localhost:{} --identity laptop --tls {version}", nginx.port);
        home.enclasp_with_input(&line, "GET / HTTP/1.0\r\n\r\n")
            .succeeds()
            .prints("nginx saw CN=laptop,")
            .prints(&format!("over TLSv{version}"));
    }
    // The worker's own connection to the agent outlives no agent.
    home.kill_agent();
    home.enclasp("key list").succeeds();
    let line = format!("connect localhost:{} --identity laptop", nginx.port);
    home.enclasp_with_input(&line, "GET / HTTP/1.0\r\n\r\n").succeeds().prints("nginx saw CN=laptop,");
}
