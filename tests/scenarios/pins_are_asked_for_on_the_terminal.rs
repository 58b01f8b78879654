//! Without a PIN beforehand, pinentry asks for it, once as long as the agent runs.

use crate::harness::{Home, Terminal, eventually, needs, run};

#[test]
fn pins_are_asked_for_on_the_terminal() {
    let home = Home::new();
    let Some(token) = home.softhsm() else { return };
    if !needs(&["tmux", "pinentry-curses"]) {
        return;
    }
    let create = |name: &str| format!("enclasp key create '{}'; echo code $?", token.key_without_pin(name));
    let in_home = format!("export HOME={}", home.path("").display());
    let terminal = Terminal::run(&home, &format!("{in_home}\n{}", create("a")));
    for part in ["The PIN of token `t`", "object=a", "enclasp key create"] {
        terminal.shows(part);
    }
    enter_pin(&home, &terminal, "9999");
    terminal.shows("refused the PIN");
    terminal.shows("code 1");
    drop(terminal);

    let terminal = Terminal::run(&home, &format!("{in_home}\n{}\n{}", create("a"), create("b")));
    terminal.shows("The PIN of token `t`");
    enter_pin(&home, &terminal, "1234");
    terminal.shows("object=b");
    let screen = terminal.shows("code 0");
    assert!(!screen.contains("1234") && !screen.contains("9999"), "{screen}");
}

fn enter_pin(home: &Home, terminal: &Terminal<'_>, pin: &str) {
    type_pin(home, pin);
    terminal.answer("The PIN of token", "Enter");
}

/// Types a PIN until its stars are there: a pinentry throws away what was typed before it listens.
fn type_pin(home: &Home, pin: &str) {
    eventually("the PIN is typed", || {
        run(home.program("tmux", &format!("-S tmux send-keys C-u {pin}"))).succeeds();
        run(home.program("tmux", "-S tmux capture-pane -p")).succeeds().text().contains("****")
    });
}

/// A new PIN is entered twice, until both are the same.
#[test]
fn a_new_pin_is_entered_twice() {
    let home = Home::new();
    let Some(tpm) = home.tpm() else { return };
    if !needs(&["tmux", "pinentry-curses"]) {
        return;
    }
    let key = tpm.key("web");
    let terminal = Terminal::run(&home, &format!("enclasp key create '{key}' --pin; echo code $?"));
    for (question, pin) in [
        ("Choose a PIN for the new TPM key", "2580"),
        ("Enter the PIN once more", "2581"),
        ("These were two different PINs", "2580"),
        ("Enter the PIN once more", "2580"),
    ] {
        terminal.shows(question);
        type_pin(&home, pin);
        run(home.program("tmux", "-S tmux send-keys Enter")).succeeds();
    }
    terminal.shows("code 0");
    drop(terminal);
    home.end_agents();
    home.write("pin", "2580");
    let mut sign = home.command(&format!("csr create --key {key} --subject CN=web"));
    sign.env("ENCLASP_PIN_FILE", home.path("pin"));
    run(sign).succeeds();
}

/// A TPM's key has a PIN of its own.
#[test]
fn a_tpm_key_has_a_pin_of_its_own() {
    let home = Home::new();
    let Some(tpm) = home.tpm() else { return };
    home.write("pin", "2580");
    home.write("wrong", "0000");
    let key = tpm.key("web");
    let made = home.enclasp(&format!("key create {key} --pin-file pin --json")).succeeds().json();
    assert_eq!(made["pin"], true);
    let sign = format!("csr create --key {key} --subject CN=web");
    home.enclasp(&sign).succeeds();
    home.end_agents();
    home.enclasp(&sign).fails(1).says("its PIN is needed");
    let with = |file: &str| {
        let mut command = home.command(&sign);
        command.env("ENCLASP_PIN_FILE", home.path(file));
        run(command)
    };
    with("wrong").fails(1).says("the PIN is wrong").says("tries");
    with("wrong").fails(1).says("it is not tried twice");
    with("pin").succeeds();
    home.enclasp(&sign).succeeds();
}
