//! A PostgreSQL server of a test's own, on a Unix socket in a temporary folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// How long it may take to start: machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(60);

/// `nobody` and `nogroup`: PostgreSQL refuses to run as root.
const UNPRIVILEGED: u32 = 65534;

/// Removed, data and all, with this value.
pub(crate) struct Postgres {
    server: Option<Child>,
    folder: TempDir,
    /// Whether a commit is on the disk before it is acknowledged.
    durable: bool,
    /// Where it listens with TLS as well, if it does.
    port: Option<u16>,
}

impl Postgres {
    /// Starts one. Without PostgreSQL, skips loudly on a person's machine, and fails where `CI` is set.
    pub(crate) fn start() -> Option<Self> {
        // What a crash of the machine would lose is not tested.
        Self::started(false)
    }

    /// The same, which a crash of the machine would make lose nothing.
    pub(crate) fn start_durable() -> Option<Self> {
        Self::started(true)
    }

    fn started(durable: bool) -> Option<Self> {
        if programs().is_none() {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is missing");
            // Not eprintln!, whose output the test runner keeps for itself.
            let _ = writeln!(std::io::stderr(), "SKIPPED: PostgreSQL is missing; see `sh tests/run.sh`");
            return None;
        }
        // The path of a Unix socket has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("enclasp-pg-").tempdir_in("/tmp").expect("a folder");
        if geteuid().is_root() {
            chown(folder.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("chown");
        }
        let mut postgres = Self { server: None, folder, durable, port: None };
        let made = postgres
            .program("initdb")
            .args(["--username=enclasp", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(postgres.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.resume();
        Some(postgres)
    }

    /// Has it listen at a port with this certificate and key (PEM) as well.
    pub(crate) fn serve_tls(&mut self, port: u16, certificate: &[u8], key: &[u8]) {
        for (name, contents) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, contents).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            if geteuid().is_root() {
                chown(&path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("chown");
            }
        }
        self.port = Some(port);
        self.crash();
        self.resume();
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://enclasp@localhost/postgres?host={}", self.folder.path().display())
    }

    /// The id of its first process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Runs statements, which have to succeed, and returns what they print.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let done = self
            .client("psql")
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--set=ON_ERROR_STOP=1",
                "--command",
                statements,
            ])
            .arg("postgres")
            .output()
            .expect("psql runs");
        assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Ends it as a crash would: nothing is finished, and every connection breaks.
    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Its "immediate shutdown" ends the children, too, which a SIGKILL would leave behind.
            let _ = kill_process(Pid::from_child(&server), Signal::QUIT);
            let _ = server.wait();
        }
    }

    /// Starts it again.
    pub(crate) fn resume(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let server = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-c", if self.durable { "fsync=on" } else { "fsync=off" }])
            .args(match self.port {
                None => vec!["-c".to_owned(), "listen_addresses=".into()],
                Some(port) => {
                    let settings =
                        ["listen_addresses=127.0.0.1".into(), format!("port={port}"), "ssl=on".into()];
                    settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
                }
            })
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        self.server = Some(server);
        let until = Instant::now() + PATIENCE;
        let ready = |postgres: &Self| {
            let asked = postgres.client("pg_isready").stdout(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        };
        while !ready(self) {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "PostgreSQL does not start:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn client(&self, name: &str) -> Command {
        let mut command = self.program(name);
        command.arg("--username=enclasp").arg("--host").arg(self.folder.path());
        // The socket's name has the port in it.
        command.args(self.port.map(|port| format!("--port={port}")));
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(programs().expect("it is here").join(name));
        command.env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        if geteuid().is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Debian keeps the server's programs by version, outside of the search path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("postgres").is_file()).max()
}
