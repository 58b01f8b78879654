//! Agents live longer than the programs that start them, and keep none of their files open: a listener of
//! nginx that is passed on would keep its port.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::harness::{Backend, Home, PATIENCE, free_port, wait_until_listening};

/// Starts `enclasp` with one end of a pair open under a number that it knows nothing of.
fn started(home: &Home, line: &str) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let enclasp = home.command(line);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"exec "$0" "$@" 7>&1 >/dev/null"#])
        .arg(enclasp.get_program())
        .args(enclasp.get_args());
    shell.env_clear().envs(enclasp.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(home.path("")).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
    (shell.spawn().expect("a shell"), ours)
}

/// Nobody has the other end any more, and the agent runs.
fn is_closed(home: &Home, mut ours: UnixStream) {
    let read = ours.read_to_end(&mut Vec::new());
    assert!(read.is_ok(), "somebody has it open: {read:?}");
    assert_eq!(home.agents().len(), 1);
}

#[test]
fn one_that_a_command_starts() {
    let home = Home::new();
    let (mut command, ours) = started(&home, "key create soft:name=web");
    assert!(command.wait().expect("it ends").success());
    is_closed(&home, ours);
}

#[test]
fn one_that_a_supervisor_starts() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.end_agents();
    let (port, backend) = (free_port(), Backend::echo());
    let line = format!(
        "server --listen 127.0.0.1:{port} --target 127.0.0.1:{} --identity srv --allow-all",
        backend.port
    );
    let (mut server, ours) = started(&home, &line);
    wait_until_listening(port);
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    is_closed(&home, ours);
}
