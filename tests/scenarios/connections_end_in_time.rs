//! `--close-timeout` and `--max-conn-lifetime`: a connection that one end has closed, and any that is
//! too old, do not go on for ever; one on which bytes still move does.

use crate::harness::{Backend, Home, VERSIONS};

#[test]
fn connections_end_in_time() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::stays();
    for (flags, reason) in [
        ("--max-conn-lifetime 300ms", "its longest lifetime is over"),
        ("--close-timeout 300ms", "one end closed, and the other did not in time"),
    ] {
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop {flags}",
            backend.port
        ));
        for (index, version) in VERSIONS.into_iter().enumerate() {
            let mut client =
                home.start(&format!("connect localhost:{port} --identity laptop --tls {version}"));
            if flags.starts_with("--close") {
                client.close_stdin();
            }
            let line = server.stderr.wait_for_count(reason, index + 1);
            assert!(line.contains("INFO connection "), "{line}");
        }
    }
}
