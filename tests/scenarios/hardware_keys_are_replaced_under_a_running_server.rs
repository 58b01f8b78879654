//! `enclasp renew --rekey` of a server whose key is in hardware, while clients come all the time: none is
//! refused, an open connection goes on, and the old key goes only when the new one has been used.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Backend, Home, Keystore, eventually};

#[test]
fn on_a_token() {
    is_replaced(Home::softhsm);
}

#[test]
fn in_a_tpm() {
    is_replaced(Home::tpm);
}

fn is_replaced(keystore: for<'a> fn(&'a Home) -> Option<Keystore<'a>>) {
    let (home, _authority, _) = Home::with_serving_authority();
    let Some(keystore) = keystore(&home) else { return };
    home.token("--cn db.internal --san dns:localhost --profile server");
    home.enclasp(&format!("enroll --token-file token --identity srv --key {}", keystore.key("srv")))
        .succeeds();
    home.identity("laptop", "p256", "client");
    let (line, echo) = (Backend::one_line(), Backend::echo());
    let serve = |backend: &Backend| {
        home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop",
            backend.port
        ))
    };
    let ((server, port), (_long, long_port)) = (serve(&line), serve(&echo));
    let (_client, plain) = home.start_listening(&format!(
        "client --listen 127.0.0.1:0 --target localhost:{long_port} --identity laptop"
    ));
    let mut open = TcpStream::connect(("127.0.0.1", plain)).expect("the tunnel listens");
    let mut goes_on = |text: &str| {
        let mut answer = vec![0; text.len()];
        open.write_all(text.as_bytes()).expect("it takes it");
        open.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, text.as_bytes());
    };
    let ping = || {
        let connect = format!("connect localhost:{port} --identity laptop");
        home.enclasp_with_input(&connect, "ping\n").succeeds().prints("heard: ping");
    };
    goes_on("before");
    let over = AtomicBool::new(false);
    let served = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                ping();
                served += 1;
            }
            served
        });
        // Whatever goes wrong here, the clients have to end.
        let _end = Set(&over);
        let renewed = home.enclasp("renew srv --rekey --json").succeeds().json();
        let (new, old) = (renewed["key"].as_str().expect("a URI"), keystore.key("srv"));
        assert_eq!(renewed["retired_key"], old);
        assert_eq!(keystore.keys().len(), 2, "the old key stays");
        server.stderr.wait_for("the identity was renewed");
        eventually("the new key signs for clients", || {
            let said = server.stderr.text();
            said.lines().any(|line| line.contains(" connection ") && line.contains(new))
        });
        assert_eq!(keystore.keys().len(), 2, "nothing is deleted at once");

        // A minute later.
        let file = "state/identities/srv.json";
        let mut stored: Value = serde_json::from_slice(&home.read(file)).expect("JSON");
        stored["updated"]["secs_since_epoch"] = json!(1);
        home.write("later.json", stored.to_string());
        std::fs::rename(home.path("later.json"), home.path(file)).expect("the same folder");
        eventually("the old key is gone", || keystore.keys().len() == 1);
        let stored: Value = serde_json::from_slice(&home.read(file)).expect("JSON");
        assert_eq!(stored["key"], new);
        drop(_end);
        clients.join().expect("each was served")
    });
    assert!(served > 5, "{served} were served");
    ping();
    goes_on("after");
    assert!(!server.stderr.text().contains("refused"), "{}", server.stderr.text());
}

/// Sets a flag when it goes.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
