//! Java authenticates by its own provider for PKCS#11, with key and certificate of an identity.

use crate::harness::{CURVES, Home, VERSIONS, module, needs};
use crate::peers::{Java, JavaClient};

#[test]
fn module_serves_java() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    for algorithm in CURVES {
        let home = Home::with_authority();
        home.peer("srv", "p256", "server");
        let server = Java::server(&home, "ca/root.pem", &["srv"]);
        home.identity("web", algorithm, "client");
        let config = format!("name = Enclasp\nlibrary = {}\nslotListIndex = 0\n", module().display());
        home.write("enclasp.pkcs11", config);
        let mut client = JavaClient::new(&home, "ca/root.pem");
        for version in VERSIONS {
            client.connect_with(server.port("srv", version), version, "enclasp.pkcs11");
        }
        let done = client.run_as_host();
        for version in VERSIONS {
            server.says(&format!("accepted TLSv{version} "), 1);
            assert!(done.text().contains(&format!("connected TLSv{version} ")), "{done}");
        }
        server.says("CN=web, OU=Ops, O=Acme", 2);
    }
}
