//! Landlock: a tunnel's process can open nothing but what its flags or its file name. What a file comes to name later
//! is run by another process, which takes over the sockets while the first one finishes what is open.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use rustix::process::Signal;

use crate::harness::{Backend, Home, Running, ask, free_port, needs, noise, wait_until_listening};

/// A home whose folders `inside` and `outside` have a good certificate each, of the same key.
fn home() -> Home {
    let home = Home::with_authority();
    home.identity("laptop", "p256", "client");
    home.peer("srv", "p256", "server");
    for folder in ["inside", "outside"] {
        std::fs::create_dir(home.path(folder)).expect("a folder");
        for name in ["srv.pem", "srv.key", "ca/root.pem"] {
            let to = format!("{folder}/{}", name.trim_start_matches("ca/"));
            home.write(&to, home.read(name));
        }
    }
    home
}

/// Has the name lead elsewhere, at once.
fn lead(home: &Home, name: &str, to: impl AsRef<Path>) {
    symlink(to, home.path("new-link")).expect("a link");
    std::fs::rename(home.path("new-link"), home.path(name)).expect("a file system");
}

fn server(home: &Home, target: u16, more: &str) -> (Running, u16) {
    home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{target} --cert inside/srv.pem --key inside/srv.key \
         --cacert inside/root.pem --allow-all {more}"
    ))
}

#[test]
fn a_link_that_leads_outside_is_not_followed() {
    let home = home();
    let backend = Backend::one_line();
    for (flag, is_followed) in [("", false), ("--disable-landlock", true)] {
        let (tunnel, port) = server(&home, backend.port, flag);
        lead(&home, "inside/srv.pem", home.path("outside/srv.pem"));
        if is_followed {
            tunnel.stderr.wait_for("reloaded; new connections use it");
        } else {
            let line = tunnel.stderr.wait_for("what was loaded before stays in use");
            assert!(line.contains("inside/srv.pem") && line.contains("Permission denied"), "{line}");
        }
        let line = format!("connect localhost:{port} --identity laptop");
        home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
        // As it was.
        std::fs::remove_file(home.path("inside/srv.pem")).expect("it is there");
        home.write("inside/srv.pem", home.read("srv.pem"));
    }
}

/// A certificate beside the keys' folder, as in somebody's home, does not open that.
#[test]
fn keys_of_the_software_enclave_stay_closed_whatever_file_is_named() {
    let home = home();
    let backend = Backend::one_line();
    let (tunnel, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert srv.pem --key srv.key --cacert ca/root.pem \
         --allow-all",
        backend.port
    ));
    lead(&home, "srv.pem", home.path("state/keys/at-rest.key"));
    let line = tunnel.stderr.wait_for("what was loaded before stays in use");
    assert!(line.contains("srv.pem") && line.contains("Permission denied"), "{line}");
    let line = format!("connect localhost:{port} --identity laptop");
    home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
}

/// As Kubernetes does it: the name is a link by way of a link, which is replaced as a whole.
#[test]
fn links_within_the_folder_are_followed() {
    let home = home();
    let backend = Backend::one_line();
    for version in ["inside/1", "inside/2"] {
        std::fs::create_dir(home.path(version)).expect("a folder");
        home.write(&format!("{version}/srv.pem"), home.read("srv.pem"));
    }
    std::fs::remove_file(home.path("inside/srv.pem")).expect("it is there");
    lead(&home, "inside/now", "1");
    lead(&home, "inside/srv.pem", "now/srv.pem");
    let (tunnel, port) = server(&home, backend.port, "");
    lead(&home, "inside/now", "2");
    tunnel.stderr.wait_for("reloaded; new connections use it");
    let line = format!("connect localhost:{port} --identity laptop");
    home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
}

#[test]
fn a_kernel_without_landlock_is_said_once() {
    if !needs(&["python3"]) {
        return;
    }
    let home = home();
    let backend = Backend::one_line();
    home.write("older_kernel.py", include_str!("../peers/older_kernel.py"));
    let mut command = home.with_settings(home.program("python3", "older_kernel.py"));
    command.arg(env!("CARGO_BIN_EXE_enclasp")).args(
        format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert inside/srv.pem --key inside/srv.key \
             --cacert inside/root.pem --allow-all",
            backend.port
        )
        .split_whitespace(),
    );
    let tunnel = Running::start(command);
    let port = tunnel.port();
    let line = format!("connect localhost:{port} --identity laptop");
    home.enclasp_with_input(&line, "ping\n").succeeds().prints("heard: ping");
    let said = tunnel.finish_at_once();
    let complaint = "this process is not closed off by landlock: the kernel does not have it";
    assert_eq!(said.matches(complaint).count(), 1, "{said}");
}

/// A server tunnel with the certificate of `folder`, and a client tunnel to it.
fn file(tls: u16, plain: u16, target: u16, folder: &str) -> String {
    format!(
        "[[server]]\nlisten = \"127.0.0.1:{tls}\"\ntarget = \"127.0.0.1:{target}\"\ncert = \"{folder}/srv.pem\"\n\
         key = \"{folder}/srv.key\"\ncacert = \"{folder}/root.pem\"\nallow-all = true\n\n\
         [[client]]\nlisten = \"127.0.0.1:{plain}\"\ntarget = \"localhost:{tls}\"\nidentity = \"laptop\"\n"
    )
}

#[test]
fn what_a_file_comes_to_name_is_run_by_another_process_and_nothing_is_lost() {
    let home = home();
    let echo = Backend::echo();
    let (tls, plain) = (free_port(), free_port());
    home.write("tunnels.toml", file(tls, plain, echo.port, "inside"));
    let tunnels = home.start("tunnel --config tunnels.toml");
    wait_until_listening(plain);
    let first = tunnels.children();
    let streams: Vec<_> =
        (0..4).map(|_| TcpStream::connect(("127.0.0.1", plain)).expect("it listens")).collect();
    for (seed, stream) in (0..).zip(&streams) {
        round(stream, seed);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&streams)
            .map(|(seed, stream)| {
                scope.spawn(move || (1..60).for_each(|piece| round(stream, seed + 100 * piece)))
            })
            .collect();
        for (folder, count) in [("outside", 1), ("inside", 2)] {
            home.write("tunnels.toml", file(tls, plain, echo.port, folder));
            tunnels.signal(Signal::HUP);
            tunnels
                .stderr
                .wait_for_count("the tunnels are those of the changed file, in a new process", count);
            // Nobody who comes is turned away.
            for _ in 0..20 {
                assert_eq!(ask(plain, "ping\n"), "ping\n");
            }
        }
        threads.into_iter().for_each(|thread| thread.join().expect("nothing is lost"));
    });
    assert!(tunnels.children().iter().any(|child| first.contains(child)), "the first one is at it still");
    // One that cannot be run leaves all as it is.
    let other = "[[client]]\nlisten = \"127.0.0.1:1\"\ntarget = \"localhost:9\"\nidentity = \"laptop\"\nverify-cn = \"x\"\n";
    let broken = file(tls, plain, echo.port, "outside").replace("srv.key", "missing.key") + other;
    home.write("tunnels.toml", broken);
    tunnels.signal(Signal::HUP);
    let line = tunnels.stderr.wait_for("the tunnels stay as they are");
    assert!(line.contains("missing.key"), "{line}");
    assert_eq!(ask(plain, "ping\n"), "ping\n");
    for (seed, stream) in (0..).zip(&streams) {
        round(stream, seed);
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut stream = stream;
        assert_eq!(stream.read(&mut [0]).expect("an end, and no reset"), 0);
    }
    tunnels.signal(Signal::TERM);
    tunnels.finish().succeeds();
}

/// Sends something, and gets it back.
fn round(mut stream: &TcpStream, seed: u32) {
    let sent = noise(seed, 16 * 1024);
    stream.write_all(&sent).expect("it is open");
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).expect("it comes back");
    assert!(back == sent, "what comes back is what was sent");
}

#[test]
fn a_file_that_cannot_be_run_is_told_as_ever() {
    let home = home();
    home.write("tunnels.toml", file(free_port(), free_port(), 1, "inside").replace("srv.key", "missing.key"));
    home.enclasp("tunnel --config tunnels.toml").fails(1).says("error: ").says("missing.key");
}
