//! The authority's own key is on a token or in a TPM: it issues, revokes, answers OCSP and is started again; a
//! wrong PIN or a pulled token is told, with the next step, and mended.

use std::fs;

use crate::harness::{Home, Keystore, Running, eventually, free_ports, needs, run};

/// The keystore of `key`, as `ca init --key` takes it: a URI without the name of a key.
fn keystore_of(key: &str) -> String {
    key.replace(";object=acme", "").replace("name=acme;", "")
}

fn serve(home: &Home) -> (Running, String) {
    let running = home.start("ca serve --dir ca --listen 127.0.0.1:0 --listen-http 127.0.0.1:0");
    let said = running.stderr.wait_for("CRLs and OCSP on ");
    let public = format!("http://{}", said.rsplit(' ').next().expect("an address"));
    (running, public)
}

fn authority(home: &Home, keystore: &Keystore<'_>, key: &str) {
    let port = free_ports(2);
    let init = format!("--url https://127.0.0.1:{port} --http-url http://127.0.0.1:{}", port + 1);
    let made = home.enclasp(&format!("ca init --dir ca --name Acme {init} --key {key} --json"));
    let made = made.succeeds().json();
    for role in ["root_key", "issuing_key"] {
        assert!(keystore.keys().iter().any(|key| made[role].as_str().unwrap().starts_with(key)), "{made}");
    }
    let settings = String::from_utf8(home.read("ca/authority.toml")).unwrap();
    for role in ["server", "ocsp"] {
        assert!(settings.contains(&format!("{role}-key = \"soft:name=acme-")), "{settings}");
    }
}

/// What an authority does with its key.
fn issues_and_answers(home: &Home, public: &str, name: &str) {
    home.peer(name, "p256", "client");
    home.openssl(&format!("verify -CAfile ca/root.pem -untrusted ca/issuing.pem {name}.pem"));
    home.enclasp(&format!("ca revoke --dir ca {name}")).succeeds();
    home.enclasp("ca crl --dir ca --out crl.pem").succeeds();
    let line = "verify -crl_check -CAfile ca/root.pem -untrusted ca/issuing.pem -CRLfile crl.pem";
    run(home.program("openssl", &format!("{line} {name}.pem"))).fails_somehow().says("certificate revoked");
    let line = format!("ocsp -issuer ca/issuing.pem -CAfile ca/root.pem -url {public}/ocsp -cert {name}.pem");
    eventually("OCSP says so", || {
        let asked = run(home.program("openssl", &line));
        asked.text().contains("revoked") && asked.stderr.contains("Response verify OK")
    });
}

#[test]
fn on_a_token() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let Some(token) = home.softhsm() else { return };
    let key = token.key("acme");
    authority(&home, &token, &keystore_of(&key));
    let (server, public) = serve(&home);
    issues_and_answers(&home, &public, "laptop");
    server.finish_at_once();

    home.end_agents();
    let (server, public) = serve(&home);
    issues_and_answers(&home, &public, "phone");

    // Pulled under a server: it says so to the device, which may ask again.
    let pull = || fs::rename(home.path("tokens"), home.path("away")).expect("it is there");
    let put_back = || fs::rename(home.path("away"), home.path("tokens")).expect("it is away");
    home.peer_request("tablet", "p256");
    let sign = "ca sign --dir ca tablet.csr --out tablet.pem";
    pull();
    home.enclasp(sign).fails(1).says("cannot reach the keystore").says("hint: check that the token");
    put_back();
    // The module looks for tokens anew when nobody else is at it.
    eventually("the token is used again", || home.enclasp(sign).code == Some(0));
    server.finish_at_once();

    // And before it: it does not start.
    pull();
    let serving = "ca serve --dir ca --listen 127.0.0.1:0";
    home.enclasp(serving)
        .fails(1)
        .says("error: cannot use the issuing key: cannot reach the keystore at pkcs11:")
        .says("hint: check that the token is plugged in");
    put_back();
    home.write("pin", "9999\n");
    home.end_agents();
    home.enclasp(serving)
        .fails(1)
        .says("cannot use the issuing key")
        .says("PIN")
        .says("hint: give the right");
    home.write("pin", "1234\n");
    home.end_agents();

    // Another key of the same name is not the certified one, and a key that is gone is missed.
    let settings = String::from_utf8(home.read("ca/authority.toml")).unwrap();
    let issuing = settings.lines().find_map(|line| line.strip_prefix("issuing-key = ")).expect("a key");
    let issuing = issuing.trim_matches('"').to_owned();
    home.enclasp(&format!("key create {key}")).succeeds();
    home.write("ca/authority.toml", settings.replace(&issuing, &key));
    home.enclasp(serving)
        .fails(1)
        .says("the issuing certificate does not carry the public key of")
        .says("restore the right one");
    home.write("ca/authority.toml", &settings);
    home.enclasp(&format!("key delete --yes {issuing}")).succeeds();
    home.enclasp(serving).fails(1).says("there is no key").says("hint: put its keystore back");
}

#[test]
fn in_a_tpm() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let Some(tpm) = home.tpm() else { return };
    authority(&home, &tpm, &keystore_of(&tpm.key("acme")));
    let (server, public) = serve(&home);
    issues_and_answers(&home, &public, "laptop");
    server.finish_at_once();
    home.end_agents();
    let (_server, public) = serve(&home);
    issues_and_answers(&home, &public, "phone");
}
