//! A server does not trust the CA of our certificate; we pass on what its alert means.

use crate::harness::{Elsewhere, Home, NOW, VERSIONS, needs};
use crate::peers::{Java, s_server};

#[test]
fn by_openssl() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    Elsewhere::new(&home, "other").identity("stranger", NOW);
    home.peer("srv", "p256", "server");
    let (server, port) = s_server(&home, "srv", "ca/root.pem", "");
    for version in VERSIONS {
        home.enclasp(&format!(
            "connect localhost:{port} --identity stranger --cacert ca/root.pem --tls {version} -v"
        ))
        .fails(1)
        .says("refused our certificate")
        .says("unknown_ca, 48")
        .says("import the whole chain, or add our root to what the peer trusts");
    }
    server.stderr.wait_for("unable to get local issuer certificate");
}

#[test]
fn by_java() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    Elsewhere::new(&home, "other").identity("stranger", NOW);
    home.peer("srv", "p256", "server");
    let java = Java::server(&home, "ca/root.pem", &["srv"]);
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let port = java.port("srv", version);
        home.enclasp(&format!(
            "connect localhost:{port} --identity stranger --cacert ca/root.pem --tls {version} -v"
        ))
        .fails(1)
        .says("refused our certificate")
        .says("certificate_unknown, 46")
        .says("Java answers so for a CA that its trust store lacks");
        java.says("unable to find valid certification path", index + 1);
    }
}
