//! Files that are right, and files that are wrong in one way each.

mod builder;
mod certificates;
mod keys;
mod mutations;
mod requests;

use std::time::SystemTime;

use enclasp_doctor::file::{Examined, File, Kind, examine};

/// Looks at a file with nothing else known.
fn look(kind: Kind, bytes: &[u8]) -> Examined {
    examine(kind, &File::new("the file", bytes, SystemTime::now()))
}

/// The code of the verdict; `-` if nothing is wrong.
fn verdict(examined: &Examined) -> &'static str {
    examined.report.verdict().map_or("-", |finding| finding.code.id)
}
