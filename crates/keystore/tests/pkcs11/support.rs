//! Real tokens in folders of their own, each test in a process of its own: a module reads its
//! configuration from the environment, once, when it is initialised.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enclasp_keystore::pkcs11::Pkcs11Keystore;
use enclasp_keystore::{GivePin, KeyUri, PinWanted, Result, SignContext};
use zeroize::Zeroizing;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TPM2_PKCS11: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so";

/// Where a test that runs in a child process keeps its token.
const FOLDER: &str = "ENCLASP_TEST_FOLDER";

/// Says loudly that a test was left out, which fails in CI.
fn skip(test: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: {missing} is missing, and CI must have it");
    eprintln!("SKIPPED {test}: {missing} is missing");
}

/// Whether every one of these programs or files is there; otherwise the test is skipped.
fn have(test: &str, parts: &[&str]) -> bool {
    for part in parts {
        let there = match Path::new(part).is_absolute() {
            true => Path::new(part).exists(),
            false => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(part).exists()),
        };
        if !there {
            skip(test, part);
            return false;
        }
    }
    true
}

/// Runs `body` in a child process with a token `t` of SoftHSM, PIN 1234.
pub(crate) fn with_softhsm(test: &str, body: impl FnOnce(&Place)) {
    if !have(test, &[SOFTHSM, "softhsm2-util", "pkcs11-tool", "openssl"]) {
        return;
    }
    let prepare = |folder: &Path| {
        let configuration = folder.join("softhsm2.conf");
        std::fs::create_dir(folder.join("tokens")).unwrap();
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", folder.join("tokens").display());
        std::fs::write(&configuration, text).unwrap();
        let environment = vec![("SOFTHSM2_CONF".to_owned(), configuration.display().to_string())];
        let init = ["--init-token", "--free", "--label", "t", "--pin", "1234", "--so-pin", "56785678"];
        done(Command::new("softhsm2-util").args(init).envs(environment.clone()));
        (environment, ())
    };
    in_child(test, SOFTHSM.into(), prepare, body);
}

/// The same with a token of kryoptic.
pub(crate) fn with_kryoptic(test: &str, body: impl FnOnce(&Place)) {
    let Some(module) = std::env::var_os("ENCLASP_KRYOPTIC_MODULE").map(PathBuf::from) else {
        return skip(test, "ENCLASP_KRYOPTIC_MODULE, which `tests/kryoptic/build.sh` makes,");
    };
    if !have(test, &["pkcs11-tool"]) {
        return;
    }
    let initialised = module.clone();
    let prepare = |folder: &Path| {
        let configuration = folder.join("kryoptic.conf");
        let database = folder.join("token.sql");
        let text = format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display());
        std::fs::write(&configuration, text).unwrap();
        let environment = vec![("KRYOPTIC_CONF".to_owned(), configuration.display().to_string())];
        initialise(&initialised, &environment);
        (environment, ())
    };
    in_child(test, module, prepare, body);
}

/// The same with a token of tpm2-pkcs11, whose keys are in a TPM of its own, an swtpm.
pub(crate) fn with_tpm(test: &str, body: impl FnOnce(&Place)) {
    if !have(test, &[TPM2_PKCS11, "swtpm", "pkcs11-tool"]) {
        return;
    }
    let prepare = |folder: &Path| {
        let (state, socket, store) = (folder.join("state"), folder.join("socket"), folder.join("store"));
        std::fs::create_dir(&state).unwrap();
        std::fs::create_dir(&store).unwrap();
        let mut swtpm = Command::new("swtpm");
        swtpm.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"]);
        swtpm.arg(format!("dir={}", state.display()));
        for (option, path) in [("--server", socket.clone()), ("--ctrl", folder.join("socket.ctrl"))] {
            swtpm.args([option, &format!("type=unixio,path={}", path.display())]);
        }
        let guard = Ended(swtpm.stderr(Stdio::null()).spawn().unwrap());
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < Duration::from_secs(10), "swtpm makes no socket");
            std::thread::sleep(Duration::from_millis(2));
        }
        let environment = vec![
            ("TPM2_PKCS11_STORE".to_owned(), store.display().to_string()),
            ("TPM2_PKCS11_TCTI".to_owned(), format!("swtpm:path={}", socket.display())),
        ];
        initialise(Path::new(TPM2_PKCS11), &environment);
        (environment, guard)
    };
    in_child(test, TPM2_PKCS11.into(), prepare, body);
}

/// Has `pkcs11-tool` make the token `t` in slot 1, PIN 1234.
fn initialise(module: &Path, environment: &[(String, String)]) {
    let tool = |arguments: &[&str]| {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(module).args(["--slot", "1", "--so-pin", "56785678"]);
        done(command.args(arguments).envs(environment.iter().cloned()));
    };
    tool(&["--init-token", "--label", "t"]);
    tool(&["--init-pin", "--login", "--pin", "1234"]);
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `body` in a child process: the same test, told by the environment to go ahead. `prepare`
/// gives the environment that the module reads, and what has to be kept meanwhile.
fn in_child<Guard>(
    test: &str,
    module: PathBuf,
    prepare: impl FnOnce(&Path) -> (Vec<(String, String)>, Guard),
    body: impl FnOnce(&Place),
) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return body(&Place { folder: folder.into(), module });
    }
    let folder = tempfile::tempdir().unwrap();
    let (environment, _guard) = prepare(folder.path());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = child.envs(environment).env(FOLDER, folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} in its process: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{test} did not run: {out}");
}

/// A module with a token `t`.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) module: PathBuf,
}

impl Place {
    pub(crate) fn keystore(&self, pins: &Pins) -> Pkcs11Keystore {
        Pkcs11Keystore::open(&self.module, &self.folder.join("proofs"), pins.clone()).unwrap()
    }

    pub(crate) fn uri(&self, object: &str) -> KeyUri {
        format!("pkcs11:token=t;object={object}?module-path={}", self.module.display()).parse().unwrap()
    }

    /// Has `pkcs11-tool`, another program, do something with the token.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        let module = self.module.display().to_string();
        let common = ["--module", &module, "--token-label", "t", "--login", "--pin", "1234"];
        done(Command::new("pkcs11-tool").args(common).args(arguments))
    }

    pub(crate) fn openssl(&self, arguments: &[&str]) -> Output {
        done(Command::new("openssl").args(arguments).current_dir(&self.folder))
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }
}

/// Runs a command that must succeed.
pub(crate) fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Gives a PIN that the test may change, and counts how often it was asked for.
#[derive(Clone)]
pub(crate) struct Pins(Arc<(Mutex<String>, AtomicUsize)>);

impl Pins {
    pub(crate) fn new(pin: &str) -> Self {
        Self(Arc::new((Mutex::new(pin.into()), AtomicUsize::new(0))))
    }

    pub(crate) fn set(&self, pin: &str) {
        *self.0.0.lock().unwrap() = pin.into();
    }

    pub(crate) fn asked(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl GivePin for Pins {
    fn pin(&self, wanted: &PinWanted<'_>, ctx: &SignContext) -> Result<Zeroizing<String>> {
        assert!(!wanted.what.is_empty() && !ctx.reason.is_empty());
        self.0.1.fetch_add(1, Ordering::Relaxed);
        Ok(Zeroizing::new(self.0.0.lock().unwrap().clone()))
    }
}
