use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use enclasp_keystore::agent::{AgentKeystore, Request, Response};
use enclasp_keystore::{Access, Input, KeySpec, Keystore, Presence, Scheme, SignContext};

use crate::support::{Agent, eventually, folder, missing, program, uri};

pub fn one_agent_serves_a_folder() {
    let agent = Agent::start(&[]);
    let refusal = Agent::refusal(&agent.folder, &[]);
    assert!(refusal.contains(&format!("pid {}", agent.pid())), "{refusal}");
    assert!(refusal.contains("already serves"), "{refusal}");
    assert!(agent.keystore().status().is_ok());
}

pub fn a_file_in_place_of_the_socket_stays() {
    let folder = folder();
    let path = folder.path().join("socket");
    fs::write(&path, b"precious").unwrap();
    let refusal = Agent::refusal(&folder, &[]);
    assert!(refusal.contains("not a socket"), "{refusal}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

pub fn keys_survive_kill_9() {
    let mut agent = Agent::start(&[]);
    let mut kept = Vec::new();
    for round in 0..3 {
        kept.push(agent.make(&format!("key-{round}"), Presence::None, Access::default()));
        // It dies while it makes keys.
        let keystore = agent.keystore();
        let maker = std::thread::spawn(move || {
            (0..)
                .take_while(|n| keystore.create(&KeySpec::new(uri(&format!("r{round}-{n}")))).is_ok())
                .count()
        });
        eventually("keys are made", || agent.keystore().list().unwrap().len() > round * 3 + 4);
        agent.signal("KILL");
        let (status, folder) = agent.wait();
        assert!(!status.success());
        assert!(folder.path().join("socket").exists(), "a killed agent leaves its socket");
        agent = Agent::start_in(folder, &[]);
        let made = maker.join().unwrap();
        for n in 0..made {
            agent.keystore().open(&uri(&format!("r{round}-{n}"))).unwrap();
        }
        for key in &kept {
            let again = agent.keystore().open(&key.uri).unwrap();
            assert_eq!(again.info().spki, key.spki);
            let input = Input::Message(b"x");
            again.sign(Scheme::EcdsaP256Sha256, input, &SignContext::new("test")).unwrap();
        }
        for key in agent.keystore().list().unwrap() {
            agent.keystore().open(&key.uri).unwrap();
        }
    }
}

pub fn a_signal_ends_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let agent = Agent::start(&[]);
        let mut idle = agent.wire();
        let mut lane = idle.lane();
        agent.signal(signal);
        let (status, folder) = agent.wait();
        assert!(status.success(), "{signal}: {status}");
        assert!(!folder.path().join("socket").exists());
        idle.is_closed();
        lane.is_closed();
    }
}

pub fn an_idle_agent_ends() {
    let agent = Agent::start(&["exit-idle-ms=300"]);
    let mut wire = agent.wire();
    // An open connection keeps it, however quiet.
    std::thread::sleep(Duration::from_millis(900));
    assert!(matches!(wire.call(1, &Request::Status), Response::Status(_)));
    drop(wire);
    let (status, folder) = agent.wait();
    assert!(status.success(), "{status}");
    assert!(!folder.path().join("socket").exists());
    // Another takes over at once.
    let agent = Agent::start_in(folder, &[]);
    assert!(agent.keystore().status().is_ok());
}

pub fn a_socket_of_systemd_is_served() {
    if missing("sh", "-c true") {
        return;
    }
    let folder = folder();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // As systemd does it: the socket is descriptor 3, and LISTEN_PID the pid of the program.
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(program())
        .args(["play-agent", "systemd"])
        .arg(folder.path().join("state"))
        .arg("exit-idle-ms=200")
        .stdin(Stdio::from(listener.try_clone().map(std::os::fd::OwnedFd::from).unwrap()))
        .spawn()
        .unwrap();
    assert!(listener.as_raw_fd() > 0);
    let status = AgentKeystore::new(&path).status().unwrap();
    assert_eq!(status.pid, child.id());
    assert!(child.wait().unwrap().success());
    assert!(path.exists(), "the socket is systemd's");
}
