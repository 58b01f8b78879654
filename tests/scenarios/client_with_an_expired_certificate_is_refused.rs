//! An expired certificate of ours: import warns, selection passes it over, servers refuse it.

use crate::harness::{Elsewhere, Home, LONG_AGO, NOW, VERSIONS, needs};
use crate::peers::s_server;

#[test]
fn client_with_an_expired_certificate_is_refused() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let other = Elsewhere::new(&home, "other");
    home.request("old", "p256");
    other.sign("old", LONG_AGO);
    home.enclasp("identity import --name old --cert old.pem --cacert other-ca.pem")
        .succeeds()
        .says("warning: it expired at 2021-01-01T00:00:00Z");
    other.peer("srv", NOW);
    let (server, port) = s_server(&home, "srv", "other-ca.pem", "");
    for version in VERSIONS {
        home.enclasp(&format!("connect localhost:{port} --identity old --tls {version} -v"))
            .fails(1)
            .says("refused our certificate")
            .says("certificate_expired, 45")
            .says("hint: renew the certificate");
    }
    server.stderr.wait_for("certificate has expired");
    home.enclasp(&format!("connect localhost:{port} -v"))
        .fails(1)
        .says("`old` does not fit: it expired at 2021-01-01T00:00:00Z");
}
