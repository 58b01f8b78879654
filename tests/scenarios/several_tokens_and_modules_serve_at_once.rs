//! Two tokens of one module, a token of another, and software keys, all in use at the same time: each
//! module has one agent, each key signs for its own server, and a module's crash is felt by its tokens only.

use std::thread;

use serde_json::Value;

use crate::harness::{Backend, Home, Keystore};

#[test]
fn several_tokens_and_modules_serve_at_once() {
    let home = Home::with_authority();
    let Some(token) = home.softhsm() else { return };
    home.identity("laptop", "p256", "client");
    let keystores: Vec<_> = [token, home.second_token()].into_iter().chain(home.kryoptic()).collect();
    let backend = Backend::one_line();
    let serve = |keystore: &Keystore<'_>| {
        // The object has the same label on each token.
        keystore.identity_with("srv", keystore.name(), "p256", "server");
        home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {} --allow-cn laptop",
            backend.port,
            keystore.name()
        ))
    };
    let servers: Vec<_> = keystores.iter().map(serve).collect();
    // SoftHSM's, kryoptic's if it is there, and that of software keys.
    assert_eq!(home.agents().len(), keystores.len());
    let ping = |port: u16| {
        let line = format!("connect localhost:{port} --identity laptop --json");
        let done = home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
        done.json_said()["peer"]["chain"][0]["subject"].clone()
    };
    let all_serve = || {
        thread::scope(|scope| {
            for (keystore, (_, port)) in keystores.iter().zip(&servers) {
                scope.spawn(move || {
                    for _ in 0..6 {
                        assert_eq!(ping(*port), format!("CN={},OU=Ops,O=Acme", keystore.name()));
                    }
                });
            }
        });
    };
    all_serve();
    for (keystore, (server, _)) in keystores.iter().zip(&servers) {
        server.stderr.wait_for(&format!("key=\"{}\"", keystore.key("srv")));
    }
    let status = keystores[0].status();
    assert_eq!(keystores[1].status()["pid"], status["pid"], "one agent for both tokens");
    let used = status["keys"].as_array().expect("a list");
    assert_eq!(used.len(), 2, "{status:#}");
    for key in used {
        let sum =
            |of: &str| key[of].as_array().expect("a histogram").iter().filter_map(Value::as_u64).sum::<u64>();
        let signed = key["signed"].as_u64().expect("a count");
        assert!(signed > 0 && sum("queueing") == signed && sum("signing") == signed, "{key:#}");
    }

    let other = keystores.get(2).map(Keystore::status);
    keystores[0].kill_agent();
    all_serve();
    assert_ne!(keystores[0].status()["pid"], status["pid"]);
    if let Some(other) = other {
        assert_eq!(keystores[2].status()["pid"], other["pid"]);
    }
}
