//! Hardware in software: the tokens of SoftHSM, and TPMs of swtpm.

use rustix::process::{Pid, Signal, kill_process};

use super::home::Home;
use super::net::{eventually, wait_until_listening};
use super::parts::needs;
use super::ports::free_ports;
use super::process::{Running, run};

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Keys in hardware of a home, which lives as long as this.
pub(crate) struct Hardware<'a> {
    home: &'a Home,
    kind: Kind,
}

enum Kind {
    SoftHsm,
    Swtpm { port: u16, _process: Running },
}

impl Home {
    /// All the hardware that this build can use and this machine has. What is missing is skipped
    /// loudly, and fails in CI.
    pub(crate) fn hardware(&self) -> Vec<Hardware<'_>> {
        self.softhsm().into_iter().chain(self.tpm()).collect()
    }

    /// A token `t` of SoftHSM. Its PIN is 1234, and in the file `pin`.
    pub(crate) fn softhsm(&self) -> Option<Hardware<'_>> {
        if !needs(&["softhsm2-util", SOFTHSM]) {
            return None;
        }
        let tokens = self.path("tokens");
        std::fs::create_dir(&tokens).expect("a folder");
        // Where SoftHSM looks by itself in the home of a user.
        std::fs::create_dir_all(self.path(".config/softhsm2")).expect("a folder");
        let configuration = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        self.write(".config/softhsm2/softhsm2.conf", configuration);
        self.write("pin", "1234\n");
        let mut make =
            self.program("softhsm2-util", "--init-token --free --label t --pin 1234 --so-pin 56785678");
        make.env("HOME", self.path(""));
        run(make).succeeds();
        Some(Hardware { home: self, kind: Kind::SoftHsm })
    }

    /// A TPM.
    pub(crate) fn tpm(&self) -> Option<Hardware<'_>> {
        let built = cfg!(feature = "tpm") || needs(&["libtss2-dev, with which the feature tpm is built,"]);
        if !built || !needs(&["swtpm"]) {
            return None;
        }
        // The control channel is expected on the port after that of the commands.
        let port = free_ports(2);
        std::fs::create_dir(self.path("tpm")).expect("a folder");
        let process = Running::start(self.program(
            "swtpm",
            &format!(
                "socket --tpm2 --flags not-need-init,startup-clear --tpmstate dir=tpm \
                 --server type=tcp,port={port} --ctrl type=tcp,port={}",
                port + 1
            ),
        ));
        wait_until_listening(port);
        Some(Hardware { home: self, kind: Kind::Swtpm { port, _process: process } })
    }
}

impl Hardware<'_> {
    /// For the names of files.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::SoftHsm => "softhsm",
            Kind::Swtpm { .. } => "swtpm",
        }
    }

    /// The URI of a key.
    pub(crate) fn key(&self, name: &str) -> String {
        match self.kind {
            Kind::SoftHsm => {
                let pin = self.home.path("pin");
                format!("{}&pin-source=file:{}", self.key_without_pin(name), pin.display())
            }
            Kind::Swtpm { .. } => self.key_without_pin(name),
        }
    }

    /// The same without where its PIN comes from.
    pub(crate) fn key_without_pin(&self, name: &str) -> String {
        match self.kind {
            Kind::SoftHsm => format!("pkcs11:token=t;object={name}?module-path={SOFTHSM}"),
            Kind::Swtpm { port, .. } => format!("tpm:name={name};tcti=swtpm:host=127.0.0.1,port={port}"),
        }
    }

    /// The URI of all keys.
    pub(crate) fn all(&self) -> String {
        match self.kind {
            Kind::SoftHsm => format!("pkcs11:?module-path={SOFTHSM}"),
            Kind::Swtpm { port, .. } => format!("tpm:tcti=swtpm:host=127.0.0.1,port={port}"),
        }
    }

    /// The argument of `enclasp agent` for it.
    pub(crate) fn agent(&self) -> String {
        match self.kind {
            Kind::SoftHsm => format!("agent --module {SOFTHSM}"),
            Kind::Swtpm { port, .. } => format!("agent --tpm swtpm:host=127.0.0.1,port={port}"),
        }
    }

    /// An identity `name` of the home's authority with a new key here.
    pub(crate) fn identity(&self, name: &str, algorithm: &str, profile: &str) {
        let key = self.key(name);
        let home = self.home;
        home.enclasp(&format!("key create {key} --algorithm {algorithm}")).succeeds();
        let names = format!("--subject CN={name},OU=Ops,O=Acme --san dns:localhost --san ip:127.0.0.1");
        home.enclasp(&format!("csr create --key {key} {names} --out {name}.csr")).succeeds();
        home.enclasp(&format!("ca sign --dir ca {name}.csr --profile {profile} --out {name}.pem")).succeeds();
        home.enclasp(&format!(
            "identity import --name {name} --cert {name}.pem --key {key} --cacert ca/root.pem"
        ))
        .succeeds();
    }

    /// Kills its agent as a crash of the module would.
    pub(crate) fn kill_agent(&self) {
        let status = self.home.enclasp(&format!("{} --status --json", self.agent())).succeeds().json();
        let pid = status["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)).expect("a process");
        kill_process(pid, Signal::KILL).expect("it is ours");
        eventually("the agent is gone", || !self.home.agents().contains(&pid));
    }
}
