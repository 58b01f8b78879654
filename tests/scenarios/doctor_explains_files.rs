//! `enclasp doctor cert|key|p12|crl` on files that real programs made, whole and wrong.

use crate::harness::{Elsewhere, Home, LONG_AGO, NOW, needs, run};

#[test]
fn nothing_is_wrong_with_what_programs_make() {
    if !needs(&["openssl", "keytool"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.enclasp("doctor cert srv.pem --cacert ca/root.pem --key srv.key --purpose server --host localhost")
        .succeeds();
    home.enclasp("doctor key srv.key --cert srv.pem").succeeds();
    for (name, key) in
        [("p384", "EC -pkeyopt ec_paramgen_curve:P-384"), ("ed25519", "ED25519"), ("rsa", "RSA")]
    {
        home.openssl(&format!("genpkey -algorithm {key} -out {name}.key"));
        home.openssl(&format!("req -x509 -new -key {name}.key -subj /CN={name} -days 30 -out {name}.pem"));
        home.enclasp(&format!("doctor key {name}.key --cert {name}.pem")).succeeds();
        home.enclasp(&format!("doctor cert {name}.pem --key {name}.key")).succeeds();
    }
    home.openssl("ec -in srv.key -out sec1.key");
    home.openssl("rsa -in rsa.key -traditional -out pkcs1.key");
    home.enclasp("doctor key sec1.key --cert srv.pem").succeeds();
    home.enclasp("doctor key pkcs1.key --cert rsa.pem").succeeds();
    home.write("pw", "correct horse\n");
    home.openssl("pkcs8 -topk8 -in srv.key -passout file:pw -out encrypted.key");
    home.enclasp("doctor key encrypted.key --password-file pw --cert srv.pem").succeeds();
    home.openssl("pkcs12 -export -inkey srv.key -in srv.pem -passout file:pw -out srv.p12");
    home.enclasp("doctor p12 srv.p12 --password-file pw")
        .succeeds()
        .prints("private key: an EC key on P-256");
    run(home.program(
        "keytool",
        "-genkeypair -alias web -keyalg EC -groupname secp256r1 -dname CN=web -keystore web.p12 -storepass changeit",
    ))
    .succeeds();
    home.write("changeit", "changeit");
    home.enclasp("doctor p12 web.p12 --password-file changeit").succeeds();
}

#[test]
fn what_is_wrong_is_named() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let ca = Elsewhere::new(&home, "acme");
    for (name, validity) in [("web", NOW), ("old", LONG_AGO)] {
        home.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -subj /CN={name} -out {name}.csr"
        ));
        ca.sign(name, validity);
    }
    home.write("pw", "correct horse\n");
    home.write("wrong", "battery staple\n");
    home.openssl("pkcs12 -export -inkey web.key -in web.pem -passout file:pw -out web.p12");
    home.openssl("pkcs12 -export -nokeys -in web.pem -passout file:pw -out trust.p12");
    home.openssl("pkcs8 -topk8 -in web.key -passout file:pw -out encrypted.key");
    home.openssl("pkey -in web.key -pubout -out web.pub");
    home.openssl("ca -config acme-ca.cnf -gencrl -crldays 30 -out acme.crl");
    for (line, code) in [
        ("cert old.pem", "EN-CERT-0007"),
        ("cert web.pem --key old.key", "EN-CERT-0015"),
        ("cert web.key", "EN-FILE-0002"),
        ("cert web.pem --purpose server", "EN-CERT-0013"),
        ("key web.pub", "EN-PKEY-0001"),
        ("key web.key --cert old.pem", "EN-PKEY-0010"),
        ("key encrypted.key --password-file wrong", "EN-PKEY-0006"),
        ("p12 web.p12 --password-file wrong", "EN-P12-0006"),
        ("p12 trust.p12 --password-file pw", "EN-P12-0008"),
        ("p12 web.pem", "EN-FILE-0002"),
        ("crl web.pem", "EN-FILE-0002"),
    ] {
        home.enclasp(&format!("doctor {line}")).fails(1).prints(code);
    }
    home.enclasp("doctor p12 web.p12").succeeds().prints("EN-P12-0005");
    home.write("chain.pem", [home.read("acme-ca.pem"), home.read("web.pem")].concat());
    home.enclasp("doctor cert chain.pem").fails(1).prints("EN-CERT-0017");
    home.enclasp("doctor cert chain.pem --fix").succeeds().says("in the order of the chain");
    home.openssl("verify -CAfile acme-ca.pem chain.pem.fixed");
    home.enclasp("doctor key web.key --fix").succeeds().says("nothing to mend");
    home.enclasp("doctor key soft:name=web --fix").fails(2).says("are for key files");
}
