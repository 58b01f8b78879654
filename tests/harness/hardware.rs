//! Where the keys of a scenario live: in software, on PKCS#11 tokens, in TPMs. The hardware is
//! software, too: SoftHSM, kryoptic, tpm2-pkcs11 and swtpm.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::authority::{ALGORITHMS, CURVES};
use super::home::Home;
use super::net::{eventually, wait_until_listening};
use super::parts::needs;
use super::ports::free_ports;
use super::process::{Running, run};

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TPM2_PKCS11: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so";

/// The TCTI of a resource manager on the session's bus.
const MANAGED: &str = "tabrmd:bus_type=session";

/// A keystore of a home, whose hardware lives as long as this.
pub(crate) struct Keystore<'a> {
    home: &'a Home,
    kind: Kind,
}

enum Kind {
    Soft,
    /// A token. Its PIN is in a file: for the label `t` 1234 in `pin`, for another one in `pin-LABEL`.
    Token {
        name: &'static str,
        label: &'static str,
        module: PathBuf,
        _tpm: Option<Running>,
    },
    Tpm {
        port: u16,
        _process: Running,
    },
    /// Behind a resource manager.
    ManagedTpm,
}

impl Home {
    /// The software keys, and all of [`hardware`](Self::hardware).
    pub(crate) fn keystores(&self) -> Vec<Keystore<'_>> {
        std::iter::once(self.soft()).chain(self.hardware()).collect()
    }

    /// A token and a TPM, if this build can use and this machine has them. What is missing is
    /// skipped loudly, and fails in CI.
    pub(crate) fn hardware(&self) -> Vec<Keystore<'_>> {
        self.softhsm().into_iter().chain(self.tpm()).collect()
    }

    pub(crate) fn soft(&self) -> Keystore<'_> {
        Keystore { home: self, kind: Kind::Soft }
    }

    /// A token of SoftHSM.
    pub(crate) fn softhsm(&self) -> Option<Keystore<'_>> {
        if !needs(&["softhsm2-util", SOFTHSM]) {
            return None;
        }
        let tokens = self.path("tokens");
        std::fs::create_dir(&tokens).expect("a folder");
        // Where SoftHSM looks by itself in the home of a user.
        std::fs::create_dir_all(self.path(".config/softhsm2")).expect("a folder");
        let configuration = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        self.write(".config/softhsm2/softhsm2.conf", configuration);
        let mut make =
            self.program("softhsm2-util", "--init-token --free --label t --pin 1234 --so-pin 56785678");
        make.env("HOME", self.path(""));
        run(make).succeeds();
        Some(self.token_keystore("softhsm", Path::new(SOFTHSM), None))
    }

    /// A token `u` of SoftHSM beside the other one. Its PIN is 5678.
    pub(crate) fn second_token(&self) -> Keystore<'_> {
        let mut make =
            self.program("softhsm2-util", "--init-token --free --label u --pin 5678 --so-pin 56785678");
        make.env("HOME", self.path(""));
        run(make).succeeds();
        self.write("pin-u", "5678\n");
        let kind = Kind::Token { name: "softhsm-u", label: "u", module: SOFTHSM.into(), _tpm: None };
        Keystore { home: self, kind }
    }

    /// The token of [`softhsm`](Self::softhsm) through a module that is at fault in the way that a file
    /// in `tokens` says: `crates/agent/tests/agent/faulty.c`.
    pub(crate) fn faulty(&self) -> Keystore<'_> {
        self.set("FAULTY", self.path("tokens"));
        let module = self.path("faulty.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/tests/agent/faulty.c");
        let mut compile = self.program("cc", "-shared -fPIC -Wall -Werror -o");
        compile.arg(&module).arg(source).arg("-ldl");
        run(compile).succeeds();
        self.token_keystore("faulty", &module, None)
    }

    /// A token of kryoptic.
    pub(crate) fn kryoptic(&self) -> Option<Keystore<'_>> {
        let module = std::env::var("ENCLASP_KRYOPTIC_MODULE").unwrap_or_default();
        let module = if module.is_empty() {
            "ENCLASP_KRYOPTIC_MODULE of tests/kryoptic/build.sh".into()
        } else {
            module
        };
        if !needs(&[&module, "pkcs11-tool"]) {
            return None;
        }
        let database = self.path("kryoptic.sql");
        let configuration =
            format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display());
        self.write("kryoptic.conf", configuration);
        self.set("KRYOPTIC_CONF", self.path("kryoptic.conf"));
        self.initialise(&module);
        Some(self.token_keystore("kryoptic", Path::new(&module), None))
    }

    /// A token of tpm2-pkcs11, whose keys are in a TPM of its own.
    pub(crate) fn tpm2_pkcs11(&self) -> Option<Keystore<'_>> {
        if !needs(&[TPM2_PKCS11, "swtpm", "pkcs11-tool"]) {
            return None;
        }
        let (socket, control) = (self.path("tpm-of-token.sock"), self.path("tpm-of-token.sock.ctrl"));
        let at = |path: &Path| format!("type=unixio,path={}", path.display());
        std::fs::create_dir(self.path("tpm-of-token")).expect("a folder");
        let process = self.run_swtpm("tpm-of-token", &at(&socket), &at(&control));
        eventually("swtpm listens", || socket.exists() && control.exists());
        let store = self.path("tpm2-pkcs11");
        std::fs::create_dir(&store).expect("a folder");
        self.set("TPM2_PKCS11_STORE", store);
        self.set("TPM2_PKCS11_TCTI", format!("swtpm:path={}", socket.display()));
        self.initialise(TPM2_PKCS11);
        Some(self.token_keystore("tpm2-pkcs11", Path::new(TPM2_PKCS11), Some(process)))
    }

    /// A TPM.
    pub(crate) fn tpm(&self) -> Option<Keystore<'_>> {
        let built = cfg!(feature = "tpm") || needs(&["libtss2-dev, with which the feature tpm is built,"]);
        if !built || !needs(&["swtpm"]) {
            return None;
        }
        let port = free_ports(2);
        std::fs::create_dir(self.path("tpm")).expect("a folder");
        let process = self.swtpm_at(port);
        Some(Keystore { home: self, kind: Kind::Tpm { port, _process: process } })
    }

    /// A TPM behind a resource manager, on a bus of its own.
    pub(crate) fn managed_tpm(&self) -> Option<ManagedTpm<'_>> {
        let tcti = "/usr/lib/x86_64-linux-gnu/libtss2-tcti-tabrmd.so.0";
        let built = cfg!(feature = "tpm") || needs(&["libtss2-dev, with which the feature tpm is built,"]);
        if !built || !needs(&["swtpm", "tpm2-abrmd", "tpm2_getcap", "dbus-daemon", tcti]) {
            return None;
        }
        let (port, bus) = (free_ports(2), self.path("bus"));
        let address = format!("unix:path={}", bus.display());
        let daemon = self.program("dbus-daemon", &format!("--session --nofork --address={address}"));
        let daemon = Running::start(daemon);
        eventually("the bus is there", || bus.exists());
        self.set("DBUS_SESSION_BUS_ADDRESS", address);
        std::fs::create_dir(self.path("tpm")).expect("a folder");
        let tpm = self.swtpm_at(port);
        let manager = self.resource_manager(port);
        let kind = Kind::ManagedTpm;
        Some(ManagedTpm { keystore: Keystore { home: self, kind }, port, manager, tpm, _bus: daemon })
    }

    fn resource_manager(&self, port: u16) -> Running {
        let line = format!("--session --allow-root --tcti=swtpm:host=127.0.0.1,port={port}");
        let manager = Running::start(self.with_settings(self.program("tpm2-abrmd", &line)));
        eventually("the resource manager answers", || {
            let ask = self.program("tpm2_getcap", &format!("-T {MANAGED} properties-fixed"));
            run(self.with_settings(ask)).code == Some(0)
        });
        manager
    }

    fn swtpm_at(&self, port: u16) -> Running {
        let at = |port: u16| format!("type=tcp,port={port}");
        // The control channel is expected on the port after that of the commands.
        let process = self.run_swtpm("tpm", &at(port), &at(port + 1));
        wait_until_listening(port);
        process
    }

    fn token_keystore(&self, name: &'static str, module: &Path, tpm: Option<Running>) -> Keystore<'_> {
        self.write("pin", "1234\n");
        Keystore { home: self, kind: Kind::Token { name, label: "t", module: module.to_owned(), _tpm: tpm } }
    }

    /// Has `pkcs11-tool` make the token `t` in slot 1.
    fn initialise(&self, module: &str) {
        for step in ["--init-token --label t", "--init-pin --login --pin 1234"] {
            let line = format!("--module {module} --slot 1 --so-pin 56785678 {step}");
            run(self.with_settings(self.program("pkcs11-tool", &line))).succeeds();
        }
    }

    /// An swtpm with its state in `folder`.
    fn run_swtpm(&self, folder: &str, server: &str, control: &str) -> Running {
        let flags = "--tpm2 --flags not-need-init,startup-clear";
        let line = format!("socket {flags} --tpmstate dir={folder} --server {server} --ctrl {control}");
        Running::start(self.program("swtpm", &line))
    }
}

/// A TPM whose resource manager, and itself, can fail.
pub(crate) struct ManagedTpm<'a> {
    pub(crate) keystore: Keystore<'a>,
    port: u16,
    manager: Running,
    tpm: Running,
    _bus: Running,
}

impl ManagedTpm<'_> {
    /// Ends the resource manager as a crash would.
    pub(crate) fn kill_manager(&mut self) {
        self.manager.signal(Signal::KILL);
        eventually("the resource manager is gone", || !self.manager.is_running());
    }

    pub(crate) fn start_manager(&mut self) {
        self.manager = self.keystore.home.resource_manager(self.port);
    }

    /// Resets the TPM under its resource manager, which does not notice.
    pub(crate) fn reset(&self) {
        let mut control = TcpStream::connect(("127.0.0.1", self.port + 1)).expect("swtpm listens");
        // CMD_INIT without flags.
        control.write_all(&[0, 0, 0, 2, 0, 0, 0, 0]).expect("it takes it");
        let mut result = [0; 4];
        control.read_exact(&mut result).expect("it answers");
        assert_eq!(result, [0; 4]);
    }

    /// Cuts the TPM's power, with which its resource manager loses it.
    pub(crate) fn cut_power(&mut self) {
        self.tpm.signal(Signal::KILL);
        eventually("swtpm is gone", || !self.tpm.is_running());
        self.tpm = self.keystore.home.swtpm_at(self.port);
    }
}

impl Keystore<'_> {
    /// For the names of files.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Soft => "soft",
            Kind::Token { name, .. } => name,
            Kind::Tpm { .. } => "swtpm",
            Kind::ManagedTpm => "tabrmd",
        }
    }

    /// The types of key that scenarios go through here.
    pub(crate) fn algorithms(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Soft => &ALGORITHMS,
            _ => &CURVES,
        }
    }

    /// The URI of a key.
    pub(crate) fn key(&self, name: &str) -> String {
        match &self.kind {
            Kind::Token { label, .. } => {
                let pin = if *label == "t" { "pin".to_owned() } else { format!("pin-{label}") };
                let pin = self.home.path(&pin);
                format!("{}&pin-source=file:{}", self.key_without_pin(name), pin.display())
            }
            _ => self.key_without_pin(name),
        }
    }

    /// The same without where its PIN comes from.
    pub(crate) fn key_without_pin(&self, name: &str) -> String {
        match &self.kind {
            Kind::Soft => format!("soft:name={name}"),
            Kind::Token { label, module, .. } => {
                format!("pkcs11:token={label};object={name}?module-path={}", module.display())
            }
            Kind::Tpm { port, .. } => format!("tpm:name={name};tcti=swtpm:host=127.0.0.1,port={port}"),
            Kind::ManagedTpm => format!("tpm:name={name};tcti={MANAGED}"),
        }
    }

    /// The URI of all keys.
    pub(crate) fn all(&self) -> String {
        match &self.kind {
            Kind::Soft => "soft:".into(),
            Kind::Token { module, .. } => format!("pkcs11:?module-path={}", module.display()),
            Kind::Tpm { port, .. } => format!("tpm:tcti=swtpm:host=127.0.0.1,port={port}"),
            Kind::ManagedTpm => format!("tpm:tcti={MANAGED}"),
        }
    }

    /// The URIs of the keys that are there.
    pub(crate) fn keys(&self) -> Vec<String> {
        let listed = self.home.enclasp(&format!("key list {} --json", self.all())).succeeds().json();
        let uri = |key: &serde_json::Value| key["uri"].as_str().expect("a URI").to_owned();
        listed.as_array().expect("a list").iter().map(uri).collect()
    }

    /// The argument of `enclasp agent` for it.
    pub(crate) fn agent(&self) -> String {
        match &self.kind {
            Kind::Soft => "agent".into(),
            Kind::Token { module, .. } => format!("agent --module {}", module.display()),
            Kind::Tpm { port, .. } => format!("agent --tpm swtpm:host=127.0.0.1,port={port}"),
            Kind::ManagedTpm => format!("agent --tpm {MANAGED}"),
        }
    }

    /// An identity `name` of the home's authority with a new key here.
    pub(crate) fn identity(&self, name: &str, algorithm: &str, profile: &str) {
        self.identity_with(name, name, algorithm, profile);
    }

    /// The same with a key of another name.
    pub(crate) fn identity_with(&self, key: &str, name: &str, algorithm: &str, profile: &str) {
        let (home, key) = (self.home, self.key(key));
        home.request_with(&key, name, algorithm);
        home.enclasp(&format!("ca sign --dir ca {name}.csr --profile {profile} --out {name}.pem")).succeeds();
        home.enclasp(&format!(
            "identity import --name {name} --cert {name}.pem --key {key} --cacert ca/root.pem"
        ))
        .succeeds();
    }

    /// An identity for each type of key that scenarios go through here; their names.
    pub(crate) fn identities(&self, profile: &str) -> Vec<String> {
        let named = |algorithm: &&str| {
            let name = self.named(algorithm);
            self.identity(&name, algorithm, profile);
            name
        };
        self.algorithms().iter().map(named).collect()
    }

    /// The name of an identity here with that type of key: `swtpm-p256`.
    pub(crate) fn named(&self, algorithm: &str) -> String {
        format!("{}-{algorithm}", self.name())
    }

    /// What its agent says of itself.
    pub(crate) fn status(&self) -> serde_json::Value {
        self.home.enclasp(&format!("{} --status --json", self.agent())).succeeds().json()
    }

    /// Kills its agent as a crash of the module would.
    pub(crate) fn kill_agent(&self) {
        let pid = self.status()["pid"].as_i64();
        let pid = pid.and_then(|pid| Pid::from_raw(pid as i32)).expect("a process");
        kill_process(pid, Signal::KILL).expect("it is ours");
        eventually("the agent is gone", || !self.home.agents().contains(&pid));
    }
}
