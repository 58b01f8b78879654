//! Private files and folders by mode bits.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::storage;
use crate::{Error, Result};

/// How to open a file that must not exist yet and that only its owner can read.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
}

pub(super) fn private_folder(path: &Path) -> Result<()> {
    let failed = |e: io::Error| storage("make the folder", path, &e);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::Storage {
            operation: "use the folder".into(),
            path: path.display().to_string(),
            reason: format!("it belongs to user {}, not to this one", metadata.uid()),
        });
    }
    if metadata.mode() & 0o077 != 0 {
        if fs::read_dir(path).map_err(failed)?.next().is_some() {
            let mode = metadata.mode() & 0o7777;
            return Err(Error::OpenFolder { path: path.display().to_string(), mode });
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Makes what was renamed in the folder, or removed from it, durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
