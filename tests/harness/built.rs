//! What cargo builds besides the command: the examples of the library, and our PKCS#11 module.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the examples.
pub(crate) fn examples() -> PathBuf {
    built().join("examples")
}

/// Our PKCS#11 module.
pub(crate) fn module() -> PathBuf {
    built().join("libenclasp_pkcs11.so")
}

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
