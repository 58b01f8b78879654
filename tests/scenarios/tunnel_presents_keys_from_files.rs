//! Keys from files are used in the tunnel's own process: PEM in every form that OpenSSL writes,
//! PKCS#12, and both in one PEM file. Evidence and log call them software.

use crate::harness::{Backend, Home, needs};

#[test]
fn tunnel_presents_keys_from_files() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    home.write("pw", "correct horse\n");
    for algorithm in ["p256", "p384", "ed25519", "rsa"] {
        home.peer("srv", algorithm, "server");
        home.openssl("pkcs12 -export -inkey srv.key -in srv.pem -passout file:pw -out srv.p12");
        // There was no form of Ed25519 keys before PKCS#8.
        let form = if algorithm == "ed25519" { "" } else { "-traditional" };
        home.openssl(&format!("pkey -in srv.key {form} -out old.key"));
        let old = String::from_utf8(home.read("old.key")).expect("PEM");
        let expected = match algorithm {
            "rsa" => "BEGIN RSA PRIVATE KEY",
            "ed25519" => "BEGIN PRIVATE KEY",
            _ => "BEGIN EC PRIVATE KEY",
        };
        assert!(old.contains(expected), "{old}");
        home.write("both.pem", [home.read("srv.pem"), home.read("old.key")].concat());
        for flags in [
            "--cert srv.pem --key srv.key",
            "--cert srv.pem --key old.key",
            "--cert both.pem --key both.pem",
            "--keystore both.pem",
            "--keystore srv.p12 --storepass-file pw",
        ] {
            let (server, port) = home.start_listening(&format!(
                "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cacert ca/root.pem --allow-cn laptop {flags}",
                backend.port
            ));
            let client = format!("connect localhost:{port} --identity laptop");
            home.enclasp_with_input(&client, "ping\n").succeeds().prints("heard: ping");
            let line = server.stderr.wait_for("connection");
            assert!(line.contains("software=true") && line.contains("soft:name=key-file"), "{line}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.peer("other", "p256", "server");
    home.openssl("pkcs12 -export -inkey srv.key -in srv.pem -passout pass:secret -out srv.p12");
    home.openssl("pkcs8 -topk8 -in srv.key -passout pass:secret -out locked.key");
    home.write("store.jks", b"\xfe\xed\xfe\xed\x00\x00\x00\x02");
    let server = "server --listen 127.0.0.1:0 --target 127.0.0.1:1 --allow-cn laptop --cacert ca/root.pem";
    for (flags, said) in [
        ("--keystore srv.p12", "its passphrase is another one"),
        ("--keystore srv.p12 --storepass wrong", "warning: --storepass can be read by everybody"),
        ("--keystore store.jks", "keytool -importkeystore"),
        ("--keystore srv.pem", "no private key"),
        ("--keystore nowhere", "cannot read nowhere"),
        ("--cert srv.pem --key locked.key", "openssl pkey -in locked.key"),
        ("--cert srv.pem --key srv.pem", "no private key"),
        ("--cert srv.key --key srv.key", "srv.key"),
        ("--cert srv.pem --key other.key", "its public key is not the key's"),
    ] {
        home.enclasp(&format!("{server} {flags}")).fails(1).says("error: ").says(said);
    }
}
