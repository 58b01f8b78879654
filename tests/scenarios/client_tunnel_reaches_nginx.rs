//! A plain curl reaches an nginx that demands client certificates through `enclasp client`, whose key is in
//! software, on a token or in a TPM.

use crate::harness::{CURVES, Home, needs, run};
use crate::peers::Nginx;

#[test]
fn client_tunnel_reaches_nginx() {
    if !needs(&["openssl", "curl", "nginx"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", "ca/root.pem");
    let keystores = home.keystores();
    for (keystore, algorithm) in keystores.iter().flat_map(|one| CURVES.map(|curve| (one, curve))) {
        let name = keystore.named(algorithm);
        keystore.identity(&name, algorithm, "client");
        let (tunnel, port) = home.start_listening(&format!(
            "client --listen 127.0.0.1:0 --target localhost:{} --identity {name}",
            nginx.port
        ));
        run(home.program("curl", &format!("-sS http://127.0.0.1:{port}/")))
            .succeeds()
            .prints(&format!("nginx saw CN={name},OU=Ops,O=Acme over TLSv1.3"));
        let line = tunnel.stderr.wait_for("CN=srv");
        assert!(line.contains(&keystore.key(&name)), "{line}");
    }
}
