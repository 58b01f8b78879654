//! A target whose name means nothing is noticed when the tunnel starts, unless it shall not matter yet.

use crate::harness::{Home, ask};

#[test]
fn names_are_resolved_at_the_start() {
    let home = Home::with_authority();
    home.identity("laptop", "p256", "client");
    let line = "client --listen 127.0.0.1:0 --target nowhere.invalid:443 --identity laptop";
    home.enclasp(line)
        .fails(1)
        .says("cannot resolve the host of --target nowhere.invalid:443")
        .says("hint: --skip-resolve");
    let (client, plain) = home.start_listening(&format!("{line} --skip-resolve"));
    assert_eq!(ask(plain, "ping\n"), "");
    client.stderr.wait_for("cannot connect to nowhere.invalid:443");
}
