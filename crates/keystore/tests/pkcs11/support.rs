//! Real tokens in folders of their own, each test in a process of its own: a module reads its
//! configuration from the environment, once, when it is initialised.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use enclasp_keystore::pkcs11::Pkcs11Keystore;
use enclasp_keystore::{GivePin, KeyUri, PinWanted, Result, SignContext};
use zeroize::Zeroizing;

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Where a test that runs in a child process keeps its token.
const FOLDER: &str = "ENCLASP_TEST_FOLDER";

/// Says loudly that a test was left out, which fails in CI.
pub(crate) fn skip(test: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: {missing} is missing, and CI must have it");
    eprintln!("SKIPPED {test}: {missing} is missing");
}

/// Whether every one of these programs or files is there; otherwise the test is skipped.
pub(crate) fn have(test: &str, parts: &[&str]) -> bool {
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
        environment
    };
    in_child(test, SOFTHSM.into(), prepare, body);
}

/// Runs `body` in a child process: the same test, told by the environment to go ahead.
pub(crate) fn in_child(
    test: &str,
    module: PathBuf,
    prepare: impl FnOnce(&Path) -> Vec<(String, String)>,
    body: impl FnOnce(&Place),
) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return body(&Place { folder: folder.into(), module });
    }
    let folder = tempfile::tempdir().unwrap();
    let environment = prepare(folder.path());
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
