//! A key that wants a person to confirm asks on the caller's terminal, says what for, and signs if the
//! person agrees.

use crate::harness::{Home, Terminal, needs};
use crate::peers::s_server;

#[test]
fn keys_that_ask_sign_when_a_person_agrees() {
    if !needs(&["openssl", "tmux", "pinentry-curses"]) {
        return;
    }
    let home = Home::with_authority();
    // The agent finds its pinentry when it starts, which the first command in the terminal does.
    home.kill_agent();
    let request = |name: &str| {
        format!(
            "enclasp csr create --key soft:name=signer --subject CN={name} --out {name}.csr; echo code $?"
        )
    };
    let create = "enclasp key create soft:name=signer --presence confirm";
    let terminal = Terminal::run(&home, &format!("{create}\n{}\n{}", request("refused"), request("signer")));
    for part in
        ["Sign with", "soft:name=signer", "certification request for CN=refused", "enclasp csr create"]
    {
        terminal.shows(part);
    }
    terminal.answer("request for CN=refused", "Right Enter");
    // The next question covers what the first command said.
    terminal.answer("request for CN=signer", "Enter");
    let screen = terminal.shows("code 0");
    assert!(screen.contains("denied: the person who was asked said no\ncode 1"), "{screen}");
    assert!(!home.path("refused.csr").exists());
    drop(terminal);
    home.openssl("req -in signer.csr -verify -noout").says("verify OK");
    home.enclasp("ca sign --dir ca signer.csr --out signer.pem").succeeds();
    home.import("signer", "ca/root.pem");
    home.peer("srv", "p256", "server");

    for version in ["1.2", "1.3"] {
        let (server, port) = s_server(&home, "srv", "ca/root.pem", "");
        let connect = format!(
            "printf 'ping\\n' | enclasp connect localhost:{port} --identity signer --tls {version}; echo code $?"
        );
        let terminal = Terminal::run(&home, &connect);
        terminal.shows(&format!("TLS client authentication to localhost:{port}"));
        assert!(!server.stderr.text().contains("CN = signer"));
        terminal.answer("Sign with", "Enter");
        terminal.shows("gnip");
        terminal.shows("code 0");
        server.stderr.wait_for("CN = signer");
    }
}
