//! Tokens of kryoptic and of tpm2-pkcs11, each through an agent of its own: key, enrolment, both ends of
//! mutual TLS, a new key in the place of the old one.

use serde_json::Value;

use crate::harness::{Backend, Home, VERSIONS};

#[test]
fn other_modules_enrol_serve_and_connect() {
    let (home, _authority, _) = Home::with_serving_authority();
    let backend = Backend::one_line();
    for token in [home.kryoptic(), home.tpm2_pkcs11()].into_iter().flatten() {
        let (client, server) = (token.named("client"), token.named("server"));
        let made = home.enclasp(&format!("key create {} --json", token.key(&client))).succeeds().json();
        assert_eq!(made["origin"], "generated");
        home.enclasp(&format!("key probe {}", token.key(&client)))
            .succeeds()
            .prints("ecdsa_secp256r1_sha256  proved in");
        for (name, profile) in [(&client, "client"), (&server, "server --san dns:localhost")] {
            home.token(&format!("--cn {name} --profile {profile}"));
            let line =
                format!("enroll --token-file token --identity {name} --key {} --json", token.key(name));
            assert_eq!(home.enclasp(&line).succeeds().json()["key"], token.key(name));
        }
        let (running, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {server} --allow-cn {client}",
            backend.port
        ));
        let connect = |version: &str| -> Value {
            let line = format!("connect localhost:{port} --identity {client} --tls {version} --json");
            let done = home.enclasp_with_input(&line, "ping\n").succeeds();
            assert_eq!(done.text(), "heard: ping\n", "{done}");
            done.json_said()
        };
        for version in VERSIONS {
            let evidence = connect(version);
            assert_eq!(evidence["version"], format!("TLSv{version}"));
            assert_eq!(evidence["local"]["key"], token.key(&client));
            assert_eq!(evidence["local"]["software"], false);
        }
        let renewed = home.enclasp(&format!("renew {client} --rekey --json")).succeeds().json();
        assert_ne!(renewed["key"], token.key(&client));
        assert_eq!(renewed["retired_key"], token.key(&client));
        assert_eq!(connect("1.3")["local"]["key"], renewed["key"]);
        assert!(running.stderr.text().contains(&token.key(&server)), "{}", running.stderr.text());

        let status = home.enclasp(&format!("{} --status", token.agent())).succeeds().text();
        assert!(!status.contains("landlock  missing") && status.contains("seccomp"), "{status}");
    }
}
