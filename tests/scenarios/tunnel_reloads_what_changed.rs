//! A tunnel takes up a new certificate, key and CA bundle: by itself, at SIGHUP and SIGUSR1, and every
//! so often. What is broken leaves the old one in use, and open connections go on in any case.

use rustix::process::Signal;

use crate::harness::{Backend, Elsewhere, Home, Running, ask, eventually};

struct Scene {
    home: Home,
    server: Running,
    port: u16,
    _backend: Backend,
}

impl Scene {
    /// A server tunnel as CN=one, which admits whoever leads to the bundle.
    fn new(more: &str) -> Self {
        let home = Home::with_authority();
        home.identity("laptop", "p256", "client");
        home.peer("one", "p256", "server");
        home.peer("two", "p256", "server");
        // Not beside the state folder, which would stay closed.
        std::fs::create_dir(home.path("tls")).expect("a folder");
        home.write("tls/srv.pem", home.read("one.pem"));
        home.write("tls/srv.key", home.read("one.key"));
        home.write("tls/bundle.pem", home.read("ca/root.pem"));
        let backend = Backend::echo();
        let (server, port) = home.start_listening(&format!(
            "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --cert tls/srv.pem --key tls/srv.key --cacert tls/bundle.pem --allow-all {more}",
            backend.port
        ));
        Self { home, server, port, _backend: backend }
    }

    /// The common name that the server presents.
    fn presented(&self) -> String {
        let line = format!("connect localhost:{} --identity laptop --json", self.port);
        let done = self.home.enclasp_with_input(&line, "").succeeds();
        let subject = done.json_said()["peer"]["chain"][0]["subject"].clone();
        subject.as_str().expect("a subject").to_owned()
    }

    fn replace_by(&self, name: &str) {
        for (from, to) in [(format!("{name}.pem"), "tls/srv.pem"), (format!("{name}.key"), "tls/srv.key")] {
            self.home.write("new", self.home.read(&from));
            std::fs::rename(self.home.path("new"), self.home.path(to)).expect("a file system");
        }
    }
}

#[test]
fn by_itself_and_open_connections_go_on() {
    let scene = Scene::new("");
    let mut open = scene.home.start(&format!("connect localhost:{} --identity laptop", scene.port));
    open.send(b"before\n");
    open.stdout.wait_for("before\n");
    assert_eq!(scene.presented(), "CN=one,O=Acme");
    scene.replace_by("two");
    scene.server.stderr.wait_for("reloaded; new connections use it");
    eventually("the new certificate is presented", || scene.presented() == "CN=two,O=Acme");
    open.send(b"after\n");
    open.stdout.wait_for("after\n");
    open.finish().succeeds();
}

#[test]
fn at_sighup_and_sigusr1_at_once() {
    let scene = Scene::new("");
    for (round, signal) in [Signal::HUP, Signal::USR1].into_iter().enumerate() {
        scene.server.signal(signal);
        scene.server.stderr.wait_for_count("reloaded; new connections use it", round + 1);
    }
}

#[test]
fn every_so_often() {
    let scene = Scene::new("--timed-reload 1s");
    scene.server.stderr.wait_for_count("reloaded; new connections use it", 2);
}

#[test]
fn broken_files_leave_what_was_there_in_use() {
    let scene = Scene::new("");
    let mut complaints = 0;
    let mut complains = |said: &str| {
        scene.server.signal(Signal::HUP);
        complaints += 1;
        let line = scene.server.stderr.wait_for_count("what was loaded before stays in use", complaints);
        assert!(line.contains(said), "{said}: {line}");
        assert_eq!(scene.presented(), "CN=one,O=Acme");
    };
    // The key of another certificate; rubbish; nothing.
    scene.home.write("tls/srv.key", scene.home.read("two.key"));
    complains("its public key is not the key's");
    scene.home.write("tls/srv.key", "rubbish");
    complains("srv.key");
    std::fs::remove_file(scene.home.path("tls/srv.key")).expect("it was there");
    complains("srv.key");
    scene.home.write("tls/srv.key", scene.home.read("one.key"));
    scene.home.write("tls/bundle.pem", "");
    complains("bundle.pem");
    scene.home.write("tls/bundle.pem", scene.home.read("ca/root.pem"));
    scene.replace_by("two");
    eventually("the new certificate is presented", || scene.presented() == "CN=two,O=Acme");
}

#[test]
fn the_bundle_of_cas_too_and_sessions_of_before_are_not_resumed() {
    let scene = Scene::new("");
    // A tunnel remembers its sessions, unlike `connect`.
    let (client, plain) = scene.home.start_listening(&format!(
        "client --listen 127.0.0.1:0 --target localhost:{} --identity laptop",
        scene.port
    ));
    assert_eq!(ask(plain, "ping\n"), "ping\n");
    let other = Elsewhere::new(&scene.home, "other");
    scene.home.write("tls/bundle.pem", scene.home.read(&other.root()));
    scene.server.stderr.wait_for("reloaded; new connections use it");
    assert_eq!(ask(plain, "ping\n"), "");
    scene.server.stderr.wait_for("no trusted root vouches for");
    client.stderr.wait_for("refused");
}
