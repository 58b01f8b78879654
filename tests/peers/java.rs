//! JSSE, of a JDK: `tests/peers/java`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Done, Home, Running, run, run_with_input};

/// A Java server with a key store for each of some peers.
pub(crate) struct Java {
    running: Running,
}

impl Java {
    /// Serves as each of `peers`, and trusts the root in `root`.
    pub(crate) fn server(home: &Home, root: &str, peers: &[&str]) -> Self {
        let stores: Vec<String> = peers.iter().map(|peer| key_store(home, peer)).collect();
        let mut command = java(home.program("java", ""), "Server");
        command.arg(trust_store(home, root)).args(stores);
        let running = Running::start(command);
        running.stdout.wait_for("ready");
        Self { running }
    }

    /// Where it listens as `peer` with that version of TLS.
    pub(crate) fn port(&self, peer: &str, version: &str) -> u16 {
        let line = self.running.stdout.wait_for(&format!("listening {peer}.p12 TLSv{version} "));
        line.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Waits until it has said `text` `count` times; returns the line.
    pub(crate) fn says(&self, text: &str, count: usize) -> String {
        self.running.stdout.wait_for_count(text, count)
    }
}

/// Connections that one Java client makes, one after the other.
pub(crate) struct JavaClient<'a> {
    home: &'a Home,
    trust: String,
    connections: String,
}

impl<'a> JavaClient<'a> {
    pub(crate) fn new(home: &'a Home, root: &str) -> Self {
        Self { home, trust: trust_store(home, root), connections: String::new() }
    }

    /// With a key store: a PKCS#12 file, or the configuration of SunPKCS11 in a file *.pkcs11.
    pub(crate) fn connect_with(&mut self, port: u16, version: &str, store: &str) {
        self.connections += &format!("{port} TLSv{version} {store}\n");
    }

    /// As `peer`, or without a certificate.
    pub(crate) fn connect(&mut self, port: u16, version: &str, peer: Option<&str>) {
        let store = peer.map_or("-".to_owned(), |peer| key_store(self.home, peer));
        self.connect_with(port, version, &store);
    }

    /// Makes them; the answers are lines of its standard output.
    pub(crate) fn run(self) -> Done {
        let command = java(self.home.program("java", ""), "Client");
        self.run_by(command)
    }

    /// The same as a program that loads our module.
    pub(crate) fn run_as_host(self) -> Done {
        let command = java(self.home.host("java", ""), "Client");
        self.run_by(command)
    }

    fn run_by(self, mut command: Command) -> Done {
        command.arg(&self.trust);
        run_with_input(command, self.connections.as_bytes()).succeeds()
    }
}

/// What Java's PKIXRevocationChecker says of NAME.pem, asking by `crl` or by `ocsp`.
pub(crate) fn java_on_revocation(home: &Home, certificate: &str, how: &str) -> Done {
    let mut command = home.program("java", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1");
    command.arg("-Dcom.sun.security.enableCRLDP=true").arg("-cp").arg(classes()).arg("Revocation");
    command.args(["ca/root.pem", certificate, "ca/issuing.pem", how]);
    run(command).succeeds()
}

fn java(mut command: Command, class: &str) -> Command {
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(classes()).arg(class);
    command
}

/// The compiled classes; compiled once for all scenarios.
fn classes() -> &'static Path {
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("java");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/java");
        let mut javac = Command::new("javac");
        javac.args(["-Werror", "-Xlint:all", "-d"]).arg(&classes);
        javac.args(
            ["Server.java", "Client.java", "Stores.java", "Revocation.java"].map(|file| sources.join(file)),
        );
        run(javac).succeeds();
        classes
    })
}

/// NAME.p12 of NAME.key and NAME.pem.
fn key_store(home: &Home, name: &str) -> String {
    let store = format!("{name}.p12");
    let new = new_file();
    home.openssl(&format!(
        "pkcs12 -export -inkey {name}.key -in {name}.pem -name {name} -passout pass:secret -out {new}"
    ));
    rename(home, &new, &store);
    store
}

/// By the JDK's own tool: Java trusts no certificate in a store that OpenSSL made.
fn trust_store(home: &Home, root: &str) -> String {
    let store = format!("java-trusts-{}.p12", root.replace('/', "-"));
    if !home.path(&store).exists() {
        let new = new_file();
        let arguments = format!(
            "-importcert -noprompt -alias root -file {root} -keystore {new} -storetype PKCS12 -storepass secret"
        );
        run(home.program("keytool", &arguments)).succeeds();
        rename(home, &new, &store);
    }
    store
}

/// A name that no other thread has for a file.
fn new_file() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("new-{}.p12", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Who reads it meanwhile reads the one or the other.
fn rename(home: &Home, from: &str, to: &str) {
    std::fs::rename(home.path(from), home.path(to)).expect("a file");
}
