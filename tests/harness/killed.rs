//! `enclasp` killed with -9 at a step of its choice: `tests/harness/killed.c`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::home::Home;
use super::process::{Done, run};

impl Home {
    /// Runs `enclasp` and kills it as it begins its `step`th step. If it ended before, what it said.
    pub(crate) fn killed_at(&self, step: u32, line: &str) -> Option<Done> {
        let mut command = self.command(line);
        command.env("LD_PRELOAD", library()).env("KILLED_AT_STEP", step.to_string());
        let done = run(command);
        // Without an exit code it was a signal that ended it.
        done.code.is_some().then_some(done)
    }
}

/// Compiled once for all scenarios.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("killed.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/harness/killed.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        run(compile).succeeds();
        library
    })
}
