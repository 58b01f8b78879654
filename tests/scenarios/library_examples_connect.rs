//! The examples of the library, blocking, with tokio and with hyper, speak HTTP to a service behind
//! `enclasp server`, and are refused with a cause when they are to be.

use std::process::Command;

use crate::harness::{Backend, Done, Home, examples, run};

#[test]
fn library_examples_connect() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("web", "p256", "client");
    home.identity("other", "p384", "client");
    let backend = Backend::http();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn web",
        backend.port
    ));
    let programs = examples();
    for (count, example) in ["blocking", "tokio", "hyper"].into_iter().enumerate() {
        let program = programs.join(example);
        let connect = |identity: &str| -> Done {
            let mut command = Command::new(&program);
            command
                .arg(format!("localhost:{port}"))
                .args([identity, "ca/root.pem"])
                .current_dir(home.path(""));
            command.env("ENCLASP_STATE", home.state()).env("ENCLASP_PROGRAM", env!("CARGO_BIN_EXE_enclasp"));
            run(command)
        };
        let refused = connect("other").fails(1);
        // What hyper reports is that its connection closed.
        if example != "hyper" {
            refused.says("AccessDenied");
        }
        server.stderr.wait_for_count("CN=other is not among the allowed CNs", count + 1);
        connect("web").succeeds().prints("hello from the backend").says("soft:name=web");
        server.stderr.wait_for_count("CN=web", count + 1);
    }
    assert_eq!(backend.connections(), 3);
}
