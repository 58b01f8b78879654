//! A PKCS#12 file becomes an identity that is marked as software; its passphrase is never an argument.

use crate::harness::{Home, needs, run};
use crate::peers::s_server;

#[test]
fn pkcs12_becomes_a_software_identity() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("test", "p256", "client");
    home.write("pw", "correct horse\n");
    home.openssl("pkcs12 -export -inkey test.key -in test.pem -passout file:pw -out test.p12");

    home.write("wrong", "battery staple\n");
    home.enclasp("identity import --name test --p12 test.p12 --password-file wrong")
        .fails(1)
        .says("error: cannot read the PKCS#12 file: its passphrase is another one")
        .says("hint: the passphrase may be wrong");
    home.enclasp("identity import --name test --p12 test.p12")
        .fails(1)
        .says("is needed")
        .says("--password-file FILE")
        .says("ENCLASP_P12_PASSWORD");
    home.enclasp("identity import --name test --p12 test.pem --password-file pw").fails(1).says("it is PEM");
    home.enclasp("identity import --name test --p12 test.p12 --password secret").fails(2);
    home.enclasp("key show soft:name=test").fails(1).says("there is no key");

    let mut command = home.command("identity import --name test --p12 test.p12 --cacert ca/root.pem --json");
    command.env("ENCLASP_P12_PASSWORD", "correct horse");
    let facts = run(command).succeeds().json();
    assert_eq!(facts["software"], true);
    assert_eq!(facts["key"], "soft:name=test");
    home.enclasp("identity list").succeeds().prints("(software)");
    home.enclasp("key show soft:name=test").succeeds().prints("imported: a software key, copies may exist");

    home.peer("srv", "p256", "server");
    let (_server, port) = s_server(&home, "srv", "ca/root.pem", "");
    let line = format!("connect localhost:{port} --identity test --json");
    let done = home.enclasp_with_input(&line, "ping\n").succeeds().prints("gnip");
    assert_eq!(done.json_said()["local"]["software"], true, "{done}");
}

#[test]
fn a_newer_pkcs12_file_takes_the_place_of_the_identity() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.write("pw", "correct horse\n");
    let import = |options: &str| {
        home.peer("test", "p256", "client");
        home.openssl("pkcs12 -export -inkey test.key -in test.pem -passout file:pw -out test.p12");
        home.enclasp(&format!("identity import --name test --p12 test.p12 --password-file pw {options}"))
    };
    import("").succeeds();
    import("").fails(1).says("there is an identity `test` already").says("hint: say --replace");
    for key in ["soft:name=test-r2", "soft:name=test"] {
        let facts = import("--replace --json").succeeds().json();
        assert_eq!(facts["key"], key);
    }
    let keys = home.enclasp("key list").succeeds().text();
    assert_eq!(keys.matches("soft:name=test").count(), 1, "the keys before are gone: {keys}");
}

/// A key file given to the tunnel is used in the tunnel's process, and marked.
#[test]
fn and_so_does_a_key_file() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = crate::harness::Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert ca/root.pem --allow-cn laptop",
        backend.port
    ));
    home.enclasp_with_input(&format!("connect localhost:{port} --identity laptop"), "ping\n")
        .succeeds()
        .prints("heard: ping");
    let line = server.stderr.wait_for("CN=laptop");
    assert!(line.contains("software=true"), "{line}");
    home.enclasp(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key laptop.pem --cacert ca/root.pem --allow-all",
        backend.port
    ))
    .fails(1)
    .says("laptop.pem")
    .says("hint: a private key in PEM that is not encrypted is read");
}
