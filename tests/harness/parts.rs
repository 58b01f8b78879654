//! Programs that a scenario needs and that a machine may lack.

use std::io::Write;
use std::path::Path;

/// Whether all of `programs` are here. If not, the scenario is skipped, loudly on a person's
/// machine, and fails where `CI` is set.
#[must_use]
pub(crate) fn needs(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_here(program)).collect();
    missing.is_empty()
        || skip(&format!("{} missing; `sh tests/run.sh` says what to install", missing.join(", ")))
}

/// Whether this is root, which mounting a file system takes.
#[must_use]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root() || skip("only root can mount a small file system")
}

fn skip(reason: &str) -> bool {
    let scenario = std::thread::current().name().unwrap_or("a scenario").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{scenario}: {reason}");
    // Not eprintln!, whose output the test runner keeps for itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {scenario}: {reason}");
    false
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // nginx lives where only root looks.
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").to_owned()])
        .any(|folder| folder.join(program).is_file())
}
