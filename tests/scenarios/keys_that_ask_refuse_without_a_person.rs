//! A key that wants a person to confirm signs nothing when nobody can be asked.

use crate::harness::{Home, needs};
use crate::peers::s_server;

#[test]
fn keys_that_ask_refuse_without_a_person() {
    if !needs(&["openssl", "pinentry-curses"]) {
        return;
    }
    let home = Home::with_authority();
    home.enclasp("key create soft:name=signer --presence confirm").succeeds().prints("confirm");
    home.enclasp("csr create --key soft:name=signer --subject CN=signer")
        .fails(1)
        .says("error: cannot sign with `soft:name=signer`: denied: ")
        .says("nobody can be asked");
    home.enclasp("key probe soft:name=signer").fails(1).says("asks a person");

    // It is a refusal on our side; the server gets no certificate and no signature.
    home.peer("other", "p256", "client");
    home.openssl("pkey -in other.key -pubout -out other.pub");
    let public = home.enclasp("key show soft:name=signer --json").succeeds().json();
    home.write("signer.pub", public["public_key_pem"].as_str().expect("PEM"));
    home.openssl("x509 -new -force_pubkey signer.pub -subj /CN=signer -CA other.pem -CAkey other.key -days 1 -out signer.pem");
    home.enclasp("identity import --name signer --cert signer.pem --cacert ca/root.pem").succeeds();
    home.peer("srv", "p256", "server");
    let (server, port) = s_server(&home, "srv", "ca/root.pem", "");
    for version in ["1.2", "1.3"] {
        home.enclasp(&format!("connect localhost:{port} --identity signer --tls {version}"))
            .fails(1)
            .says("error: cannot sign with `soft:name=signer`: denied: ");
    }
    assert!(!server.stderr.text().contains("Verification: OK"), "{}", server.stderr.text());
}
