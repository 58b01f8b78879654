//! The `enclasp` command.

fn main() {}
