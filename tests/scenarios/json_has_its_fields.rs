//! `--json` of every command that prints facts parses, and has the fields that scripts hold on to.

use serde_json::Value;

use crate::harness::{Backend, Home, free_port};

#[test]
fn json_has_its_fields() {
    let home = Home::new();
    let port = free_port();
    let json = |line: &str| home.enclasp(&format!("{line} --json")).succeeds().json();

    let made = json(&format!("ca init --dir ca --name Acme --url https://127.0.0.1:{port}"));
    has(&made, &["dir", "name", "url", "root_pem", "root_sha256", "root_key", "issuing_key", "admin_token"]);

    let key = &[
        "uri",
        "algorithm",
        "presence",
        "schemes",
        "origin",
        "created",
        "public_key_sha256",
        "public_key_pem",
    ];
    let created = json("key create soft:name=srv");
    has(&created, key);
    assert_eq!(created["algorithm"], "p256");
    assert_eq!(created["schemes"][0], "ecdsa_secp256r1_sha256");
    has(&json("key show soft:name=srv"), key);
    has(&json("key list")[0], key);
    has(&json("key probe soft:name=srv")[0], &["scheme", "proved", "elapsed_us"]);

    let csr = json("csr create --key soft:name=srv --subject CN=srv --san dns:localhost --out srv.csr");
    has(&csr, &["file", "key", "subject"]);

    let certificate = &[
        "serial",
        "subject",
        "subject_alt_names",
        "profile",
        "not_before",
        "not_after",
        "issued",
        "issued_by",
        "sha256",
        "pem",
    ];
    let signed = json("ca sign --dir ca srv.csr --profile server --out srv.pem");
    has(&signed, certificate);
    has(&json("ca list --dir ca")[0], certificate);

    let identity = &[
        "name",
        "key",
        "software",
        "subject",
        "issuer",
        "serial",
        "not_before",
        "not_after",
        "subject_alt_names",
        "extended_key_usages",
        "sha256",
        "authority",
        "chain_pem",
    ];
    let imported = json("identity import --name srv --cert srv.pem --cacert ca/root.pem");
    has(&imported, identity);
    assert_eq!(imported["serial"], signed["serial"]);
    assert_eq!(imported["extended_key_usages"], serde_json::json!(["serverAuth"]));
    has(&json("identity show srv"), identity);
    has(&json("identity list")[0], identity);

    has(&json("agent --status"), &["pid", "version", "signatures", "protections"]);

    let authority = home.start(&format!("ca serve --dir ca --listen 127.0.0.1:{port} --json"));
    let line = authority.stdout.wait_for("listening");
    has(&serde_json::from_str(&line).expect("one line of JSON"), &["listening", "url"]);
    let token = json("ca token --dir ca --cn laptop");
    has(&token, &["token", "common_name", "subject_alt_names", "profile", "expires", "authority"]);
    home.write("token", token["token"].as_str().expect("text"));
    let enrolled = json("enroll --token-file token --identity laptop");
    has(&enrolled, &["identity", "key", "subject", "serial", "not_after", "authority"]);

    let backend = Backend::one_line();
    let server = home.start(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop --json",
        backend.port
    ));
    let line = server.stdout.wait_for("listening");
    let listening: Value = serde_json::from_str(&line).expect("one line of JSON");
    has(&listening, &["listening", "target"]);
    let tls = listening["listening"].as_str().and_then(|text| text.rsplit(':').next()).expect("a port");
    for version in ["1.2", "1.3"] {
        let line = format!("connect localhost:{tls} --identity laptop --tls {version} --json");
        evidence(&home.enclasp_with_input(&line, "ping\n").succeeds().json_said());
    }
}

fn evidence(evidence: &Value) {
    has(
        evidence,
        &[
            "address",
            "version",
            "cipher_suite",
            "group",
            "handshake",
            "alpn",
            "server_name",
            "client_certificate",
            "local",
            "peer",
            "signatures",
            "notes",
        ],
    );
    assert_eq!(evidence["handshake"], "full");
    for (party, role) in [("local", "client"), ("peer", "server")] {
        has(&evidence[party], &["role", "key", "software", "chain"]);
        assert_eq!(evidence[party]["role"], role);
        for certificate in evidence[party]["chain"].as_array().expect("a chain") {
            has(
                certificate,
                &[
                    "subject",
                    "issuer",
                    "serial",
                    "not_before",
                    "not_after",
                    "fingerprint_sha256",
                    "key_algorithm",
                    "subject_alt_names",
                ],
            );
        }
    }
    let signatures = evidence["signatures"].as_array().expect("a list");
    assert_eq!(signatures.len(), 2, "{evidence}");
    for signature in signatures {
        has(signature, &["by", "message", "scheme", "code_point", "key", "verified", "elapsed_us"]);
    }
}

#[track_caller]
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no `{field}` in {value:#}");
    }
}
