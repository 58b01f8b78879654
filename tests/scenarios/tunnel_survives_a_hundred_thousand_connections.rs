//! A hundred thousand connections, of clients that resume, that send rubbish, that reset and that go away, leave no
//! descriptor and no memory behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use enclasp_identity::State;
use enclasp_tls::{Client, Credential, Options, Version, server_name};
use rustix::net::sockopt::set_socket_linger;

use crate::harness::{Backend, Home, Running, eventually};

/// What a thread makes in a round: one that resumes, and so many of each other kind.
const OF_A_KIND: usize = 10;
const THREADS: usize = 4;
const ROUNDS: usize = 816;

/// Descriptors for the agent, to which there are as many connections as signatures were made at once.
const FEW: usize = 32;

/// How much more memory it may take after the last connection than after the first eighth of them: what its
/// allocator keeps apart, and not what a connection takes, which is a thousand times as much for all.
const SLACK_KIB: u64 = 16 * 1024;

#[test]
fn tunnel_survives_a_hundred_thousand_connections() {
    let home = Home::with_authority();
    home.identity("srv", "p256", "server");
    home.identity("laptop", "p256", "client");
    let backend = Backend::one_line();
    let (server, port) = home.start_listening(&format!(
        "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity srv --allow-cn laptop --quiet all",
        backend.port
    ));
    let clients = [Version::Tls12, Version::Tls13].map(|version| client(&home, version));
    let churn = |rounds: usize| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let client = &clients[thread % clients.len()];
                scope.spawn(move || (0..rounds).for_each(|_| round(port, client)));
            }
        });
    };
    let idle = server.descriptors();
    let all_are_closed = || eventually("all are closed", || server.descriptors() <= idle + FEW);
    // What is made once is there after this.
    churn(ROUNDS / 8);
    all_are_closed();
    let before = server.resident_kib();
    churn(ROUNDS - ROUNDS / 8);
    all_are_closed();
    let after = server.resident_kib();
    let all = THREADS * ROUNDS * (1 + 3 * OF_A_KIND);
    eprintln!("{all} connections; {before} KiB before, {after} KiB after; {idle} descriptors when idle");
    assert!(all >= 100_000);
    assert!(after <= before + SLACK_KIB, "from {before} to {after} KiB");
    assert_eq!(backend.connections(), THREADS * ROUNDS);
}

fn client(home: &Home, version: Version) -> Client {
    let state = State::at(&home.state()).expect("its state");
    let identity = state.identities().and_then(|identities| identities.get("laptop")).expect("it is there");
    let credential = Credential::open(&state, &identity).expect("its key");
    let options = Options { versions: version..=version, ..Options::default() };
    Client::new(&identity.roots, Some(credential), options).expect("a client")
}

fn round(port: u16, client: &Client) {
    resumes(port, client);
    for _ in 0..OF_A_KIND {
        // Rubbish, which is answered with an alert.
        let mut stream = connect(port);
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
        // A reset with half of a record on the way.
        let mut stream = connect(port);
        let _ = stream.write_all(&[22, 3, 1, 0x40, 0, 1]);
        drop(stream);
        // Nothing at all.
        drop(connect(port));
    }
}

fn resumes(port: u16, client: &Client) {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let name = server_name("localhost").expect("a name");
    let (mut stream, _) = client.connect_blocking(stream, &name, "localhost").expect("it is admitted");
    stream.write_all(b"ping\n").expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "heard: ping\n");
}

/// One that is reset when it is dropped, so that no port waits for it.
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    stream
}

impl Running {
    fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).expect("it runs").count()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}
