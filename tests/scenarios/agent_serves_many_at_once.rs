//! Fifty connections at once with one key, of an agent that did not run before.

use std::thread;

use crate::harness::{Backend, Home};

#[test]
fn agent_serves_many_at_once() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
        backend.port
    ));
    home.kill_agent();
    thread::scope(|scope| {
        for n in 0..50 {
            let home = &home;
            scope.spawn(move || {
                let line = format!("connect localhost:{port} --identity laptop");
                home.enclasp_with_input(&line, format!("{n}\n")).succeeds().prints(&format!("heard: {n}\n"));
            });
        }
    });
    assert_eq!(backend.connections(), 50);
    assert_eq!(home.agents().len(), 1, "one agent, whoever started it");
}
