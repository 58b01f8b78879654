//! Without `--identity` the one that fits is used, and `-v` says why, and why not the others.

use crate::harness::{Elsewhere, Home, LONG_AGO, NOW, needs};
use crate::peers::s_server;

#[test]
fn selection_among_identities_is_explained() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let authority = Elsewhere::new(&home, "corp");
    authority.identity("good", NOW);
    authority.peer("srv", NOW);
    home.request("old", "p256");
    authority.sign("old", LONG_AGO);
    home.import("old", "corp-ca.pem");
    let (_server, port) = s_server(&home, "srv", "corp-ca.pem", "");
    home.enclasp_with_input(&format!("connect localhost:{port} -v"), "ping\n")
        .succeeds()
        .says("`good` is used: it fits, until 2049-12-31T23:59:59Z")
        .says("`old` does not fit: it expired at 2021-01-01T00:00:00Z")
        .prints("gnip");
    home.enclasp(&format!("connect localhost:{port} --identity goood"))
        .fails(1)
        .says("error: there is no identity `goood`")
        .says("hint: there are: good, old");
}
