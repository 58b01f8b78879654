//! `enclasp tunnel --config FILE`: servers and clients mixed, checked as a whole, reloaded as a whole;
//! what changed takes over the sockets of what was there, and open connections go on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;

use crate::harness::{Backend, Home, ask, eventually, free_port, wait_until_listening};

fn home() -> Home {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    home
}

/// A server tunnel to `target` at `tls`, and a client tunnel to it at `plain`.
fn file(tls: u16, plain: u16, target: u16, allowed: &str) -> String {
    format!(
        "[[server]]\nlisten = \"127.0.0.1:{tls}\"\ntarget = \"127.0.0.1:{target}\"\nidentity = \"srv\"\n\
         allow-cn = [\"{allowed}\", \"nobody\"]\nmax-concurrent-conns = 100\n\n\
         [[client]]\nlisten = \"127.0.0.1:{plain}\"\ntarget = \"localhost:{tls}\"\nidentity = \"laptop\"\n"
    )
}

#[test]
fn many_tunnels_run_from_one_file() {
    let home = home();
    let (echo, one_line) = (Backend::echo(), Backend::one_line());
    let (tls, plain, more) = (free_port(), free_port(), free_port());
    home.write("tunnels.toml", file(tls, plain, echo.port, "laptop"));
    let tunnels = home.start("tunnel --config tunnels.toml");
    wait_until_listening(plain);
    let mut open = TcpStream::connect(("127.0.0.1", plain)).expect("it listens");
    let mut echoes = |text: &str| {
        open.write_all(text.as_bytes()).expect("it is open");
        let mut back = vec![0; text.len()];
        open.read_exact(&mut back).expect("it comes back");
        assert_eq!(back, text.as_bytes());
    };
    echoes("before");

    // Another target behind the same socket, and one tunnel more.
    let third = format!(
        "\n[[server]]\nlisten = \"127.0.0.1:{more}\"\ntarget = \"127.0.0.1:{}\"\nidentity = \"srv\"\nallow-all = true\n",
        one_line.port
    );
    home.write("tunnels.toml", file(tls, plain, one_line.port, "laptop") + &third);
    tunnels.signal(Signal::HUP);
    tunnels.stderr.wait_for("the tunnels are those of the changed file");
    assert_eq!(ask(plain, "ping\n"), "heard: ping\n");
    wait_until_listening(more);
    echoes("after");

    // One wrong table, and all stay as they are.
    for (wrong, cause) in [
        (file(tls, plain, one_line.port, "laptop") + "[[server]]\nlisten = \":1\"\n", "[[server]] 2: "),
        (
            file(tls, plain, one_line.port, "laptop").replace("\"srv\"", "\"gone\""),
            "there is no identity `gone`",
        ),
        ("[[server".into(), "tunnels.toml: line 1: "),
    ] {
        home.write("tunnels.toml", wrong);
        tunnels.signal(Signal::HUP);
        let line = tunnels.stderr.wait_for(cause);
        assert!(line.contains("the tunnels stay as they are"), "{line}");
        assert_eq!(ask(plain, "ping\n"), "heard: ping\n");
    }

    // What is not in the file any more takes nobody new.
    home.write("tunnels.toml", file(tls, plain, one_line.port, "somebody-else"));
    tunnels.signal(Signal::HUP);
    tunnels.stderr.wait_for_count("the tunnels are those of the changed file", 2);
    eventually("nobody listens there", || TcpStream::connect(("127.0.0.1", more)).is_err());
    assert_eq!(ask(plain, "ping\n"), "");
    echoes("still");
    open.shutdown(Shutdown::Write).expect("it is open");
    tunnels.signal(Signal::TERM);
    tunnels.finish().succeeds();
}

#[test]
fn a_file_is_checked_without_opening_anything() {
    let home = Home::new();
    home.write("good.toml", file(1, 2, 3, "laptop"));
    home.enclasp("config check good.toml")
        .succeeds()
        .prints("127.0.0.1:1 -> 127.0.0.1:3\n127.0.0.1:2 -> localhost:1\n");
    let server = "[[server]]\nlisten = \":1\"\ntarget = \"127.0.0.1:1\"\nidentity = \"srv\"\n";
    for (text, said) in [
        (String::new(), "there is no tunnel in it"),
        (format!("{server}allow_cn = \"a\"\n"), "[[server]] 1: there is no setting `allow_cn` here"),
        (format!("{server}allow_cn = \"a\"\n"), "hint: did you mean `allow-cn`?"),
        (server.to_owned(), "[[server]] 1: nobody is admitted"),
        (format!("{server}allow-all = \"yes\"\n"), "`allow-all` is not true or false"),
        (format!("{server}allow-all = true\ntimed-reload = 1.5\n"), "`timed-reload` cannot be a float"),
        (format!("{server}allow-all = true\ntls-min = \"1.1\"\n"), "is not one of 1.2, 1.3"),
        (format!("{server}allow-all = true\n{server}allow-all = true\n"), "two tunnels listen on :1"),
        (format!("{server}allow-all = true\nstatus = \"http://:1\"\n"), "no setting `status` here"),
        (format!("state = \"x\"\n{server}allow-all = true\n"), "no setting `state` here"),
        (format!("enable-shutdown = true\n{server}allow-all = true\n"), "--enable-shutdown needs --status"),
        ("server = 1".into(), "`server` is not a list of tables"),
        ("[[server]]\nlisten = ".into(), "line 2: "),
    ] {
        home.write("bad.toml", &text);
        for line in ["config check bad.toml", "tunnel --config bad.toml"] {
            let done = home.enclasp(line).fails(2).says(said);
            assert_eq!(done.stderr.lines().count(), 2, "{done}");
            assert!(said.starts_with("hint: ") || done.stderr.starts_with("error: bad.toml: "), "{done}");
        }
    }
    assert!(!home.state().exists());
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    let home = Home::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).expect("there are examples") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            home.enclasp(&format!("config check {}", path.display())).succeeds();
            checked += 1;
        }
    }
    assert_ne!(checked, 0);
}
