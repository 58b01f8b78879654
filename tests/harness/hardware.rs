//! Where the keys of a scenario live: in software, on PKCS#11 tokens, in TPMs. The hardware is
//! software, too: SoftHSM, kryoptic, tpm2-pkcs11 and swtpm.

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};

use super::authority::{ALGORITHMS, CURVES};
use super::home::Home;
use super::net::{eventually, wait_until_listening};
use super::parts::needs;
use super::ports::free_ports;
use super::process::{Running, run};

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TPM2_PKCS11: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so";

/// A keystore of a home, whose hardware lives as long as this.
pub(crate) struct Keystore<'a> {
    home: &'a Home,
    kind: Kind,
}

enum Kind {
    Soft,
    /// A token `t`. Its PIN is 1234, and in the file `pin`.
    Token {
        name: &'static str,
        module: PathBuf,
        _tpm: Option<Running>,
    },
    Tpm {
        port: u16,
        _process: Running,
    },
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
        let process = self.swtpm("tpm-of-token", &at(&socket), &at(&control));
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
        // The control channel is expected on the port after that of the commands.
        let port = free_ports(2);
        let at = |port: u16| format!("type=tcp,port={port}");
        let process = self.swtpm("tpm", &at(port), &at(port + 1));
        wait_until_listening(port);
        Some(Keystore { home: self, kind: Kind::Tpm { port, _process: process } })
    }

    fn token_keystore(&self, name: &'static str, module: &Path, tpm: Option<Running>) -> Keystore<'_> {
        self.write("pin", "1234\n");
        Keystore { home: self, kind: Kind::Token { name, module: module.to_owned(), _tpm: tpm } }
    }

    /// Has `pkcs11-tool` make the token `t` in slot 1.
    fn initialise(&self, module: &str) {
        for step in ["--init-token --label t", "--init-pin --login --pin 1234"] {
            let line = format!("--module {module} --slot 1 --so-pin 56785678 {step}");
            run(self.with_settings(self.program("pkcs11-tool", &line))).succeeds();
        }
    }

    /// An swtpm with its state in `folder`.
    fn swtpm(&self, folder: &str, server: &str, control: &str) -> Running {
        std::fs::create_dir(self.path(folder)).expect("a folder");
        let flags = "--tpm2 --flags not-need-init,startup-clear";
        let line = format!("socket {flags} --tpmstate dir={folder} --server {server} --ctrl {control}");
        Running::start(self.program("swtpm", &line))
    }
}

impl Keystore<'_> {
    /// For the names of files.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Soft => "soft",
            Kind::Token { name, .. } => name,
            Kind::Tpm { .. } => "swtpm",
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
            Kind::Token { .. } => {
                let pin = self.home.path("pin");
                format!("{}&pin-source=file:{}", self.key_without_pin(name), pin.display())
            }
            _ => self.key_without_pin(name),
        }
    }

    /// The same without where its PIN comes from.
    pub(crate) fn key_without_pin(&self, name: &str) -> String {
        match &self.kind {
            Kind::Soft => format!("soft:name={name}"),
            Kind::Token { module, .. } => {
                format!("pkcs11:token=t;object={name}?module-path={}", module.display())
            }
            Kind::Tpm { port, .. } => format!("tpm:name={name};tcti=swtpm:host=127.0.0.1,port={port}"),
        }
    }

    /// The URI of all keys.
    pub(crate) fn all(&self) -> String {
        match &self.kind {
            Kind::Soft => "soft:".into(),
            Kind::Token { module, .. } => format!("pkcs11:?module-path={}", module.display()),
            Kind::Tpm { port, .. } => format!("tpm:tcti=swtpm:host=127.0.0.1,port={port}"),
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
        }
    }

    /// An identity `name` of the home's authority with a new key here.
    pub(crate) fn identity(&self, name: &str, algorithm: &str, profile: &str) {
        let (home, key) = (self.home, self.key(name));
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

    /// Kills its agent as a crash of the module would.
    pub(crate) fn kill_agent(&self) {
        let status = self.home.enclasp(&format!("{} --status --json", self.agent())).succeeds().json();
        let pid = status["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)).expect("a process");
        kill_process(pid, Signal::KILL).expect("it is ours");
        eventually("the agent is gone", || !self.home.agents().contains(&pid));
    }
}
