//! PINs, passphrases and tokens are refused where everybody can read them, and kept out of what the
//! program starts and says.

use crate::harness::{Home, Running, run};

#[test]
fn a_pin_in_a_key_uri_is_refused_and_not_repeated() {
    let home = Home::new();
    for line in [
        "key create pkcs11:token=t;object=web?pin-value=123456",
        "key show pkcs11:token=t;object=web;pin-value=123456",
    ] {
        let done = home.enclasp(line).fails(2).says("pin-source=file:PATH");
        // The command line itself is the shell's, and is not repeated either.
        assert!(!done.stderr.contains("123456"), "{done}");
    }
}

#[test]
fn passphrases_come_from_files_or_the_environment() {
    let home = Home::new();
    home.write("pw", "correct horse\n");
    home.enclasp("agent --passphrase correct-horse").fails(2);
    let agent = home.start("agent --passphrase-file pw");
    agent.stderr.wait_for("the agent listens on");
    home.enclasp("key create soft:name=web").succeeds();
    assert!(!contains(&agent.arguments(), b"horse"));
    drop(agent);

    // Keys of a passphrase are not opened without it, or with another.
    home.enclasp("key show soft:name=web").fails(1).says("error: ").says("passphrase");
    home.write("other", "battery staple\n");
    home.enclasp("agent --passphrase-file other").fails(1).says("error: ").says("passphrase");
    let mut command = home.command("agent --passphrase");
    command.env("ENCLASP_PASSPHRASE", "correct horse");
    let agent = Running::start(command);
    agent.stderr.wait_for("the agent listens on");
    home.enclasp("key show soft:name=web").succeeds();
    drop(agent);

    // The variable is enough, for an agent that is started on demand as well.
    let fresh = Home::new();
    let mut command = fresh.command("key create soft:name=web");
    command.env("ENCLASP_PASSPHRASE", "correct horse");
    run(command).succeeds();
    fresh.end_agents();
    assert!(!fresh.path("state/keys/at-rest.key").exists());
    fresh.enclasp("key show soft:name=web").fails(1).says("a passphrase protects them");
    fresh.write("empty", "\n");
    fresh.enclasp("agent --passphrase-file empty").fails(1).says("error: the passphrase is empty");

    // On disk there is neither the passphrase nor a private key that can be read without it.
    let mut grep = home.program("grep", "-rlE correct.horse|BEGIN.PRIVATE|BEGIN.EC");
    grep.arg(home.state());
    let found = run(grep);
    assert!(found.stdout.is_empty(), "{found}");
}

#[test]
fn the_token_is_not_repeated() {
    let home = Home::with_authority();
    let token = home.enclasp("ca token --dir ca --cn laptop").succeeds().text();
    let token = token.trim();
    home.write("token", token);
    // Nobody serves; the enrolment fails, and says much.
    let done = home.enclasp("enroll --token-file token --identity laptop -vv").fails(1);
    assert!(!done.stderr.contains(&token[20..]), "{done}");
    let mut command = home.command("enroll --identity laptop --token");
    command.arg(token);
    run(command).fails(2);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
