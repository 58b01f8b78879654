use std::fs;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use enclasp_keystore::agent::{AgentKeystore, Request, Response, Secret};
use enclasp_keystore::{
    Algorithm, Error, Import, Input, KeySpec, KeyUri, Keystore, Scheme, SignContext, conformance,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::ports::free_ports;
use crate::support::{Agent, eventually, folder, missing, refused};

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// An agent of SoftHSM, with a token `t` in `folder`.
struct Token {
    agent: Agent,
    folder: TempDir,
    module: PathBuf,
}

impl Token {
    fn new() -> Option<Self> {
        Self::of_module(|_| SOFTHSM.into())
    }

    /// One whose module is at fault in the way that a file in `tokens` says (`faulty.c`).
    fn faulty() -> Option<Self> {
        if missing("cc", "--version") {
            return None;
        }
        Self::of_module(|folder| {
            let module = folder.join("faulty.so");
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/faulty.c");
            let mut compile = Command::new("cc");
            compile.args(["-shared", "-fPIC", "-o"]).arg(&module).arg(source).arg("-ldl");
            assert!(compile.status().unwrap().success());
            module
        })
    }

    fn of_module(module: impl FnOnce(&Path) -> PathBuf) -> Option<Self> {
        if missing("softhsm2-util", "--version") {
            return None;
        }
        let folder = folder();
        let configuration = folder.path().join("softhsm2.conf");
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(&configuration, text).unwrap();
        fs::write(folder.path().join("pin"), "1234\n").unwrap();
        let init = ["--init-token", "--free", "--label", "t", "--pin", "1234", "--so-pin", "56785678"];
        let made = Command::new("softhsm2-util").args(init).env("SOFTHSM2_CONF", &configuration).output();
        assert!(made.unwrap().status.success());
        let module = module(folder.path());
        let agent = Self::agent(&folder, &module, crate::support::folder());
        Some(Self { agent, folder, module })
    }

    fn agent(folder: &TempDir, module: &Path, of_agent: TempDir) -> Agent {
        let named = |name: &str, file: &str| format!("{name}={}", folder.path().join(file).display());
        let options = [
            format!("module={}", module.display()),
            named("SOFTHSM2_CONF", "softhsm2.conf"),
            named("FAULTY", "tokens"),
            "max-memory-mib=128".to_owned(),
        ];
        Agent::start_in(of_agent, &options.each_ref().map(String::as_str))
    }

    /// Waits until the agent has died of a signal, and starts another in its place.
    fn starts_again(self) -> Self {
        let (status, of_agent) = self.agent.wait();
        assert_eq!(status.signal(), Some(6), "{status}");
        let agent = Self::agent(&self.folder, &self.module, of_agent);
        Self { agent, folder: self.folder, module: self.module }
    }

    fn keystore(&self) -> AgentKeystore {
        self.agent.keystore()
    }

    fn uri(&self, name: &str) -> KeyUri {
        let (module, pin) = (self.module.display(), self.folder.path().join("pin"));
        let uri =
            format!("pkcs11:token=t;object={name}?module-path={module}&pin-source=file:{}", pin.display());
        uri.parse().unwrap()
    }
}

pub fn a_module_is_served_conformingly() {
    let Some(token) = Token::new() else { return };
    let algorithms = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519, Algorithm::Rsa];
    let keystore = token.keystore();
    // The list names keys without where their PIN comes from.
    keystore.create(&KeySpec::new(token.uri("first"))).unwrap();
    conformance::run(&keystore, |name| without_pin(&token.uri(name)), &algorithms);
    let key = keystore.open(&token.uri("first")).unwrap();
    key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::default()).unwrap();
    let status = keystore.status().unwrap();
    let usage = status.keys.iter().find(|usage| usage.key == key.info().uri.to_string()).unwrap();
    assert_eq!((usage.signed, usage.denied + usage.late + usage.busy + usage.failed), (1, 0), "{usage}");
    assert!(usage.queueing.below(100).is_some() && usage.signing.below(100).is_some());
    for (measure, outcome) in status.protections {
        assert!(outcome.is_ok() || measure == "memory-locked", "{measure}: {outcome:?}");
    }
}

fn without_pin(uri: &KeyUri) -> KeyUri {
    uri.to_string().split("&pin-source").next().unwrap().parse().unwrap()
}

pub fn what_a_module_cannot_do_is_refused() {
    let Some(token) = Token::new() else { return };
    let pkcs8 = Zeroizing::new(vec![0; 32]);
    let error = token.keystore().import(&token.uri("web"), pkcs8).map(drop).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let error = token.keystore().open(&KeyUri::soft("web").unwrap()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

pub fn a_wrong_pin_is_forgotten_and_not_tried_again() {
    let Some(token) = Token::new() else { return };
    let mut wire = token.agent.wire();
    let uri = without_pin(&token.uri("web"));
    let mut unlock = |pin: &str| {
        let pin = Secret::new(Zeroizing::new(pin.as_bytes().to_vec()));
        wire.call(1, &Request::Unlock { key: uri.clone(), pin })
    };
    assert_eq!(unlock("9999"), Response::Done);
    let create = || token.keystore().create(&KeySpec::new(uri.clone())).map(drop);
    let error = create().unwrap_err().to_string();
    assert!(error.contains("refused the PIN"), "{error}");
    let error = create().unwrap_err().to_string();
    assert!(error.contains("its PIN is needed"), "it was forgotten: {error}");
    assert!(matches!(refused(unlock("9999")), Error::Denied { .. }));
    assert_eq!(unlock("1234"), Response::Done);
    create().unwrap();
}

pub fn a_module_that_crashes_takes_its_agent_alone() {
    let Some(token) = Token::faulty() else { return };
    let key = token.keystore().create(&KeySpec::new(token.uri("web"))).unwrap();
    fs::write(token.folder.path().join("tokens/crash"), "").unwrap();
    let outcome = key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("once"));
    assert!(matches!(outcome, Err(Error::Unavailable { .. })), "{outcome:?}");
    let token = token.starts_again();
    // The same key goes on with the next agent, which it gives the PIN.
    key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("again")).unwrap();
    drop(token);
}

/// Nothing can interrupt a call of a module, but nobody has to wait for it.
pub fn a_module_that_hangs_is_a_deadline() {
    let Some(token) = Token::faulty() else { return };
    let key = token.keystore().create(&KeySpec::new(token.uri("web"))).unwrap();
    // From the second signature on they go by a lane.
    for _ in 0..2 {
        key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("before")).unwrap();
    }
    let hang = token.folder.path().join("tokens/hang");
    fs::write(&hang, "").unwrap();
    let began = Instant::now();
    let ctx = SignContext::new("in time").with_deadline(began + Duration::from_millis(300));
    let outcome = key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &ctx);
    assert!(matches!(outcome, Err(Error::Deadline { .. })), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(4));
    let _token = token.starts_again();
    fs::remove_file(&hang).unwrap();
    key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("again")).unwrap();
}

/// Its agent ends before the machine has nothing left.
pub fn a_module_that_leaks_takes_its_agent_alone() {
    let Some(mut token) = Token::faulty() else { return };
    let key = token.keystore().create(&KeySpec::new(token.uri("web"))).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", token.agent.pid())).unwrap();
    let data = limits.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap();
    assert_eq!(data.split_whitespace().next(), Some("1342177280"), "{limits}");
    for what in ["leak", "open"] {
        let leak = token.folder.path().join("tokens").join(what);
        fs::write(&leak, "").unwrap();
        for _ in 0..10 {
            // What comes when it has ended, or when nothing is left, is refused.
            let outcome = key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("more"));
            assert!(matches!(outcome, Ok(_) | Err(Error::Unavailable { .. })), "{what}: {outcome:?}");
        }
        token = token.starts_again();
        fs::remove_file(&leak).unwrap();
        key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("again")).unwrap();
    }
}

pub fn what_is_no_module_is_refused() {
    let folder = folder();
    let said = Agent::refusal(&folder, &["module=/nowhere/module.so"]);
    assert!(said.contains("/nowhere/module.so") && said.contains("No such file"), "{said}");
    let here = std::env::current_exe().unwrap();
    let said = Agent::refusal(&folder, &[&format!("module={}", here.display())]);
    assert!(said.contains("cannot be loaded") || said.contains("not a PKCS#11 module"), "{said}");
}

pub fn a_tpm_is_served_conformingly() {
    if !cfg!(feature = "tpm") {
        let said = Agent::refusal(&folder(), &["tpm=swtpm"]);
        assert!(said.contains("this build has no `tpm` keystore"), "{said}");
        return;
    }
    let Some(tpm) = Swtpm::start() else { return };
    let tcti = format!("swtpm:host=127.0.0.1,port={}", tpm.port);
    let agent = Agent::start(&[&format!("tpm={tcti}")]);
    let keystore = agent.keystore();
    let uri = |name: &str| KeyUri::tpm(name, Some(&tcti)).unwrap();
    conformance::run(&keystore, uri, &[Algorithm::P256, Algorithm::P384, Algorithm::Rsa]);
    for (measure, outcome) in keystore.status().unwrap().protections {
        assert!(outcome.is_ok() || measure == "memory-locked", "{measure}: {outcome:?}");
    }
}

struct Swtpm {
    child: Child,
    port: u16,
    _state: TempDir,
}

impl Swtpm {
    fn start() -> Option<Self> {
        if missing("swtpm", "--version") {
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let port = free_ports(2);
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.path().display()))
            .args(["--server", &format!("type=tcp,port={port}")])
            .args(["--ctrl", &format!("type=tcp,port={}", port + 1)])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { child, port, _state: state };
        eventually("swtpm listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(tpm)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
