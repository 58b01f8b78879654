//! `enclasp ca sign` issues nothing for what is not a good request, and says what is wrong with it.

use crate::harness::{Home, needs};

#[test]
fn authority_refuses_bad_requests() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer_request("web", "p256");

    home.enclasp("ca sign --dir ca nothing.csr").fails(1).says("cannot read nothing.csr");
    home.write(
        "garbage.csr",
        "-----BEGIN CERTIFICATE REQUEST-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE REQUEST-----\n",
    );
    home.enclasp("ca sign --dir ca garbage.csr").fails(1).says("error: not a ");
    home.write("empty.csr", "");
    home.enclasp("ca sign --dir ca empty.csr").fails(1).says("error: not a ");
    home.enclasp("ca sign --dir ca ca/root.pem").fails(1).says("error: not a ");

    home.openssl("req -in web.csr -outform DER -out web.der");
    let mut forged = home.read("web.der");
    *forged.last_mut().expect("not empty") ^= 1;
    home.write("forged.csr", forged);
    home.enclasp("ca sign --dir ca forged.csr").fails(1).says("signature").says("hint: sign it again");

    home.openssl("req -new -newkey rsa:1024 -nodes -keyout weak.key -subj /CN=weak -out weak.csr");
    home.enclasp("ca sign --dir ca weak.csr")
        .fails(1)
        .says("too weak")
        .says("hint: P-256, P-384 and Ed25519");
    home.openssl("req -new -sha1 -key web.key -subj /CN=web -out sha1.csr");
    home.enclasp("ca sign --dir ca sha1.csr").fails(1).says("hint: P-256, P-384 and Ed25519");

    home.enclasp("ca sign --dir ca web.csr --profile root").fails(1).says("`root`").says("client");
    home.enclasp("ca sign --dir ca web.csr --lifetime 3650d").fails(1).says("3650d").says("90d");
    home.enclasp("ca sign --dir ca web.csr --lifetime 10").fails(2).says("`10` is not a duration");
    home.enclasp("ca sign --dir elsewhere web.csr")
        .fails(1)
        .says("error: there is no authority in elsewhere")
        .says("hint: `enclasp ca init --dir elsewhere --name NAME` makes one");
    home.enclasp("ca init --dir ca --name Other").fails(1).says("error: there is an authority in ca already");

    let listed = home.enclasp("ca list --dir ca --json").succeeds().json();
    assert_eq!(listed, serde_json::json!([]));
}
