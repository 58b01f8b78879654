//! Without a root to trust there is no connection: nothing is trusted blindly.

use crate::harness::Home;

#[test]
fn client_needs_roots() {
    let home = Home::with_authority();
    home.request("web", "p256");
    home.enclasp("ca sign --dir ca web.csr --out web.pem").succeeds();
    home.enclasp("identity import --name web --cert web.pem").succeeds();
    for line in ["connect localhost:1 --identity web", "connect localhost:1 --no-identity"] {
        home.enclasp(line)
            .fails(1)
            .says("error: nothing says by which roots to trust localhost:1")
            .says("hint: give the CA's certificate with --cacert FILE");
    }
    home.enclasp("client --listen 127.0.0.1:0 --target localhost:1 --identity web")
        .fails(2)
        .says("nothing says by which roots the server is to be trusted");
    home.enclasp("connect localhost:1 --identity web --cacert web.csr").fails(1).says("web.csr");
}
