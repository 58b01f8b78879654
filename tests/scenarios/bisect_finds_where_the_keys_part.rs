//! `doctor bisect` makes the same connection with a key in hardware and with a software key, and says where they part.

use serde_json::Value;

use crate::harness::{Elsewhere, Home, NOW, Running, free_port, needs};
use crate::peers::{Java, Nginx, s_server};

#[test]
fn bisect_finds_where_the_keys_part() {
    if !needs(&["openssl", "nginx", "java"]) {
        return;
    }
    let home = Home::with_authority();
    let Some(_token) = home.softhsm() else { return };
    let token = home.faulty();
    token.identity("laptop", "p256", "client");
    same_names_in_software(&home, "control", "laptop");
    for (name, algorithm) in [("srv", "p256"), ("rsa", "rsa")] {
        home.peer(name, algorithm, if name == "srv" { "server" } else { "client" });
    }
    home.openssl("pkcs12 -export -inkey rsa.key -in rsa.pem -passout pass:secret -out rsa.p12");
    home.write("passphrase", "secret\n");
    let by_control = "--control control";

    // Nothing is wrong, whoever the server is.
    let nginx = Nginx::start(&home, "srv", "ca/root.pem");
    let trials = bisected(&home, nginx.port, by_control, None, &["EN-BIS-0003"]);
    for (version, scheme) in [("TLSv1.3", Value::Null), ("TLSv1.2", Value::Null)] {
        let trial = trials.iter().find(|trial| trial["version"] == version && trial["scheme"] == scheme);
        let trial = trial.expect("each version is tried");
        for key in ["hardware", "software"] {
            assert_eq!(trial[key]["outcome"], "accepted", "{trial}");
            assert_eq!(trial[key]["scheme"], "ecdsa_secp256r1_sha256", "{trial}");
        }
    }
    assert_eq!(trials[2]["scheme"], "ecdsa_secp384r1_sha384", "TLS 1.2 has a second scheme: {trials:?}");
    home.enclasp(&bisect(nginx.port, by_control))
        .succeeds()
        .prints("nothing is wrong")
        .prints("TLSv1.3  its own choice");

    // A server with one kind of signature only, and a control that has it.
    let pss = "-client_sigalgs rsa_pss_rsae_sha256";
    let (_openssl, port) = s_server(&home, "srv", "ca/root.pem", pss);
    let by_file = "--p12 rsa.p12 --password-file passphrase";
    let trials = bisected(&home, port, by_file, Some("EN-TLS-0011"), &["EN-BIS-0001"]);
    assert_eq!(trials[0]["software"]["scheme"], "rsa_pss_rsae_sha256");
    home.enclasp(&bisect(port, by_file))
        .fails(1)
        .prints("key type: P-256 / RSA")
        .prints("likely: the usual cause");
    // With the same kind of key the server's rule refuses both.
    bisected(&home, port, by_control, Some("EN-TLS-0011"), &["EN-BIS-0004"]);

    // Somebody who knows neither, and names whom it knows.
    let elsewhere = Elsewhere::new(&home, "corp");
    elsewhere.peer("other", NOW);
    let java = Java::server(&home, "corp-ca.pem", &["other"]);
    let port = java.port("other", "1.3");
    bisected(&home, port, by_control, Some("EN-TLS-0039"), &["EN-BIS-0004"]);

    // A server that asks for no certificate tests no key.
    let (_doctor, port) = asks_for_none(&home);
    bisected(&home, port, by_control, None, &["EN-BIS-0006"]);

    // Without a control, the doctor's own server; then the token lies.
    bisected(&home, nginx.port, "", None, &["EN-BIS-0007", "EN-BIS-0003"]);
    home.write("tokens/lie", "");
    bisected(&home, nginx.port, "", Some("EN-KEY-0005"), &["EN-BIS-0001", "EN-BIS-0007"]);
    let trials = bisected(&home, nginx.port, by_control, Some("EN-KEY-0005"), &["EN-BIS-0001"]);
    assert_eq!(trials[0]["software"]["outcome"], "accepted");
    home.enclasp(&bisect(nginx.port, by_control)).fails(1).prints("certain: the bytes say so");
}

/// An identity of an authority whose profile allows it is compared with a key that the authority certifies for that.
#[test]
fn the_authority_certifies_a_software_key_for_the_comparison() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let port = free_port();
    home.authority("ca", port);
    let Some(token) = home.softhsm() else { return };
    let settings = String::from_utf8(home.read("ca/authority.toml")).expect("text");
    home.write("ca/authority.toml", settings.replace("bisect = false", "bisect = true"));
    let _authority = home.serve("ca", port);
    home.token("--cn laptop --san dns:localhost");
    home.enclasp(&format!("enroll --token-file token --identity laptop --key {}", token.key("laptop")))
        .succeeds();
    home.peer("srv", "p256", "server");
    let (server, port) = s_server(&home, "srv", "ca/root.pem", "");
    let trials = bisected(&home, port, "", None, &["EN-BIS-0003"]);
    for key in ["hardware", "software"] {
        assert_eq!(trials[0][key]["outcome"], "accepted", "{trials:?}");
    }
    server.stderr.wait_for("CN = laptop");
    let twin = home.issued().into_iter().find(|record| record["issued_by"] == "bisect").expect("a record");
    assert_eq!(twin["subject"], "CN=laptop");
}

/// An identity `name` with a software key and the names of the certificate `of`.
fn same_names_in_software(home: &Home, name: &str, of: &str) {
    home.enclasp(&format!("key create soft:name={name}")).succeeds();
    let names = format!("--subject CN={of},OU=Ops,O=Acme --san dns:localhost --san ip:127.0.0.1");
    home.enclasp(&format!("csr create --key soft:name={name} {names} --out {name}.csr")).succeeds();
    home.enclasp(&format!("ca sign --dir ca {name}.csr --profile client --out {name}.pem")).succeeds();
    home.import(name, "ca/root.pem");
}

fn asks_for_none(home: &Home) -> (Running, u16) {
    let line = "s_server -accept 127.0.0.1:0 -cert srv.pem -key srv.key -rev";
    let running = Running::start(home.program("openssl", line));
    let line = running.stdout.wait_for("ACCEPT 127.0.0.1:");
    let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok()).expect("a port");
    (running, port)
}

fn bisect(port: u16, control: &str) -> String {
    format!("doctor bisect localhost:{port} --identity laptop {control}")
}

/// Checks the codes of the findings, and of the finding about the first connection with the key in hardware. Returns
/// the connections.
#[track_caller]
fn bisected(home: &Home, port: u16, control: &str, of_hardware: Option<&str>, codes: &[&str]) -> Vec<Value> {
    let shown = home.enclasp(&format!("{} --json", bisect(port, control))).json();
    let found: Vec<&str> = shown["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|finding| finding["code"].as_str().expect("a code"))
        .collect();
    assert_eq!(found, codes, "{shown}");
    let trials = shown["trials"].as_array().expect("trials").clone();
    let tried = trials.iter().find(|trial| trial["hardware"]["outcome"] == "refused");
    let code = tried.and_then(|trial| trial["hardware"]["finding"]["code"].as_str());
    assert_eq!(code, of_hardware, "{shown}");
    trials
}
