//! `--renew`: a tunnel renews the certificate of its identity before it ends, and serves on with the new one.

use crate::harness::{Backend, Home, eventually, free_port};

#[test]
fn tunnel_renews_its_identity() {
    let home = Home::new();
    let port = free_port();
    home.authority("ca", port);
    // Long enough for a slow machine, and due within the test.
    let settings = String::from_utf8(home.read("ca/authority.toml")).expect("text");
    let at = settings.find("[profiles.server]").expect("it has the profile");
    let old = settings[at..].lines().find(|line| line.starts_with("default-lifetime")).expect("it has one");
    let changed = settings[at..].replacen(old, "default-lifetime = \"40s\"", 1);
    home.write("ca/authority.toml", settings[..at].to_owned() + &changed);
    let _authority = home.serve("ca", port);
    home.token("--cn srv --san dns:localhost --profile server");
    home.enclasp("enroll --token-file token --identity srv").succeeds();
    let serial = || {
        let facts = home.enclasp("identity show srv --json").succeeds().json();
        facts["serial"].as_str().expect("a serial number").to_owned()
    };
    let before = serial();
    let backend = Backend::one_line();
    let (server, tls) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-all --renew",
        backend.port
    ));
    server.stderr.wait_for("will be renewed");
    eventually("it is renewed", || serial() != before);
    server.stderr.wait_for("the identity was renewed; new connections use it");
    home.identity("laptop", "p256", "client");
    home.enclasp_with_input(&format!("connect localhost:{tls} --identity laptop"), "ping\n")
        .succeeds()
        .prints("heard: ping");
    home.enclasp("server --listen :1 --target 127.0.0.1:1 --cert a --key b --allow-all --renew")
        .fails(2)
        .says("--renew is for identities");
}
