//! The same on Windows, where files and folders inherit who may read them.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::storage;
use crate::Result;

/// How to open a file that must not exist yet.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options
}

pub(super) fn private_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| storage("make the folder", path, &e))
}

/// Nothing: a folder cannot be synced, and NTFS keeps a journal of renames.
pub(super) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
