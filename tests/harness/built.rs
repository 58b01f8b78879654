//! What cargo builds besides the command: the examples of the library, our PKCS#11 module, and what
//! programs in other languages import.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::run;

/// The folder of the examples.
pub(crate) fn examples() -> PathBuf {
    built().join("examples")
}

/// Our PKCS#11 module.
pub(crate) fn module() -> PathBuf {
    built().join("libenclasp_pkcs11.so")
}

/// A folder with what programs in Python, Kotlin and Swift import, and the library. It is made once.
pub(crate) fn generated() -> &'static Path {
    static GENERATED: OnceLock<PathBuf> = OnceLock::new();
    GENERATED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bindings");
        // What an earlier version of the interface left behind is not to be compiled.
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("it is ours");
        }
        let library = built().join(BINDINGS);
        let mut generate = Command::new(examples().join("generate"));
        generate.arg(&library).arg(&folder).args(["python", "kotlin", "swift"]);
        run(generate).succeeds();
        fs::copy(library, folder.join(BINDINGS)).expect("a copy");
        folder
    })
}

/// The library behind programs in other languages.
const BINDINGS: &str = "libenclasp_bindings.so";

/// The folder of everything, once it is built. `cargo test --workspace` has done most of it already; a
/// test of one package alone would find old ones.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--release", "--workspace", "--lib", "--examples"]);
        if cfg!(feature = "tpm") {
            command.args(["--features", "enclasp-cli/tpm"]);
        }
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        // However long it takes.
        assert!(command.status().expect("cargo runs").success());
        Path::new(env!("CARGO_BIN_EXE_enclasp")).with_file_name("")
    })
}
