//! The failure that Enclasp comes from: a client with an EC certificate sends a CertificateVerify
//! that claims SHA256withRSA, with a signature of 256 bits.

use crate::harness::{Backend, Home, needs};
use crate::peers::{Ending, Java, Lie, misbehave};

#[test]
fn by_our_server_which_names_the_cause() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.peer("phone", "p256", "client");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    ));
    let ending = misbehave(&home, port, "phone", Lie::RsaClaim);
    assert!(matches!(ending, Ending::AtCertificateVerify(Some(_))), "{ending:?}");
    let line = server.stderr.wait_for("claims rsa_pkcs1_sha256");
    for part in ["CertificateVerify", "CN=phone", "P-256", "told the wrong type of its own key"] {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
    // The same client without the lie gets past that message.
    let ending = misbehave(&home, port, "phone", Lie::Nothing);
    assert_eq!(ending, Ending::AtFinished);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn by_java() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.peer("phone", "p256", "client");
    let java = Java::server(&home, "ca/root.pem", &["srv"]);
    let port = java.port("srv", "1.2");
    let ending = misbehave(&home, port, "phone", Lie::RsaClaim);
    assert!(matches!(ending, Ending::AtCertificateVerify(Some(_))), "{ending:?}");
    let line = java.says("refused ", 1);
    assert!(line.contains("CertificateVerify"), "{line}");
    let ending = misbehave(&home, port, "phone", Lie::Nothing);
    assert_eq!(ending, Ending::AtFinished);
}
