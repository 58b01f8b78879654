//! `enclasp renew` of a key in hardware killed with -9 at each of its steps, and so the use of what it
//! renewed: the identity is good at all times, the same command goes on, and in the end there are the key
//! that is used and the one before it, until that was deleted.

use serde_json::{Value, json};

use crate::harness::{Home, Keystore, Running, needs};
use crate::peers::s_server;

#[test]
fn the_same_key() {
    survives(Home::softhsm, "renew laptop --json");
}

#[test]
fn a_new_key_on_a_token() {
    survives(Home::softhsm, "renew laptop --rekey --json");
}

#[test]
fn a_new_key_in_a_tpm() {
    survives(Home::tpm, "renew laptop --rekey --json");
}

fn survives(keystore: for<'a> fn(&'a Home) -> Option<Keystore<'a>>, renew: &str) {
    if !needs(&["openssl", "cc"]) {
        return;
    }
    let (home, _authority, _) = Home::with_serving_authority();
    let Some(keystore) = keystore(&home) else { return };
    let (_server, port) = enrolled(&home, &keystore);
    for step in 1.. {
        let ended = home.killed_at(step, renew);
        let identity = connects(&home, port);
        let (kept, key) = (keystore.keys(), identity["key"].as_str().expect("a URI"));
        assert!(kept.iter().any(|one| is(one, key)), "step {step}: `{key}` is not among {kept:?}");
        if let Some(done) = ended {
            done.succeeds();
            assert!(step > 10, "{step} steps are too few");
            break;
        }
        let renewed = home.enclasp(renew).succeeds().json();
        assert_eq!(connects(&home, port)["key"], renewed["key"], "step {step}");
        let expected =
            [&renewed["key"], &renewed["retired_key"]].into_iter().filter_map(Value::as_str).count();
        assert_eq!(keystore.keys().len(), expected, "step {step}: {:?}", keystore.keys());
    }
}

/// The first use of a new key, after a while, deletes the one before.
#[test]
fn the_end_of_the_old_key() {
    if !needs(&["openssl", "cc"]) {
        return;
    }
    let (home, _authority, _) = Home::with_serving_authority();
    let Some(token) = home.softhsm() else { return };
    let (_server, port) = enrolled(&home, &token);
    for step in 1.. {
        let renewed = home.enclasp("renew laptop --rekey --json").succeeds().json();
        let (new, old) = (renewed["key"].as_str().expect("a URI"), renewed["retired_key"].as_str());
        connects(&home, port);
        assert_eq!(token.keys().len(), 2, "nothing is deleted at once");
        let file = "state/identities/laptop.json";
        let mut stored: Value = serde_json::from_slice(&home.read(file)).expect("JSON");
        stored["updated"]["secs_since_epoch"] = json!(1);
        home.write(file, stored.to_string());

        let ended = home.killed_at(step, &format!("connect localhost:{port} --identity laptop"));
        let identity = connects(&home, port);
        assert_eq!(identity["key"], new, "step {step}");
        assert_eq!(identity["retired"], Value::Null, "step {step}: {old:?} is gone");
        let kept = token.keys();
        assert!(kept.len() == 1 && is(&kept[0], new), "step {step}: {kept:?}");
        if let Some(done) = ended {
            done.succeeds();
            assert!(step > 5, "{step} steps are too few");
            break;
        }
    }
}

/// An identity `laptop` with a key there, and a server that accepts it.
fn enrolled(home: &Home, keystore: &Keystore<'_>) -> (Running, u16) {
    home.peer("srv", "p256", "server");
    home.token("--cn laptop");
    home.enclasp(&format!("enroll --token-file token --identity laptop --key {}", keystore.key("laptop")))
        .succeeds();
    s_server(home, "srv", "ca/root.pem", "")
}

/// Uses the identity; what is stored of it.
#[track_caller]
fn connects(home: &Home, port: u16) -> Value {
    let connect = format!("connect localhost:{port} --identity laptop --tls 1.3");
    home.enclasp_with_input(&connect, "ping\n").succeeds().prints("gnip");
    serde_json::from_slice(&home.read("state/identities/laptop.json")).expect("JSON")
}

/// Whether a listed key is the one that a URI names, which may say more.
fn is(listed: &str, key: &str) -> bool {
    let name = |uri: &str| {
        let parts = uri.split([':', ';', '?', '&']);
        parts
            .filter_map(|part| part.strip_prefix("object=").or(part.strip_prefix("name=")))
            .map(str::to_owned)
            .next()
    };
    name(listed) == name(key)
}
