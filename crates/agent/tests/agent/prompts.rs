use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use enclasp_keystore::agent::{AgentKeystore, Request, Response};
use enclasp_keystore::{Access, Error, Input, KeySpec, Keystore, Policy, Presence, Scheme, verify};

use crate::support::{Agent, Terminal, Wire, eventually, folder, refused, sign, socket_in, uri};

/// An agent with a key that asks and one that does not.
fn agent(pinentry: &str) -> Agent {
    let agent = Agent::start(&[&format!("pinentry={pinentry}")]);
    agent.make("asks", Presence::Confirm, Access::default());
    agent.make("free", Presence::None, Access::default());
    agent
}

fn asks<'a>(reason: &'a str, terminal: &Terminal) -> Request<'a> {
    sign("soft:name=asks", b"message", reason, Some(&terminal.tty))
}

fn within(request: Request<'_>, timeout: Duration) -> Request<'_> {
    match request {
        Request::Sign(mut request) => {
            request.timeout_ms = Some(timeout.as_millis() as u32);
            Request::Sign(request)
        }
        other => other,
    }
}

fn is_denied(response: Response, because: &str) {
    let error = refused(response);
    assert!(matches!(&error, Error::Denied { reason, .. } if reason.contains(because)), "{error}");
}

pub fn nobody_to_ask_is_a_refusal() {
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    is_denied(wire.call(1, &sign("soft:name=asks", b"x", "", None)), "no terminal and no display");
    for (tty, complaint) in [
        ("/etc/passwd", "not a terminal"),
        ("/dev/nowhere", "cannot be opened"),
        ("relative", "not a terminal"),
        ("/dev/pts/../../etc/passwd", "not a terminal"),
    ] {
        is_denied(wire.call(1, &sign("soft:name=asks", b"x", "", Some(tty))), complaint);
    }
}

pub fn no_pinentry_is_a_refusal() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("/nowhere/pinentry");
    is_denied(agent.wire().call(1, &asks("", &terminal)), "`/nowhere/pinentry` cannot be run");
}

pub fn a_broken_pinentry_is_a_refusal() {
    let Some(terminal) = Terminal::open() else { return };
    // One that ends, one that talks nonsense, and one that says nothing.
    is_denied(agent("/bin/false").wire().call(1, &asks("", &terminal)), "ended without an answer");
    is_denied(agent("/bin/ls").wire().call(1, &asks("", &terminal)), "ended without an answer");
    let silent = within(asks("", &terminal), Duration::from_secs(1));
    assert!(matches!(refused(agent("/bin/cat").wire().call(1, &silent)), Error::Deadline { .. }));
}

pub fn a_dead_prompter_is_a_refusal() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    wire.send(1, &asks("before", &terminal));
    terminal.shows("before");
    let killed = Command::new("kill").args(["-9", &child_of(agent.pid()).to_string()]).status().unwrap();
    assert!(killed.success());
    is_denied(wire.receive().1, "prompter has ended");
    is_denied(wire.call(2, &asks("after", &terminal)), "prompter has ended");
    assert!(matches!(wire.call(3, &sign("soft:name=free", b"x", "", None)), Response::Signature(_)));
}

fn child_of(parent: u32) -> u32 {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        rest.split(' ').nth(1) == Some(&parent.to_string())
    };
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_child).expect("a prompter")
}

pub fn no_is_no() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    for round in 0..2 {
        let reason = format!("reason {round}");
        wire.send(1, &asks(&reason, &terminal));
        terminal.shows(&reason);
        terminal.refuse();
        is_denied(wire.receive().1, "said no");
        terminal.shows_no_question();
    }
}

pub fn silence_is_no() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    let began = Instant::now();
    wire.send(1, &within(asks("too late", &terminal), Duration::from_millis(1500)));
    terminal.shows("too late");
    assert!(matches!(refused(wire.receive().1), Error::Deadline { .. }));
    assert!(began.elapsed() < Duration::from_secs(10));
    terminal.shows_no_question();
}

pub fn a_caller_that_leaves_takes_its_question_along() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    wire.send(1, &asks("first", &terminal));
    terminal.shows("first");
    // One more waits for its turn on the same terminal.
    wire.send(2, &asks("second", &terminal));
    drop(wire);
    terminal.shows_no_question();
    let mut wire = agent.wire();
    wire.send(1, &asks("third", &terminal));
    terminal.shows("third");
}

pub fn an_agent_that_ends_takes_its_questions_along() {
    let Some(terminal) = Terminal::open() else { return };
    for signal in ["TERM", "KILL"] {
        let agent = agent("pinentry-curses");
        let mut wire = agent.wire();
        wire.send(1, &asks(signal, &terminal));
        terminal.shows(&format!("Reason: {signal}"));
        agent.signal(signal);
        agent.wait();
        terminal.shows_no_question();
        wire.is_closed();
    }
}

pub fn questions_are_bounded() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wires: Vec<_> = (0..5).map(|_| agent.wire()).collect();
    for wire in &mut wires[..4] {
        for id in 1..=5 {
            wire.send(id, &asks("one of many", &terminal));
        }
        let (id, response) = wire.receive();
        assert_eq!(id, 5);
        assert!(matches!(refused(response), Error::Busy { .. }));
    }
    let last = &mut wires[4];
    assert!(matches!(refused(last.call(1, &asks("", &terminal))), Error::Busy { .. }));
    assert!(matches!(last.call(2, &sign("soft:name=free", b"x", "", None)), Response::Signature(_)));
    wires.truncate(0);
    terminal.shows_no_question();
    let mut wire = agent.wire();
    eventually("places are given back", || {
        wire.send(1, &asks("again", &terminal));
        let screen = terminal.screen();
        screen.contains("again")
    });
}

pub fn text_from_outside_is_shown_harmlessly() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    wire.send(1, &asks("50% <b>\r\nCONFIRM\nBYE\x1b[2J\u{202e}evil", &terminal));
    let screen = terminal.shows("evil");
    assert!(screen.contains("50%") && screen.contains("CONFIRM") && screen.contains("Sign with"), "{screen}");
    assert!(screen.contains(&format!("process {}", std::process::id())), "{screen}");
    let long = "%🔑".repeat(3000);
    wire.send(2, &asks(&long, &terminal));
    terminal.refuse();
    is_denied(wire.receive().1, "said no");
    terminal.shows("%");
    terminal.agree();
    assert!(matches!(wire.receive(), (2, Response::Signature(_))));
}

pub fn one_terminal_shows_one_question_at_a_time() {
    let (Some(one), Some(other)) = (Terminal::open(), Terminal::open()) else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    wire.send(1, &asks("the first", &one));
    one.shows("the first");
    wire.send(2, &asks("the second", &one));
    wire.send(3, &asks("elsewhere", &other));
    other.shows("elsewhere");
    assert!(!one.screen().contains("the second"));
    other.agree();
    assert!(matches!(wire.receive(), (3, Response::Signature(_))));
    one.refuse();
    assert_eq!(wire.receive().0, 1);
    one.shows("the second");
    one.agree();
    assert!(matches!(wire.receive(), (2, Response::Signature(_))));
}

pub fn yes_signs_and_nobody_waits_for_it() {
    let Some(terminal) = Terminal::open() else { return };
    let agent = agent("pinentry-curses");
    let mut wire = agent.wire();
    wire.send(1, &asks("TLS client authentication to db.internal:5432", &terminal));
    let screen = terminal.shows("db.internal:5432");
    for text in ["Sign with soft:name=asks?", "Sign", "Refuse", &format!("process {}", std::process::id())] {
        assert!(screen.contains(text), "{text} is missing in\n{screen}");
    }
    // Requests after it on the same connection are answered meanwhile.
    for id in 2..100 {
        let response = wire.call(id, &sign("soft:name=free", b"x", "", None));
        assert!(matches!(response, Response::Signature(_)));
    }
    terminal.agree();
    let (1, Response::Signature(signature)) = wire.receive() else { panic!("no signature") };
    let Response::Key(key) = wire.call(1, &Request::Open(uri("asks"))) else { panic!("no key") };
    let input = Input::Message(b"message");
    assert_eq!(verify(&key.spki, Scheme::EcdsaP256Sha256, input, &signature), Ok(()));
    terminal.shows_no_question();
}

pub fn an_agent_in_the_background_can_ask() {
    // Job control would stop it if it read from the terminal of its own session.
    let folder = folder();
    let agent = Agent::shell_command(&folder, &["pinentry=pinentry-curses", "exit-idle-ms=5000"]);
    let script = format!("set -m; {agent} & exec sleep 600");
    let Some(terminal) = Terminal::running(&script) else { return };
    eventually("the agent listens", || UnixStream::connect(socket_in(&folder)).is_ok());
    let spec = KeySpec {
        policy: Policy { presence: Presence::Confirm, ..Policy::default() },
        ..KeySpec::new(uri("asks"))
    };
    AgentKeystore::new(&socket_in(&folder)).create(&spec).unwrap();
    let mut wire = Wire::greeted(&socket_in(&folder));
    wire.send(1, &asks("from behind", &terminal));
    terminal.shows("from behind");
    terminal.agree();
    assert!(matches!(wire.receive(), (1, Response::Signature(_))));
}
