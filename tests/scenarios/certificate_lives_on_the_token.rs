//! An identity can live wholly on a token: its import writes the certificate beside the key, and
//! another user of the token takes it from there.

use crate::harness::{Home, needs, run};

#[test]
fn certificate_lives_on_the_token() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    let Some(token) = home.softhsm() else { return };
    let import = format!("identity import --name again --key {}", token.key("card"));
    home.enclasp(&import).fails(1).says("there is no key");
    home.enclasp(&format!("key create {}", token.key("card"))).succeeds();
    home.enclasp(&import).fails(1).says("there is no certificate beside").says("hint: give it with --cert");
    home.enclasp(&format!("csr create --key {} --subject CN=card --out card.csr", token.key("card")))
        .succeeds();
    home.enclasp("ca sign --dir ca card.csr --out card.pem").succeeds();
    // Not a certificate for another key.
    home.peer("other", "p256", "client");
    home.enclasp(&format!("identity import --name card --cert other.pem --key {}", token.key("card")))
        .fails(1)
        .says("no key has the public key")
        .says("another public key");
    home.enclasp(&format!("identity import --name card --cert card.pem --key {}", token.key("card")))
        .succeeds();
    home.end_agents();

    let elsewhere = home.path("elsewhere");
    let mut command = home.command(&format!("{import} --json"));
    command.env("ENCLASP_STATE", &elsewhere);
    let imported = run(command).succeeds().json();
    let first = home.enclasp("identity show card --json").succeeds().json();
    assert_eq!(imported["sha256"], first["sha256"]);
    assert_eq!(imported["key"], first["key"]);
}
