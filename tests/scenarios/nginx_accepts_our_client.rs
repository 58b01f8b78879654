//! nginx that demands client certificates accepts ours, of keys in software, on a token and in a TPM, and
//! sees whose it is.

use crate::harness::{CURVES, Home, VERSIONS, eventually, needs};
use crate::peers::Nginx;

#[test]
fn nginx_accepts_our_client() {
    if !needs(&["openssl", "nginx"]) {
        return;
    }
    let home = Home::with_authority();
    let keystores = home.keystores();
    let clients: Vec<String> = keystores.iter().flat_map(|keystore| keystore.identities("client")).collect();
    for server_algorithm in CURVES {
        let peer = format!("srv-{server_algorithm}");
        home.peer(&peer, server_algorithm, "server");
        let nginx = Nginx::start(&home, &peer, "ca/root.pem");
        for client in &clients {
            for version in VERSIONS {
                home.enclasp_with_input(
                    &format!("connect localhost:{} --identity {client} --tls {version}", nginx.port),
                    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                )
                .succeeds()
                .prints("HTTP/1.1 200 OK")
                .prints(&format!("nginx saw CN={client},OU=Ops,O=Acme over TLSv{version}"));
                let logged = format!("SUCCESS TLSv{version} CN={client},OU=Ops,O=Acme 200");
                eventually("nginx logs it", || {
                    String::from_utf8_lossy(&home.read("access.log")).contains(&logged)
                });
            }
        }
    }
}
