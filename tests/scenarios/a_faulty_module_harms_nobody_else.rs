//! A PKCS#11 module that crashes each time, and one that leaks: its agent is started again, ever more
//! rarely, and meanwhile its key is refused with the reason. Software keys, and the same token by a module
//! that works, serve all the time.

use std::fs;

use crate::harness::{Backend, Home, Keystore, Running, eventually, needs, run_with_input};
use crate::peers::s_client;

/// Servers with a key on a token by a faulty module, on the token itself, and in software.
struct Servers<'a> {
    home: &'a Home,
    token: Keystore<'a>,
    faulty: (Running, u16),
    others: [(Running, u16); 2],
    _backend: Backend,
}

impl<'a> Servers<'a> {
    fn start(home: &'a Home) -> Option<Self> {
        if !needs(&["openssl", "cc"]) {
            return None;
        }
        let token = home.softhsm()?;
        home.peer("laptop", "p256", "client");
        let faulty = home.faulty();
        let backend = Backend::one_line();
        let serve = |keystore: &Keystore<'_>| {
            let name = keystore.name();
            keystore.identity(name, "p256", "server");
            home.start_listening(&format!(
                "server --listen 127.0.0.1:0 --target 127.0.0.1:{} --identity {name} --allow-cn laptop",
                backend.port
            ))
        };
        let (faulty, others) = (serve(&faulty), [serve(&token), serve(&home.soft())]);
        Some(Self { home, token, faulty, others, _backend: backend })
    }

    fn is_served(&self, port: u16) -> bool {
        let certificate = "-cert laptop.pem -cert_chain laptop.pem -key laptop.key";
        let client = s_client(self.home, port, "ca/root.pem", "1.3", certificate);
        run_with_input(client, b"ping\n").text().contains("heard: ping")
    }

    fn faulty_serves(&self) -> bool {
        self.is_served(self.faulty.1)
    }

    fn others_serve(&self) {
        for (server, port) in &self.others {
            assert!(self.is_served(*port), "{}", server.stderr.text());
        }
    }

    fn said(&self) -> String {
        self.faulty.0.stderr.text()
    }
}

#[test]
fn one_that_crashes_again_and_again() {
    let home = Home::with_authority();
    let Some(servers) = Servers::start(&home) else { return };
    assert!(servers.faulty_serves());
    let before = servers.token.status()["pid"].clone();
    let broken = home.path("tokens/broken");
    fs::write(&broken, "").expect("a file");
    let mut tries = 0;
    while !servers.said().contains("times in a row, and ended; the next time is in") {
        assert!(!servers.faulty_serves());
        servers.others_serve();
        tries += 1;
        assert!(tries < 20, "{}", servers.said());
    }
    let said = servers.said();
    assert!(said.matches("an agent ended and was started again").count() >= 5, "{said}");
    assert!(said.contains("before=\"signal: 6 (SIGABRT)"), "{said}");
    fs::remove_file(broken).expect("it is there");
    eventually("it serves again", || servers.faulty_serves());
    servers.others_serve();
    assert_eq!(servers.token.status()["pid"], before);
}

#[test]
fn one_that_leaks() {
    let home = Home::with_authority();
    home.set("ENCLASP_AGENT_MEMORY", "96");
    let Some(servers) = Servers::start(&home) else { return };
    assert!(servers.faulty_serves());
    let before = servers.token.status();
    assert_eq!(before["protections"]["leaks-limited"], "in force");
    let leak = home.path("tokens/leak");
    fs::write(&leak, "").expect("a file");
    let (mut served, mut tries) = (0, 0);
    while !servers.said().contains("an agent ended and was started again") {
        served += u32::from(servers.faulty_serves());
        servers.others_serve();
        tries += 1;
        assert!(tries < 100, "{}", servers.said());
    }
    assert!(served >= 4, "a leak by itself refuses nobody: {served} of {tries}");
    assert!(servers.said().contains("before=\"signal: 6 (SIGABRT)"), "{}", servers.said());
    fs::remove_file(&leak).expect("it is there");
    assert!(servers.faulty_serves(), "{}", servers.said());
    servers.others_serve();
    assert_eq!(servers.token.status()["pid"], before["pid"]);
    let logs = fs::read_dir(home.state()).expect("a folder").filter_map(|file| file.ok());
    let logs = logs.map(|file| fs::read(file.path()).unwrap_or_default());
    assert!(
        logs.map(|log| String::from_utf8_lossy(&log).into_owned())
            .any(|log| log.contains("the keystore leaks"))
    );
}
