//! Under systemd: listeners that it passes on, the word that all is ready, the watchdog, the word that
//! it ends.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

use crate::harness::{Backend, Home, Running, ask};

#[test]
fn listeners_are_passed_on_by_name() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let socket = UnixListener::bind(home.path("plain.sock")).expect("a socket");
    let started = |listener: &dyn AsFd, line: &str| {
        let listener = listener.as_fd();
        // A child of another test may keep it open, too, which harms nobody.
        fcntl_setfd(listener, FdFlags::empty()).expect("it is ours");
        let mut command = home.program("bash", "-c");
        let enclasp = home.command(line);
        let words: Vec<_> = enclasp.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        command.arg(format!(
            "exec 3<&{} && LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec {} {}",
            listener.as_raw_fd(),
            enclasp.get_program().to_string_lossy(),
            words.join(" ")
        ));
        command.env("ENCLASP_STATE", home.state());
        let running = Running::start(command);
        running.stderr.wait_for("listening on ");
        running
    };
    let _server = started(
        &listener,
        &format!(
            "server --listen systemd:web --target 127.0.0.1:{} --identity srv --allow-all",
            backend.port
        ),
    );
    let client = format!("client --listen systemd:web --target localhost:{port} --identity laptop");
    let client = started(&socket, &client);
    let mut stream = std::os::unix::net::UnixStream::connect(home.path("plain.sock")).expect("it listens");
    std::io::Write::write_all(&mut stream, b"ping\n").expect("it takes it");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert_eq!(answer, "heard: ping\n");
    drop(client);
    assert!(home.path("plain.sock").exists(), "the file is the service manager's");

    home.enclasp("client --listen systemd:web --target localhost:1 --identity laptop")
        .fails(1)
        .says("no listener of that name was passed on")
        .says("FileDescriptorName=");
}

#[test]
fn it_is_told_of_readiness_life_and_end() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    let backend = Backend::one_line();
    let manager = UnixDatagram::bind(home.path("notify")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let wait_for = |wanted: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    let target = format!("127.0.0.1:{}", backend.port);
    home.write(
        "tunnels.toml",
        format!(
            "[[server]]\nlisten = \"127.0.0.1:0\"\ntarget = \"{target}\"\nidentity = \"srv\"\ndisable-authentication = true\n"
        ),
    );
    // The one process, and the parent of the worker.
    for line in [
        format!("server --listen 127.0.0.1:0 --target {target} --identity srv --disable-authentication"),
        "tunnel --config tunnels.toml".to_owned(),
    ] {
        let mut command = home.command(&line);
        command.env("NOTIFY_SOCKET", home.path("notify")).env("WATCHDOG_USEC", "200000");
        let server = Running::start(command);
        wait_for("READY=1");
        // It listens by now.
        ask(server.port(), "");
        wait_for("WATCHDOG=1");
        wait_for("WATCHDOG=1");
        server.signal(Signal::TERM);
        wait_for("STOPPING=1");
        server.finish().succeeds();
    }
}
