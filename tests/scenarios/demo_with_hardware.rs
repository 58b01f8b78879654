//! `enclasp demo --keystore` tells the same story with a key in hardware, and leaves nothing there.

use std::fs;

use crate::harness::{Home, run};

#[test]
fn demo_with_hardware() {
    let home = Home::new();
    for hardware in home.hardware() {
        let key = hardware.key("laptop");
        let mut command = home.command(&format!("demo --json --keystore {key}"));
        command.env("TMPDIR", home.path(""));
        let story = run(command).succeeds().json();
        assert_eq!(story["evidence"]["local"]["key"], key);
        assert_eq!(story["evidence"]["local"]["software"], false);
        assert!(story["refusals"].as_array().is_some_and(|refusals| refusals.len() >= 4), "{story:#}");
        assert!(home.agents().is_empty(), "an agent is left behind");
        let left = fs::read_dir(home.path("")).expect("a folder").filter_map(Result::ok);
        let left: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert!(!left.iter().any(|name| name.starts_with("enclasp-demo-")), "left behind: {left:?}");
        let listed = home.enclasp(&format!("key list {} --json", hardware.all())).succeeds().json();
        assert_eq!(listed, serde_json::json!([]), "the key is left behind");
        home.end_agents();
    }
}
