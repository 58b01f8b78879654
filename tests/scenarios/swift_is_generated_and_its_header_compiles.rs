//! The interface for Swift is generated, and a C compiler takes the header that its module imports.

use std::fs;
use std::process::Command;

use crate::harness::{generated, needs, run};

#[test]
fn swift_is_generated_and_its_header_compiles() {
    if !needs(&["cc"]) {
        return;
    }
    let swift = fs::read_to_string(generated().join("Enclasp.swift")).expect("the Swift source");
    assert!(swift.contains("func sign(request: SigningRequest) throws  -> Data"), "{swift}");
    let mut cc = Command::new("cc");
    // Words of clang's that say nothing about how bytes are passed.
    cc.args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only", "-D_Nonnull=", "-D_Nullable=", "-include"]);
    cc.arg(generated().join("EnclaspFFI.h")).args(["-x", "c", "/dev/null"]);
    run(cc).succeeds();
}
