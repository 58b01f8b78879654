//! A TLS 1.3 client learns of a refusal when its handshake is done: the evidence of that handshake is
//! what explains the refusal, and is shown before it.

use crate::harness::{Backend, Home};

#[test]
fn evidence_is_shown_of_refused_connections() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::echo();
    let (_server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn another",
        backend.port
    ));
    let line = format!("connect localhost:{port} --identity laptop");
    let done = home.enclasp(&format!("{line} -v")).fails(1);
    let (evidence, error) = done.stderr.split_once("error: ").expect("an error");
    assert!(evidence.contains("protocol     TLSv1.3"), "{done}");
    assert!(evidence.contains("key soft:name=laptop"), "{done}");
    assert!(error.contains("refused our certificate after the handshake"), "{done}");

    let done = home.enclasp(&format!("{line} --json")).fails(1).says("error: ");
    assert_eq!(done.json_said()["client_certificate"], "sent");
    assert!(done.stdout.is_empty(), "{done}");
}
