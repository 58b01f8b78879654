//! Files that change as a whole and stay changed (invariant 6).

#[cfg_attr(unix, path = "durable/unix.rs")]
#[cfg_attr(windows, path = "durable/windows.rs")]
mod system;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

/// Replaces the file at `path` by one with these `bytes` that only its owner can read: written
/// beside it, synced, renamed over it, and the folder synced. Whoever reads sees the old or the
/// new bytes, never a part.
///
/// # Errors
/// [`Error::Storage`]; the old file is then untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    write_new(path, bytes, |temporary| fs::rename(temporary, path))
}

/// Like [`replace`], but for a file that must not exist yet.
///
/// # Errors
/// `Ok(false)` if there is such a file; [`Error::Storage`].
pub fn create(path: &Path, bytes: &[u8]) -> Result<bool> {
    let mut existed = false;
    write_new(path, bytes, |temporary| {
        // A hard link fails where a rename would overwrite.
        match fs::hard_link(temporary, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => existed = true,
            other => other?,
        }
        fs::remove_file(temporary)
    })?;
    Ok(!existed)
}

fn write_new(path: &Path, bytes: &[u8], publish: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let temporary = temporary_beside(path);
    let written = (|| {
        let mut file = system::private_file().open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        publish(&temporary)?;
        sync_folder_of(path)
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        storage("write", path, &e)
    })
}

/// Removes the file at `path` and syncs its folder.
///
/// # Errors
/// `Ok(false)` if there is none; [`Error::Storage`].
pub fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {
            sync_folder_of(path).map_err(|e| storage("delete", path, &e))?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(storage("delete", path, &e)),
    }
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// `Ok(None)` if there is none; [`Error::Storage`], also if it is larger.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(storage("read", path, &e)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut bytes)
        .map_err(|e| storage("read", path, &e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Storage {
            operation: "read".into(),
            path: path.display().to_string(),
            reason: format!("it is larger than {limit} bytes"),
        });
    }
    Ok(Some(bytes))
}

/// Makes a folder, and those above it, for its owner alone. One that exists has to belong to this
/// user, and others may have no access to it: it may serve them for something else, so it is closed
/// only if it is empty. Half-written files that a crash left behind are removed.
///
/// On Windows, who may read a new folder is inherited from the one above, which in a user's profile
/// is that user.
///
/// # Errors
/// [`Error::OpenFolder`], [`Error::Storage`].
pub fn private_folder(path: &Path) -> Result<()> {
    system::private_folder(path)?;
    sweep(path);
    Ok(())
}

/// Older than any write that is under way.
const ABANDONED: Duration = Duration::from_secs(60);

/// Removes temporary files of writers that were killed. What cannot be removed harms nobody.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let temporary = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".new"));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if temporary && age().is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// An unused name in the same folder: hidden, so that a listing by extension passes it over.
fn temporary_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    path.with_file_name(format!(".{name}.{}-{unique}-{now}.new", std::process::id()))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    system::sync_folder(parent.unwrap_or(Path::new(".")))
}

fn storage(operation: &str, path: &Path, error: &io::Error) -> Error {
    Error::Storage {
        operation: operation.into(),
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old").unwrap();
        let beneath = path.join("below-a-file");
        assert!(replace(&beneath, b"x").is_err());
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"old");
        assert!(read(&path, 2).is_err());
        assert!(!create(&path, b"new").unwrap());
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"new");
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
        assert!(create(&path, b"new").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        private_folder(&path).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        private_folder(&path).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_folder_that_others_use_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("theirs")).unwrap();
        for open in [0o755, 0o750, 0o701] {
            fs::set_permissions(folder.path(), Permissions::from_mode(open)).unwrap();
            let error = private_folder(folder.path()).unwrap_err();
            assert!(matches!(error, Error::OpenFolder { mode, .. } if mode == open), "{error}");
            assert!(error.hint().unwrap().contains("chmod 700"));
            assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, open);
        }
    }

    #[test]
    fn what_a_crash_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        private_folder(folder.path()).unwrap();
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED;
        for (name, modified) in [
            (".a.1-2-3.new", Some(long_ago)),
            (".b.1-2-3.new", None),
            ("c.new", Some(long_ago)),
            (".d", Some(long_ago)),
        ] {
            let file = File::create(folder.path().join(name)).unwrap();
            if let Some(time) = modified {
                file.set_modified(time).unwrap();
            }
        }
        private_folder(folder.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".b.1-2-3.new", ".d", "c.new"]);
    }
}
