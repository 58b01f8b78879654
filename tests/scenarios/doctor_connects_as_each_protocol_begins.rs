//! `doctor connect --starttls` changes to TLS as each protocol does, and says which identities fit what the server asks.

use serde_json::Value;

use crate::harness::{
    Backend, Elsewhere, Home, LONG_AGO, NOW, Postgres, Running, free_port, needs, wait_until_listening,
};
use crate::peers::s_server;

/// stunnel speaks SMTP, IMAP and PostgreSQL before TLS, in the place of a server that does not.
#[test]
fn mail_and_databases_change_to_tls() {
    if !needs(&["openssl", "stunnel4"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    for (protocol, ours, backend) in [
        ("smtp", "smtp", Backend::greets()),
        ("imap", "imap", Backend::greets_imap()),
        ("pgsql", "postgres", Backend::greets()),
    ] {
        let port = free_port();
        home.write(
            "stunnel.conf",
            format!(
                "foreground = yes\npid =\nsyslog = no\n[{protocol}]\nprotocol = {protocol}\naccept = 127.0.0.1:{port}\n\
                 connect = 127.0.0.1:{}\ncert = srv.pem\nkey = srv.key\n",
                backend.port
            ),
        );
        let _stunnel = Running::start(home.program("stunnel4", "stunnel.conf"));
        wait_until_listening(port);
        encrypted(&home, port, ours, "EN-TLS-0010");
        // The wrong protocol, and none, are named.
        let wrong = if ours == "imap" { "smtp" } else { "imap" };
        home.enclasp(&format!(
            "doctor connect localhost:{port} --no-identity --starttls {wrong} --connect-timeout 3s"
        ))
        .fails(1);
    }
}

#[test]
fn postgresql_changes_to_tls() {
    let Some(mut postgres) = Postgres::start() else { return };
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    let port = free_port();
    postgres.serve_tls(port, &home.read("srv.pem"), &home.read("srv.key"));
    encrypted(&home, port, "postgres", "EN-TLS-0010");
}

#[test]
fn a_directory_changes_to_tls() {
    if !needs(&["openssl", "slapd"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    std::fs::create_dir(home.path("directory")).expect("a folder");
    let port = free_port();
    let at = |name: &str| home.path(name).display().to_string();
    home.write(
        "slapd.conf",
        format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {}\n\
             TLSCertificateFile {}\nTLSCertificateKeyFile {}\nTLSCACertificateFile {}\ndatabase mdb\n\
             suffix \"o=acme\"\ndirectory {}\n",
            at("slapd.pid"),
            at("srv.pem"),
            at("srv.key"),
            at("ca/root.pem"),
            at("directory")
        ),
    );
    let line = format!("-d 0 -h ldap://127.0.0.1:{port}/ -f {}", at("slapd.conf"));
    let _slapd = Running::start(home.program("/usr/sbin/slapd", &line));
    wait_until_listening(port);
    encrypted(&home, port, "ldap", "EN-TLS-0010");
}

#[test]
fn mysql_changes_to_tls() {
    if !needs(&["openssl", "mariadbd"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    std::fs::create_dir(home.path("data")).expect("a folder");
    let port = free_port();
    let folder = home.path("").display().to_string();
    // Without accounts and InnoDB it needs no files of its own.
    let line = format!(
        "--no-defaults --user=root --datadir={folder}/data --socket={folder}/maria.sock --pid-file={folder}/maria.pid \
         --port={port} --bind-address=127.0.0.1 --skip-networking=0 --skip-grant-tables --innodb=OFF \
         --default-storage-engine=MyISAM --ssl-cert={folder}/srv.pem --ssl-key={folder}/srv.key"
    );
    let server = Running::start(home.program("mariadbd", &line));
    server.stderr.wait_for("ready for connections");
    // It asks for a certificate, and does without.
    encrypted(&home, port, "mysql", "EN-TLS-0008");
}

#[track_caller]
fn encrypted(home: &Home, port: u16, protocol: &str, note: &str) {
    let line = format!(
        "doctor connect localhost:{port} --no-identity --cacert ca/root.pem --starttls {protocol} --json"
    );
    let report = home.enclasp(&line).succeeds().json();
    assert_eq!(report[0]["findings"][0]["code"], note, "{report}");
    let spoken = value(&report[0], "spoken");
    assert!(spoken.starts_with("TLS 1.3"), "{spoken}");
}

/// What the server asks for, and which identities fit.
#[test]
fn identities_that_do_not_fit_say_why() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("srv", "p256", "server");
    home.identity("good", "p256", "client");
    home.identity("curve25519", "ed25519", "client");
    home.identity("for-servers", "p256", "server");
    let corp = Elsewhere::new(&home, "corp");
    corp.identity("stranger", NOW);
    corp.identity("old", LONG_AGO);
    let (_server, port) =
        s_server(&home, "srv", "ca/root.pem", "-client_sigalgs ECDSA+SHA256:RSA-PSS+SHA256");
    let line = format!("doctor connect localhost:{port} --identity good --json");
    let report = home.enclasp(&line).succeeds().json();
    for (name, expected) in [
        ("good", "fits, until "),
        ("curve25519", "does not fit: the server takes no scheme of its key's type"),
        ("for-servers", "does not fit: "),
        ("stranger", "does not fit: "),
        ("old", "does not fit: "),
    ] {
        let said = value(&report[0], &format!("identity `{name}`"));
        assert!(said.starts_with(expected), "{name}: {said}");
    }
    // With a name the wrong one is tried all the same, and the server's refusal is explained.
    for (name, code) in
        [("curve25519", "EN-TLS-0011"), ("for-servers", "EN-TLS-0025"), ("old", "EN-TLS-0023")]
    {
        let line = format!("doctor connect localhost:{port} --identity {name} --cacert ca/root.pem --json");
        let report = home.enclasp(&line).fails(1).json();
        assert_eq!(report[0]["findings"][0]["code"], code, "{report}");
    }
    // The key's own part of it.
    let said = value(&report[0], "keystore");
    assert!(said.contains("soft:name=good signed with ecdsa_secp256r1_sha256"), "{said}");
}

fn value(report: &Value, what: &str) -> String {
    let evidence = report["evidence"].as_array().expect("evidence");
    let found = evidence.iter().find(|evidence| evidence["what"] == what);
    found
        .and_then(|found| found["value"].as_str())
        .unwrap_or_else(|| panic!("no {what}: {report}"))
        .to_owned()
}
