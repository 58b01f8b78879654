//! `enclasp key` with a keystore in hardware.

use crate::harness::Home;

#[test]
fn hardware_keys_are_made_and_listed() {
    let home = Home::new();
    for hardware in home.hardware() {
        let key = hardware.key("web");
        home.enclasp(&format!("key show {key}")).fails(1).says("there is no key").says("hint: ");
        let made = home.enclasp(&format!("key create {key} --json")).succeeds().json();
        assert_eq!(made["origin"], "generated");
        assert_eq!(made["schemes"][0], "ecdsa_secp256r1_sha256");
        home.enclasp(&format!("key create {key}")).fails(1).says("already");
        let shown = home.enclasp(&format!("key show {key} --json")).succeeds().json();
        assert_eq!(shown["public_key_sha256"], made["public_key_sha256"]);
        home.enclasp(&format!("key probe {key}")).succeeds().prints("ecdsa_secp256r1_sha256  proved in");

        let listed = home.enclasp(&format!("key list {} --json", hardware.all())).succeeds().json();
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
        assert_eq!(listed[0]["public_key_sha256"], made["public_key_sha256"]);
        let protections = home.enclasp(&format!("{} --status", hardware.agent())).succeeds().text();
        assert!(
            !protections.contains("landlock  missing") && protections.contains("seccomp"),
            "{protections}"
        );

        home.enclasp(&format!("key delete {key} --yes")).succeeds();
        let listed = home.enclasp(&format!("key list {} --json", hardware.all())).succeeds().json();
        assert_eq!(listed, serde_json::json!([]));
    }
    assert_eq!(
        home.enclasp("key list --json").succeeds().json(),
        serde_json::json!([]),
        "none is in software"
    );
}

#[test]
fn keys_are_not_brought_into_hardware() {
    let home = Home::new();
    for hardware in home.hardware() {
        // The keys of software and of hardware do not share an agent.
        home.enclasp("key create soft:name=web").succeeds();
        home.enclasp(&format!("key create {}", hardware.key("web"))).succeeds();
        assert_eq!(home.agents().len(), 2);
        home.end_agents();
        home.enclasp("key delete soft:name=web --yes").succeeds();
        home.end_agents();
    }
}
