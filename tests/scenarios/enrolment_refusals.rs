//! A token that is spent, expired, damaged, of another authority, or for an identity that exists.

use std::time::Duration;

use crate::harness::{Home, eventually, free_port};

#[test]
fn the_token_was_spent_for_another_key() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.token("--cn laptop-17");
    home.enclasp("enroll --token-file token --identity first").succeeds();
    home.enclasp("enroll --token-file token --identity second")
        .fails(1)
        .says("the token was used already, for another key or other names (HTTP 401)")
        .says("hint: ask for a new token");
    let identities = home.enclasp("identity list --json").succeeds().json();
    assert_eq!(identities.as_array().map(Vec::len), Some(1));
    assert_eq!(certificates(&home), 1);
    // Nothing is left of the refused one; a key that was there before stays.
    home.enclasp("key show soft:name=second").fails(1).says("there is no key");
    home.enclasp("key create soft:name=third").succeeds();
    home.enclasp("enroll --token-file token --identity third").fails(1).says("(HTTP 401)");
    home.enclasp("key show soft:name=third").succeeds();
    let left = std::fs::read_dir(home.path("state/enrolling")).expect("a folder").count();
    assert_eq!(left, 0);
}

#[test]
fn the_identity_exists() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.token("--cn laptop-17");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    let before = home.enclasp("identity show laptop --json").succeeds().text();
    for _ in 0..2 {
        home.enclasp("enroll --token-file token --identity laptop")
            .fails(1)
            .says("error: there is an identity `laptop` already")
            .says("enclasp identity delete laptop");
        home.token("--cn laptop-17");
    }
    assert_eq!(home.enclasp("identity show laptop --json").succeeds().text(), before);
    assert_eq!(certificates(&home), 1);
}

#[test]
fn the_token_expired() {
    let (home, _authority, _) = Home::with_serving_authority();
    home.token("--cn laptop-17 --ttl 1s");
    eventually("the token expires", || {
        let done = home.enclasp("enroll --token-file token --identity laptop");
        // A key was made for it if it was still good; that is another scenario.
        if done.code == Some(0) {
            home.enclasp("identity delete laptop").succeeds();
            std::thread::sleep(Duration::from_millis(200));
            return false;
        }
        done.stderr.contains("error: the token for `laptop-17` expired ")
            && done.stderr.contains("hint: ask for a new one")
    });
    home.enclasp("ca token --dir ca --cn laptop --ttl 0s").fails(1).says("between 1s and 90d");
}

#[test]
fn the_token_is_damaged() {
    let (home, _authority, _) = Home::with_serving_authority();
    let text = home.token("--cn laptop-17");
    let cut = &text[..text.len() - 10];
    let other = format!("ey{}", &text[2..]);
    for damaged in [cut, &other, "", "secret", "\u{0}"] {
        home.write("token", damaged);
        let done = home
            .enclasp("enroll --token-file token --identity laptop")
            .fails(1)
            .says("error: this is not an Enclasp token: ")
            .says("hint: a token is one line that begins with enclasp1_");
        // It may be a real one with a typing error.
        assert!(damaged.len() < 20 || !done.stderr.contains(&damaged[10..]), "it is repeated: {done}");
    }
    home.enclasp("enroll --token-file nowhere --identity laptop").fails(1).says("cannot read nowhere");
    home.enclasp("key list --json").succeeds().prints("acme-");
    home.enclasp("key show soft:name=laptop").fails(1).says("there is no key");
}

#[test]
fn another_authority_answers_at_that_address() {
    let port = free_port();
    let home = Home::new();
    home.authority("ca", port);
    home.authority("evil", port);
    home.token("--cn laptop-17");
    let evil = home.serve("evil", port);
    home.enclasp("enroll --token-file token --identity laptop")
        .fails(1)
        .says("is not the authority that made this token")
        .says("hint: something else answers at that address");
    drop(evil);
    // The token went to nobody, and is good for the right one.
    let _authority = home.serve("ca", port);
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
}

#[test]
fn nobody_answers_at_that_address() {
    let home = Home::new();
    let port = free_port();
    home.authority("ca", port);
    home.token("--cn laptop-17");
    home.enclasp("enroll --token-file token --identity laptop")
        .fails(1)
        .says(&format!("error: cannot reach the authority at https://127.0.0.1:{port}"))
        .says("hint: is `enclasp ca serve` running there?");
    let _authority = home.serve("ca", port);
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
}

/// How many certificates devices got.
fn certificates(home: &Home) -> usize {
    home.issued().iter().filter(|one| one["issued_by"] == "token").count()
}
