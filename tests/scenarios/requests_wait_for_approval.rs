//! A profile that demands a person's approval: clients wait with HTTP 202, ours and strongSwan's, until
//! `ca approve` or `ca deny`.

use crate::harness::{Home, Running, eventually, free_port, needs};

fn guarded() -> (Home, Running, u16) {
    let home = Home::new();
    let port = free_port();
    home.authority("ca", port);
    let settings = String::from_utf8(home.read("ca/authority.toml")).unwrap();
    let guarded = "\n[profiles.guarded]\ndefault-lifetime = \"1d\"\nmax-lifetime = \"1d\"\n\
                   extended-key-usages = [\"clientAuth\"]\napproval = true\n";
    home.write("ca/authority.toml", settings + guarded);
    home.enclasp("ca profile check --dir ca").succeeds().prints("a person approves").says("in order");
    let server = home.serve("ca", port);
    (home, server, port)
}

/// The id of what waits, and its key.
fn waiting(home: &Home) -> Option<(String, String)> {
    let waiting = home.enclasp("ca pending --dir ca --json").succeeds().json();
    let one = waiting.as_array().unwrap().first()?;
    assert_eq!((&one["kind"], &one["profile"]), (&"certificate".into(), &"guarded".into()));
    Some((one["id"].as_str().unwrap().to_owned(), one["key_sha256"].as_str().unwrap().to_owned()))
}

#[test]
fn ours() {
    let (home, _server, _) = guarded();
    home.token("--cn web --profile guarded");
    // Without patience it is told to come back, and goes on with the same key.
    home.enclasp("enroll --token-file token --identity web")
        .fails(1)
        .says("person's approval")
        .says("HTTP 202");
    let enrolling = home.start("enroll --token-file token --identity web --wait 5m");
    let said = enrolling.stderr.wait_for("person's approval");
    let (id, key) = waiting(&home).expect("it waits");
    assert!(said.contains(&key) && said.contains(&id), "{said}");
    home.enclasp(&format!("ca approve --dir ca {id}")).succeeds().says("approved");
    enrolling.finish().succeeds().says("enrolled `web`");
    assert_eq!(waiting(&home), None);

    home.token("--cn db --profile guarded");
    home.enclasp("enroll --token-file token --identity db").fails(1).says("HTTP 202");
    let (id, _) = waiting(&home).expect("it waits");
    home.enclasp(&format!("ca deny --dir ca {id}")).succeeds();
    home.enclasp("enroll --token-file token --identity db").fails(1).says("a person denied this request");
    home.enclasp(&format!("ca approve --dir ca {id}")).fails(1).says("waits for approval");
    let log = home.enclasp("ca audit export --dir ca").succeeds().text();
    for event in ["approval asked for", "approved", "denied"] {
        assert!(log.contains(&format!("\"event\":\"{event}\"")), "{event}: {log}");
    }
    home.enclasp("ca audit verify --dir ca").succeeds();
}

#[test]
fn strongswan() {
    if !needs(&["openssl", "pki"]) {
        return;
    }
    let (home, _server, port) = guarded();
    home.openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout web.key -subj /CN=web -outform DER -out web.der");
    let token = home.token("--cn web --profile guarded");
    let asking = Running::start(home.program(
        "pki",
        &format!(
            "--est --url https://127.0.0.1:{port} --in web.der --cacert ca/root.pem --cacert ca/issuing.pem \
             --userpass any:{token} --interval 1 --maxpolltime 60 --outform pem"
        ),
    ));
    eventually("it waits", || waiting(&home).is_some());
    let (id, _) = waiting(&home).unwrap();
    home.enclasp(&format!("ca approve --dir ca {id}")).succeeds();
    let done = asking.finish().succeeds();
    home.write("web.pem", done.stdout);
    home.openssl("verify -CAfile ca/root.pem -untrusted ca/issuing.pem web.pem");
}
