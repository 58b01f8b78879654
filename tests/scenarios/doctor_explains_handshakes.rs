//! The doctor understands the handshakes of many programs, as they take place and in captures of every kind:
//! `tests/situations`.

use crate::harness::{Elsewhere, Home, LONG_AGO, NOW, needs, run};
use crate::peers::situations_are_understood;

#[test]
fn broken_handshakes_are_explained() {
    if let Some(home) = home_of_situations() {
        situations_are_understood(&home, "broken.txt");
    }
}

#[test]
fn nothing_is_wrong_with_healthy_handshakes() {
    if let Some(home) = home_of_situations() {
        situations_are_understood(&home, "healthy.txt");
    }
}

const NOT_YET: (&str, &str) = ("20400101000000Z", "20491231235959Z");

/// The keys and certificates that the tables name.
fn home_of_situations() -> Option<Home> {
    let programs = [
        "openssl",
        "curl",
        "wget",
        "ssh",
        "gnutls-cli",
        "gnutls-serv",
        "java",
        "keytool",
        "nginx",
        "tstclnt",
        "selfserv",
        "pk12util",
        "chromium",
    ];
    if !needs(&programs) {
        return None;
    }
    let home = Home::with_authority();
    for (name, algorithm, profile) in [
        ("good", "p256", "client"),
        ("rsa", "rsa", "client"),
        ("p384", "p384", "client"),
        ("ed25519", "ed25519", "client"),
        ("srv", "p256", "server"),
        ("srv-rsa", "rsa", "server"),
    ] {
        home.peer(name, algorithm, profile);
    }
    for (alone, of) in [("alone.pem", "good.pem"), ("srv-alone.pem", "srv.pem")] {
        home.openssl(&format!("x509 -in {of} -out {alone}"));
    }
    let file = |name: &str| home.read(name);
    home.write("backwards.pem", [file("ca/root.pem"), file("ca/issuing.pem")].concat());
    home.identity("me", "p256", "client");
    home.identity("me25519", "ed25519", "client");
    home.identity("server-here", "p256", "server");

    let corp = Elsewhere::new(&home, "corp");
    for (name, validity) in [("stranger", NOW), ("other", NOW), ("old", LONG_AGO), ("early", NOT_YET)] {
        corp.peer(name, validity);
    }
    for (name, validity) in [("stranger-here", NOW), ("old-here", LONG_AGO), ("revoked-here", NOW)] {
        corp.identity(name, validity);
    }
    home.openssl("ca -config corp-ca.cnf -revoke revoked-here.pem");
    home.openssl("ca -config corp-ca.cnf -gencrl -crldays 30 -out corp.crl");
    let signed_by_corp = |name: &str, key: &str, host: &str| {
        home.openssl(&format!("genpkey {key} -out {name}.key"));
        let subject = format!("-subj /O=Acme/CN={name} -addext subjectAltName=DNS:{host}");
        home.openssl(&format!("req -new -key {name}.key {subject} -out {name}.csr"));
        corp.sign(name, NOW);
    };
    signed_by_corp("elsewhere", P256, "elsewhere.example");
    signed_by_corp("weak", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "localhost");
    signed_by_corp("pss", "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "localhost");
    home.write("mixed.pem", [file("alone.pem"), file("other.pem")].concat());
    home.write("mixed.key", file("good.key"));

    // A certificate as `openssl req -x509` makes it, and one by another authority called corp.
    let own = |name: &str, subject: &str| {
        home.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout {name}.key -out {name}.pem \
             -subj /CN={subject} -addext subjectAltName=DNS:localhost"
        ));
    };
    own("selfmade", "selfmade");
    own("usurper", "corp");
    home.peer_request("impostor", "p256");
    home.openssl(
        "x509 -req -in impostor.csr -CA usurper.pem -CAkey usurper.key -CAcreateserial -days 30 -copy_extensions copy \
         -out impostor.pem",
    );

    for database in ["nss", "nss-nobody"] {
        std::fs::create_dir(home.path(database)).expect("a folder");
        run(home.program("certutil", &format!("-N -d sql:{database} --empty-password"))).succeeds();
        for (nickname, root) in [("acme", "ca/root.pem"), ("corp", "corp-ca.pem")] {
            let line = format!("-A -d sql:{database} -n {nickname} -t CT,, -i {root}");
            run(home.program("certutil", &line)).succeeds();
        }
    }
    for (nickname, peer) in [("good", "good"), ("web", "srv"), ("elsewhere", "elsewhere")] {
        home.openssl(&format!(
            "pkcs12 -export -inkey {peer}.key -in {peer}.pem -name {nickname} -passout pass:secret -out {nickname}-nss.p12"
        ));
        run(home.program("pk12util", &format!("-i {nickname}-nss.p12 -d sql:nss -W secret"))).succeeds();
    }
    // It makes its authority, which the tables name.
    home.enclasp("doctor listen --listen 127.0.0.1:0 --count 0").succeeds();
    Some(home)
}

const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
