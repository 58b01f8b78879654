//! curl and `openssl s_client`, by OpenSSL's engine for PKCS#11, authenticate with key and certificate
//! of an identity.

use crate::harness::{CURVES, ENGINE, Home, VERSIONS, needs, run, run_with_input};
use crate::peers::Nginx;

#[test]
fn module_serves_curl() {
    if !needs(&["openssl", "curl", "nginx", ENGINE]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", home.trusted());
    for algorithm in CURVES {
        home.identity(algorithm, algorithm, "client");
    }
    // Its type is one that the engine does not know.
    home.identity("ed25519", "ed25519", "client");
    let curl = |identity: &str, version: &str| {
        let ours = format!(
            "--engine pkcs11 --key-type ENG --key pkcs11:object={identity};type=private \
             --cert-type ENG --cert pkcs11:object={identity};type=cert"
        );
        let url = format!("https://localhost:{}/", nginx.port);
        let line = format!("-sS --cacert ca/root.pem --tlsv{version} --tls-max {version} {ours} {url}");
        run(home.host("curl", &line))
    };
    for algorithm in CURVES {
        for version in VERSIONS {
            curl(algorithm, version)
                .succeeds()
                .prints(&format!("nginx saw CN={algorithm},"))
                .prints(&format!("over TLSv{version}"));
        }
    }
    home.enclasp("identity delete p256").succeeds();
    curl("p256", "1.3").fails_somehow().says("was not found");
    assert!(!home.path("pkcs11.log").exists(), "{}", String::from_utf8_lossy(&home.read("pkcs11.log")));
}

#[test]
fn module_serves_openssl() {
    if !needs(&["openssl", "nginx", ENGINE]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", "ca/root.pem");
    home.identity("web", "p256", "client");
    for version in VERSIONS {
        let line = format!(
            "s_client -connect 127.0.0.1:{} -CAfile ca/root.pem -verify_return_error -brief -ign_eof -tls{} \
             -engine pkcs11 -keyform engine -key pkcs11:object=web;type=private -cert web.pem -cert_chain web.pem",
            nginx.port,
            version.replace('.', "_")
        );
        run_with_input(home.host("openssl", &line), b"GET / HTTP/1.0\r\n\r\n")
            .succeeds()
            .prints("nginx saw CN=web,")
            .prints(&format!("over TLSv{version}"));
    }
}
