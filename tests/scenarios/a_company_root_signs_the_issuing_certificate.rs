//! An issuing certificate that a root of OpenSSL's signs: whatever does not fit is refused, and what was issued under
//! it is verified by OpenSSL and by Java, which know that root alone.

use crate::harness::{Backend, Home, needs, run};
use crate::peers::JavaClient;

const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                  subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";

/// A root in NAME.pem, with its key in NAME.key.
fn root(home: &Home, name: &str, subject: &str) {
    home.openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout {name}.key -out {name}.pem \
         -subj {subject} -days 3650 -addext basicConstraints=critical,CA:TRUE \
         -addext keyUsage=critical,keyCertSign,cRLSign"
    ));
}

/// Has the CA `by` sign REQUEST.csr as SIGNED.pem.
fn signed(home: &Home, request: &str, by: &str, signed: &str, extensions: &str, more: &str) {
    home.write("extensions", extensions);
    home.openssl(&format!(
        "x509 -req -in {request}.csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -days 1000 -sha384 \
         -extfile extensions -out {signed}.pem {more}"
    ));
}

/// The certificates in these files, in that order, in chain.pem.
fn chain(home: &Home, names: &[&str]) {
    let files: Vec<_> = names.iter().map(|name| home.read(&format!("{name}.pem"))).collect();
    home.write("chain.pem", files.concat());
}

#[test]
fn what_does_not_fit_is_refused() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let import = |names: &[&str]| {
        chain(&home, names);
        home.enclasp("ca init --dir ca --import chain.pem").fails(1)
    };
    root(&home, "corp", "/O=Corp/CN=Root");
    import(&["corp"]).says("no certificate was asked for").says("hint: `--csr-out FILE`");
    home.enclasp("ca init --dir ca --name Acme --csr-out acme.csr").succeeds().says("--import CHAIN.pem");
    home.openssl("req -in acme.csr -verify -noout -subject").prints("Acme Issuing CA");
    home.enclasp("ca serve --dir ca").fails(1).says("no authority");
    home.enclasp("ca init --dir ca --name Acme").fails(1).says("waits for its certificate");
    // Once more is a request for the same key.
    home.enclasp("ca init --dir ca --name Acme --csr-out again.csr").succeeds();
    let key = |request: &str| home.openssl(&format!("req -in {request}.csr -noout -pubkey")).text();
    assert_eq!(key("acme"), key("again"));

    home.peer_request("other", "p256");
    signed(&home, "other", "corp", "other", CA, "");
    import(&["other", "corp"]).says("is for the key that was made").says("hint: have the request");
    signed(&home, "acme", "corp", "leaf", "basicConstraints=CA:FALSE", "");
    import(&["leaf", "corp"]).says("CN=Acme Issuing CA is not a CA").says("CA:TRUE");
    signed(&home, "acme", "corp", "usage", &CA.replace(",cRLSign", ""), "");
    import(&["usage", "corp"]).says("does not let it sign certificates and CRLs");
    signed(&home, "acme", "corp", "acme", CA, "");
    import(&["acme"]).says("was issued by CN=Root,O=Corp, which is missing").says("up to the root");
    root(&home, "namesake", "/O=Corp/CN=Root");
    import(&["acme", "namesake"]).says("was not signed with the key of the CN=Root,O=Corp that is there");
    signed(&home, "acme", "corp", "expired", CA, "-days -1");
    import(&["expired", "corp"]).says("CN=Acme Issuing CA expired at");
    let limited = format!("{CA}nameConstraints=critical,permitted;DNS:corp.internal");
    signed(&home, "acme", "corp", "limited", &limited, "");
    import(&["limited", "corp"])
        .says("name constraints of CN=Acme Issuing CA forbid the authority's own server: dns:localhost")
        .says("hint: permit the names of `--url`");

    // A CA between, which may have none below.
    home.openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout sub.key -out sub.csr -subj /O=Corp/CN=Sub",
    );
    signed(&home, "sub", "corp", "sub", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"), "");
    signed(&home, "acme", "sub", "below", CA, "");
    import(&["below", "sub", "corp"])
        .says("the path length of CN=Sub,O=Corp is 0, and 1 CAs would be below it");
    assert!(!home.path("ca/authority.toml").exists());
}

#[test]
fn and_what_fits_is_verified_by_others() {
    if !needs(&["openssl", "java", "javac", "keytool"]) {
        return;
    }
    let home = Home::new();
    root(&home, "corp", "/O=Corp/CN=Root");
    home.openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout sub.key -out sub.csr -subj /O=Corp/CN=Sub",
    );
    signed(&home, "sub", "corp", "sub", CA, "");
    home.enclasp("ca init --dir ca --name Acme --csr-out acme.csr").succeeds();
    let limited = "nameConstraints=critical,permitted;DNS:localhost,permitted;DNS:acme.internal";
    signed(&home, "acme", "sub", "acme", &format!("{CA}{limited}"), "");
    // In whatever order.
    chain(&home, &["corp", "acme", "sub"]);
    home.enclasp("ca init --dir ca --import chain.pem").succeeds().prints("elsewhere");
    home.enclasp("ca init --dir ca --import chain.pem").fails(1).says("already");

    home.identity("srv", "p256", "server");
    home.peer("laptop", "p256", "client");
    home.openssl("verify -CAfile corp.pem -untrusted ca/issuing.pem laptop.pem");
    // Names that its constraints forbid are not issued, and no token is made for them.
    home.enclasp("key create soft:name=evil").succeeds();
    home.enclasp("csr create --key soft:name=evil --subject CN=evil --san dns:evil.com --out evil.csr")
        .succeeds();
    home.enclasp("ca sign --dir ca evil.csr")
        .fails(1)
        .says("CN=Acme Issuing CA may not certify these names: dns:evil.com is not within dns:localhost or dns:acme");
    home.enclasp("ca token --dir ca --cn evil --san dns:evil.com").fails(1).says("may not certify");

    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop --cacert corp.pem",
        backend.port
    ));
    let mut client = JavaClient::new(&home, "corp.pem");
    client.connect(port, "1.3", Some("laptop"));
    client.run().prints("connected TLSv1.3 CN=srv, OU=Ops, O=Acme");

    // Another one follows on it, and this root has no key here.
    home.enclasp("ca rotate --dir ca")
        .fails(1)
        .says("the root's key is not at this replica")
        .says("--csr-out");
    home.enclasp("ca rotate --dir ca --csr-out next.csr").succeeds();
    signed(&home, "next", "corp", "next", CA, "");
    chain(&home, &["next", "corp"]);
    home.enclasp("ca rotate --dir ca --import chain.pem").succeeds().says("start `enclasp ca serve` again");
    home.peer("phone", "p256", "client");
    let issuing = home.enclasp("ca show --dir ca --json").succeeds().json()["issuing_pem"].clone();
    let issuing = issuing.as_str().expect("a file");
    home.openssl(&format!("verify -CAfile corp.pem -untrusted {issuing} phone.pem"));
    let old = run(home.program("openssl", "verify -CAfile corp.pem -untrusted ca/issuing.pem laptop.pem"));
    old.succeeds();
}
