//! A certificate for a key that is not here is not imported; the key that comes nearest is named.

use crate::harness::{Home, needs};

#[test]
fn import_refuses_a_certificate_without_its_key() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("web", "p256", "client");
    home.request("other", "p384");
    home.request("web", "p256");
    home.openssl("pkcs12 -export -inkey web.key -in web.pem -passout pass:secret -out web.p12");
    // `request` has overwritten web.csr, and web.pem is still for the key of OpenSSL.
    home.enclasp("identity import --name web --cert web.pem")
        .fails(1)
        .says("error: no key has the public key of CN=web")
        .says("`soft:name=web`, made ")
        .says("which has its name and type, but another public key, came nearest")
        .says("hint: `enclasp key list` shows the keys here");
    home.enclasp("identity import --name web --cert web.key").fails(1).says("web.key");
    home.enclasp("identity import --name ../web --cert web.pem")
        .fails(1)
        .says("cannot be the name of an identity");
    assert_eq!(home.enclasp("identity list --json").succeeds().json(), serde_json::json!([]));
    home.enclasp("identity show web")
        .fails(1)
        .says("error: there is no identity `web`")
        .says("hint: there are none yet");
}

#[test]
fn and_does_not_replace_one_unasked() {
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.enclasp("identity import --name web --cert web.pem")
        .fails(1)
        .says("error: there is an identity `web` already")
        .says("enclasp identity delete web");
    home.enclasp("identity import --name web --cert web.pem --replace").succeeds();
}

#[test]
fn chains_may_come_in_any_order() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.request("web", "p256");
    home.enclasp("ca sign --dir ca web.csr --out leaf.pem").succeeds();
    home.openssl("x509 -in leaf.pem -out single.pem");
    let parts = [
        home.read("ca/root.pem"),
        home.read("ca/issuing.pem"),
        b"some text\n".to_vec(),
        home.read("single.pem"),
    ];
    home.write("mixed.pem", parts.concat());
    home.enclasp("identity import --name web --cert mixed.pem --cacert ca/root.pem")
        .succeeds()
        .says("the file was not in order")
        .says("its chain is good, for clients");
    home.enclasp("identity import --name bare --cert single.pem")
        .succeeds()
        .says("the chain cannot be checked");
    let pem = home.enclasp("identity show web --pem").succeeds().text();
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2, "leaf and issuing: {pem}");
    home.write("chain.pem", pem);
    home.openssl("verify -CAfile ca/root.pem -untrusted chain.pem chain.pem");
}
