//! `enclasp renew --daemon` survives an authority that is away, says until when that is no harm, renews when it
//! is back, and runs a command; `--due` does the same once.

use rustix::process::Signal;

use crate::harness::{Home, eventually};

fn serial(home: &Home, identity: &str) -> String {
    let facts = home.enclasp(&format!("identity show {identity} --json")).succeeds().json();
    facts["serial"].as_str().expect("a serial number").to_owned()
}

#[test]
fn as_a_daemon() {
    let (home, authority, port) = Home::with_serving_authority();
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    let before = serial(&home, "laptop");
    drop(authority);
    // As long as its life, so that it is due at once.
    let mut command = home.command("renew --daemon --before 30d");
    command.arg("--exec").arg("echo $ENCLASP_IDENTITY >> renewed");
    let daemon = crate::harness::Running::start(command);
    let said = daemon.stderr.wait_for("its certificate is good until");
    assert!(said.contains("cannot reach the authority"), "{said}");
    assert_eq!(serial(&home, "laptop"), before);
    let _authority = home.serve("ca", port);
    eventually("it is renewed", || serial(&home, "laptop") != before);
    eventually("the command has run", || {
        home.path("renewed").exists() && home.read("renewed") == b"laptop\n"
    });
    // What is revoked stays so, and that is said.
    daemon.signal(Signal::TERM);
    daemon.finish().succeeds();
    home.enclasp("ca revoke --dir ca laptop").succeeds();
    home.enclasp("renew --due --before 30d").fails(1).says("was revoked").says("not renewed: laptop");
}

#[test]
fn once_for_a_timer() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.identity("imported", "p256", "client");
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    let before = serial(&home, "laptop");
    home.enclasp("renew --due").succeeds();
    assert_eq!(serial(&home, "laptop"), before);
    home.enclasp("renew --due --before 30d").succeeds().says("renewed");
    assert_ne!(serial(&home, "laptop"), before);
    home.enclasp("renew --due --before 30d --exec false").fails(1).says("the command failed");
    home.enclasp("renew --before 30d laptop").fails(2);
    home.enclasp("renew").fails(2);
}
