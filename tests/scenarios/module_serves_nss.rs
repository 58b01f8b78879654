//! NSS, the library of Firefox, authenticates with key and certificate of an identity.

use crate::harness::{CURVES, Home, Running, VERSIONS, module, needs, run};
use crate::peers::Nginx;

#[test]
fn module_serves_nss() {
    if !needs(&["openssl", "nginx", "certutil", "modutil", "tstclnt"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let nginx = Nginx::start(&home, "srv", home.trusted());
    std::fs::create_dir(home.path("nss")).expect("a folder");
    run(home.program("certutil", "-N -d sql:nss --empty-password")).succeeds();
    run(home.program("certutil", "-A -d sql:nss -n acme -t CT,, -i ca/root.pem")).succeeds();
    let add = format!("-dbdir sql:nss -add enclasp -libfile {} -force", module().display());
    run(home.host("modutil", &add)).succeeds();
    for algorithm in CURVES {
        home.identity(algorithm, algorithm, "client");
        let listed = run(home.host("certutil", "-L -d sql:nss -h Enclasp")).succeeds();
        // "u": NSS found the private key of the certificate.
        let line = listed
            .text()
            .lines()
            .find(|line| line.starts_with(&format!("Enclasp:{algorithm} ")))
            .map(str::to_owned);
        assert!(line.is_some_and(|line| line.ends_with("u,u,u")), "{listed}");
        for version in VERSIONS {
            let line = format!(
                "-h localhost -p {} -d sql:nss -n Enclasp:{algorithm} -V tls{version}:tls{version} -4",
                nginx.port
            );
            // It goes on after the server has closed.
            let mut client = Running::start(home.host("tstclnt", &line));
            client.send(b"GET / HTTP/1.0\r\n\r\n");
            let seen = client.stdout.wait_for(&format!("nginx saw CN={algorithm},"));
            assert!(seen.ends_with(&format!("over TLSv{version}")), "{seen}");
        }
    }
}
