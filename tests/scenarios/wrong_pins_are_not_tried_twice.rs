//! The PIN of a token: none, a wrong one, and each way to give the right one.

use crate::harness::{Home, run};

#[test]
fn wrong_pins_are_not_tried_twice() {
    let home = Home::new();
    let Some(token) = home.softhsm() else { return };
    home.enclasp(&format!("key create {}", token.key("web"))).succeeds();
    home.end_agents();

    let show = format!("key show {}", token.key_without_pin("web"));
    home.enclasp(&show)
        .fails(1)
        .says("its PIN is needed, and nobody can be asked")
        .says("hint: the PIN is asked for by pinentry, or comes from ENCLASP_PIN_FILE");
    let with = |variable: &str, value: &str| {
        let mut command = home.command(&show);
        command.env(variable, value);
        run(command)
    };
    with("ENCLASP_PIN", "9999").fails(1).says("refused the PIN");
    // The token would count it.
    with("ENCLASP_PIN", "9999").fails(1).says("it is not tried twice");
    with("ENCLASP_PIN_FILE", "nowhere").fails(1).says("no such file");
    home.enclasp(&format!("{show}&pin-source=file:pin")).fails(1).says("full path");
    with("ENCLASP_PIN", "1234").succeeds();
    // The agent is logged in now.
    home.enclasp(&show).succeeds();
    home.end_agents();
    with("ENCLASP_PIN_FILE", home.path("pin").to_str().expect("text")).succeeds();
    home.end_agents();
    home.enclasp(&format!("key show {}", token.key("web"))).succeeds();

    let log = std::fs::read_dir(home.state()).expect("a folder").filter_map(Result::ok);
    for file in log.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log")) {
        let text = std::fs::read_to_string(file.path()).expect("text");
        assert!(!text.contains("9999") && !text.contains("1234"), "a PIN is logged: {text}");
    }
}
