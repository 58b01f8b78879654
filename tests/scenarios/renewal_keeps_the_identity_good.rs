//! `enclasp renew`: a new certificate, with the same key or a new one; what cannot be renewed stays as
//! it was.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::harness::{Backend, Home, eventually};

#[test]
fn what_cannot_be_renewed_stays() {
    let (home, authority, _) = Home::with_serving_authority();
    home.identity("imported", "p256", "client");
    home.enclasp("renew imported")
        .fails(1)
        .says("cannot be renewed: it was imported")
        .says("hint: enrol again");
    home.enclasp("renew nobody").fails(1).says("there is no identity `nobody`");
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    let before = home.enclasp("identity show laptop --json").succeeds().text();
    drop(authority);
    for flag in ["", "--rekey"] {
        home.enclasp(&format!("renew laptop {flag}")).fails(1).says("error: cannot reach the authority");
        assert_eq!(home.enclasp("identity show laptop --json").succeeds().text(), before);
    }
}

/// A rekey that was interrupted is of no use to another identity of that name.
#[test]
fn a_stale_rekey_is_forgotten() {
    let (home, authority, port) = Home::with_serving_authority();
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    drop(authority);
    home.enclasp("renew laptop --rekey").fails(1).says("cannot reach the authority");
    let stale = home.read("state/enrolling/rekey.laptop.json");
    home.enclasp("identity delete laptop")
        .succeeds()
        .says("enclasp key delete soft:name=laptop`")
        .says("enclasp key delete soft:name=laptop-r2");
    assert!(!home.path("state/enrolling/rekey.laptop.json").exists());

    let _authority = home.serve("ca", port);
    home.token("--cn laptop-18");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    home.write("state/enrolling/rekey.laptop.json", stale);
    let renewed = home.enclasp("renew laptop --rekey --json").succeeds().json();
    assert_eq!(renewed["key"], "soft:name=laptop-r2");
}

#[test]
fn the_same_key_gets_a_new_certificate() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.token("--cn laptop --san dns:laptop");
    let first = home.enclasp("enroll --token-file token --identity laptop --json").succeeds().json();
    let second = home.enclasp("renew laptop --json").succeeds().json();
    assert_ne!(first["serial"], second["serial"]);
    assert_eq!(second["key"], "soft:name=laptop");
    let shown = home.enclasp("identity show laptop --json").succeeds().json();
    assert_eq!(shown["serial"], second["serial"]);
    assert_eq!(shown["subject_alt_names"], serde_json::json!(["dns:laptop"]));
    assert_eq!(home.issued().iter().filter(|one| one["issued_by"] == "renewal").count(), 1);
}

#[test]
fn a_server_renews_with_its_own_certificate() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.token("--cn db.internal --san dns:db.internal --profile server");
    let first = home.enclasp("enroll --token-file token --identity db --json").succeeds().json();
    let second = home.enclasp("renew db --json").succeeds().json();
    assert_ne!(first["serial"], second["serial"]);
    let shown = home.enclasp("identity show db --json").succeeds().json();
    assert_eq!(shown["extended_key_usages"], serde_json::json!(["serverAuth"]));
    assert_eq!(shown["subject_alt_names"], serde_json::json!(["dns:db.internal"]));
}

#[test]
fn a_running_tunnel_takes_up_the_new_key() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.identity("srv", "p256", "server");
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    let backend = Backend::echo();
    let (_server, tls) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let (client, plain) = home
        .start_listening(&format!("client --listen 127.0.0.1:0 --target localhost:{tls} --identity laptop"));
    let connect = || TcpStream::connect(("127.0.0.1", plain)).expect("the tunnel listens");
    let echo = |stream: &mut TcpStream, text: &str| {
        let mut answer = vec![0; text.len()];
        stream.write_all(text.as_bytes()).expect("it takes it");
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, text.as_bytes());
    };
    let mut open = connect();
    echo(&mut open, "before");
    let renewed = home.enclasp("renew laptop --rekey --json").succeeds().json();
    let key = renewed["key"].as_str().expect("a URI");
    assert_ne!(key, "soft:name=laptop");
    client.stderr.wait_for("the identity was renewed");
    // The connection from before goes on, and a new one is made with the new key.
    echo(&mut open, "after");
    let mut new = connect();
    echo(&mut new, "new");
    new.shutdown(Shutdown::Write).expect("it is open");
    eventually("the new key signs", || {
        client.stderr.text().lines().any(|line| line.contains("CN=srv") && line.contains(key))
    });
}
