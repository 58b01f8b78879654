//! `enclasp enroll` or the authority killed with -9 at any moment: the same command with the same
//! token goes on, and in the end there is one certificate, one identity and one key.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Home, free_port, needs};
use crate::peers::s_server;

/// How many moments are tried.
const MOMENTS: u32 = 12;

#[test]
fn the_device_crashes() {
    let (home, _authority, _) = Home::with_serving_authority();
    // How long an enrolment takes here, with the agent running.
    token(&home, "measure");
    let begun = Instant::now();
    home.enclasp("enroll --token-file measure.token --identity measure").succeeds();
    let whole = begun.elapsed();
    for moment in 0..MOMENTS {
        let name = format!("laptop-{moment}");
        token(&home, &name);
        let line = format!("enroll --token-file {name}.token --identity {name}");
        for part in [moment, MOMENTS - moment] {
            let enroll = home.start(&line);
            // Not a wait for something, but the moment of the crash.
            thread::sleep(whole * part / MOMENTS);
            enroll.signal(Signal::KILL);
            drop(enroll);
        }
        finished(&home, &line, &name);
    }
    assert_eq!(under_way(&home), [""; 0]);
}

#[test]
fn the_authority_crashes() {
    let port = free_port();
    let home = Home::new();
    home.authority("ca", port);
    for moment in 0..MOMENTS / 2 {
        let name = format!("laptop-{moment}");
        token(&home, &name);
        let line = format!("enroll --token-file {name}.token --identity {name}");
        let first = home.serve("ca", port);
        let enroll = home.start(&line);
        thread::sleep(Duration::from_millis(u64::from(moment) * 8));
        first.signal(Signal::KILL);
        drop(first);
        let _second = home.serve("ca", port);
        // The device may have waited for it, or given up with a word that it may be tried again.
        let done = enroll.finish();
        assert!(done.code == Some(0) || done.stderr.contains("hint: "), "{done}");
        finished(&home, &line, &name);
    }
    assert_eq!(under_way(&home), [""; 0]);
}

/// Runs the command once more unless it had come to its end, and checks that all is there, once.
fn finished(home: &Home, line: &str, name: &str) {
    let done = home.enclasp(line);
    let had_finished = done.stderr.contains(&format!("there is an identity `{name}` already"));
    assert!(done.code == Some(0) || had_finished, "{done}");
    let identity = home.enclasp(&format!("identity show {name} --json")).succeeds().json();
    let issued = home.issued();
    let of_this_name: Vec<_> = issued.iter().filter(|one| one["subject"] == format!("CN={name}")).collect();
    assert_eq!(of_this_name.len(), 1, "certificates of {name}: {issued:#?}");
    assert_eq!(of_this_name[0]["serial"], identity["serial"]);
    assert_eq!(identity["key"], format!("soft:name={name}"));
    home.enclasp(&format!("key show soft:name={name}")).succeeds();
}

/// What was enrolled is good for a connection.
#[test]
fn what_was_enrolled_connects() {
    if !needs(&["openssl"]) {
        return;
    }
    let (home, _authority, port) = Home::with_serving_authority();
    token(&home, "laptop");
    let facts = home.enclasp("enroll --token-file laptop.token --identity laptop --json").succeeds().json();
    assert_eq!(facts["subject"], "CN=laptop");
    assert_eq!(facts["authority"], format!("https://127.0.0.1:{port}"));
    home.peer("srv", "p256", "server");
    // No --cacert: the root came with the token.
    let (server, tls) = s_server(&home, "srv", "ca/root.pem", "");
    home.enclasp_with_input(&format!("connect localhost:{tls} --identity laptop"), "ping\n")
        .succeeds()
        .prints("gnip");
    server.stderr.wait_for("CN = laptop");
}

/// A token for `name`, in a file of its name.
fn token(home: &Home, name: &str) {
    let token = home.token(&format!("--cn {name} --san dns:{name}"));
    home.write(&format!("{name}.token"), token);
}

/// The files of enrolments that are under way; what a crash left half-written is hidden and does not
/// count.
fn under_way(home: &Home) -> Vec<String> {
    let files = std::fs::read_dir(home.state().join("enrolling")).expect("a folder");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}
