//! A token that is pulled is missed by the server whose key is on it, and used again when it is back:
//! neither the server nor the agent is started again.

use std::fs;

use crate::harness::{Backend, Home, needs, run_with_input};
use crate::peers::s_client;

#[test]
fn pulled_token_is_used_again_when_it_is_back() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer("laptop", "p256", "client");
    let Some(token) = home.softhsm() else { return };
    token.identity("srv", "p256", "server");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    let is_served = || {
        let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
        let client = s_client(&home, port, "ca/root.pem", "1.3", certificate);
        run_with_input(client, b"ping\n").text().contains("heard: ping")
    };
    let agent =
        || home.enclasp(&format!("{} --status --json", token.agent())).succeeds().json()["pid"].clone();
    let before = agent();
    assert!(is_served());
    for pulled in 1..=2 {
        // SoftHSM has no slot to pull a token from but its folder.
        fs::rename(home.path("tokens"), home.path("away")).expect("it is there");
        assert!(!is_served());
        let refused = server.stderr.wait_for_count("refused", pulled);
        assert!(refused.contains("cannot reach the keystore at pkcs11:token=t"), "{refused}");
        fs::rename(home.path("away"), home.path("tokens")).expect("it is away");
        assert!(is_served(), "{}", server.stderr.text());
    }
    assert_eq!(agent(), before);
}
