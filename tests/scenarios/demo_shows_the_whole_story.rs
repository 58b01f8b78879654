//! `enclasp demo`: it works, shows real evidence and real refusals, and leaves nothing behind.

use std::fs;

use crate::harness::{Home, Running, free_port, needs, run, wait_until_listening};

#[test]
fn demo_shows_the_whole_story() {
    let home = Home::new();
    let mut command = home.command("demo");
    command.env("TMPDIR", home.path(""));
    let done = run(command).succeeds();
    for part in [
        "soft:name=laptop",
        "ecdsa_secp256r1_sha256",
        "hello from the service behind the tunnel",
        "no certificate",
        "another CA",
        "expired",
        "without its key",
        "Nothing is left behind",
    ] {
        assert!(done.text().contains(part), "`{part}` is not told\n{done}");
    }
    assert!(!done.text().contains('\u{1b}'), "no escape sequences where no terminal is\n{done}");
    let left: Vec<_> = fs::read_dir(home.path("")).expect("a folder").filter_map(Result::ok).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(home.agents().is_empty(), "an agent is left behind");
}

#[test]
fn as_json() {
    let home = Home::new();
    let mut command = home.command("demo --json");
    command.env("TMPDIR", home.path(""));
    let story = run(command).succeeds().json();
    assert_eq!(story["evidence"]["version"], "TLSv1.3");
    assert_eq!(story["evidence"]["local"]["key"], "soft:name=laptop");
    assert_eq!(story["evidence"]["local"]["software"], false);
    let refusals = story["refusals"].as_array().expect("a list");
    assert!(refusals.len() >= 4, "{story:#}");
    assert!(
        refusals.iter().all(|refusal| refusal["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
    );
    assert!(story["steps"].as_array().is_some_and(|steps| steps.len() >= 6), "{story:#}");
    assert!(story["elapsed_ms"].is_number());
}

/// The commands that `--keep` prints work as they are printed, but for the ports.
#[test]
fn kept_it_can_be_gone_on_with() {
    if !needs(&["python3"]) {
        return;
    }
    let home = Home::new();
    let done = home.enclasp("demo --keep kept").succeeds();
    home.enclasp("demo --keep kept").fails(1).says("is not empty");
    let text = done.text();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("  "));
    let state = lines.find_map(|line| line.strip_prefix("export ENCLASP_STATE=")).expect("where");
    let (front, service) = (free_port(), free_port());
    let mut in_background = Vec::new();
    let mut last = None;
    for line in lines {
        let line = line.replace("8443", &front.to_string()).replace("8080", &service.to_string());
        let shell = |line: &str| {
            let mut command = home.program("sh", "-c");
            command.arg(line).env("ENCLASP_STATE", state).env("PATH", home.path_with_enclasp());
            command
        };
        match line.strip_suffix(" &") {
            Some(line) => {
                let running = Running::start(shell(&format!("exec {line}")));
                if line.starts_with("enclasp ") {
                    running.stderr.wait_for("listening on ");
                } else {
                    wait_until_listening(service);
                }
                in_background.push(running);
            }
            None => last = Some(run(shell(&line)).succeeds()),
        }
    }
    assert_eq!(in_background.len(), 3, "{done}");
    last.expect("a command").prints("hello from the service behind the tunnel");
}
