//! The way of the story that Enclasp comes from: CSR on the device, signed with `openssl x509 -req`,
//! imported, used against a Java server. And what went wrong there does not. The certificate is one of
//! X.509 version 1, as that command makes them, which Java takes and we warn of.

use crate::harness::{Elsewhere, Home, NOW, needs};
use crate::peers::Java;

#[test]
fn openssl_authority_signs_our_request() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::new();
    let authority = Elsewhere::new(&home, "corp");
    home.enclasp("key create soft:name=phone").succeeds();
    home.enclasp(
        "csr create --key soft:name=phone --subject CN=phone,OU=Mobile,O=Acme,C=CH --der --out phone.csr",
    )
    .succeeds();
    home.openssl("req -inform DER -in phone.csr -outform PEM -out phone.csr.pem");
    home.openssl(
        "x509 -req -in phone.csr.pem -CA corp-ca.pem -CAkey corp-ca.key -days 365 -CAcreateserial -out phone.pem",
    );
    home.openssl("x509 -in phone.pem -outform DER -out phone.cer");
    home.enclasp("identity import --name phone --cert phone.cer --cacert corp-ca.pem")
        .succeeds()
        .says("warning: ")
        .says("version 1")
        .prints("soft:name=phone");
    authority.peer("srv", NOW);
    let java = Java::server(&home, "corp-ca.pem", &["srv"]);
    let line = format!("connect localhost:{} --identity phone --json", java.port("srv", "1.2"));
    let done = home.enclasp_with_input(&line, "ping\n").succeeds().prints("java heard: ping");
    let evidence = done.json_said();
    let signature = &evidence["signatures"][1];
    assert_eq!(signature["message"], "CertificateVerify", "{done}");
    assert_eq!(signature["scheme"], "ecdsa_secp256r1_sha256", "{done}");
    assert_eq!(signature["key"], "soft:name=phone", "{done}");
    java.says("CN=phone, OU=Mobile, O=Acme, C=CH", 1);
}
