//! The identities on disk: one JSON file each, replaced as a whole.

use std::path::{Path, PathBuf};

use enclasp_keystore::durable;

use crate::identity::Stored;
use crate::{Error, Identity, Result};

const MAX_FILE: u64 = 4 << 20;
const MAX_NAME: usize = 64;

/// A folder of identities.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder, which is made, for this user alone, if it is missing.
    ///
    /// # Errors
    /// [`Error::Keystore`] with what the file system said.
    pub fn open(folder: &Path) -> Result<Self> {
        durable::private_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The identity of that name.
    ///
    /// # Errors
    /// [`Error::Absent`] with the names that there are, [`Error::Name`], [`Error::Damaged`].
    pub fn get(&self, name: &str) -> Result<Identity> {
        let path = self.path(name)?;
        match durable::read(&path, MAX_FILE)? {
            Some(bytes) => parse(&path, name, &bytes),
            None => Err(Error::Absent { name: name.into(), known: self.names()? }),
        }
    }

    /// All identities, sorted by name. A damaged one is an `Err` in its place, so that it hides no
    /// other.
    ///
    /// # Errors
    /// [`Error::Keystore`] if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Result<Identity>>> {
        Ok(self.names()?.iter().map(|name| self.get(name)).collect())
    }

    /// Records a new identity.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken, [`Error::Name`].
    pub fn add(&self, identity: &Identity) -> Result<()> {
        let path = self.path(&identity.name)?;
        if durable::create(&path, &to_json(identity))? {
            Ok(())
        } else {
            Err(Error::Exists { name: identity.name.clone() })
        }
    }

    /// Records an identity in place of the one of its name, if there is one: whoever reads gets
    /// the old or the new one.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Keystore`]; the old one then stays.
    pub fn put(&self, identity: &Identity) -> Result<()> {
        Ok(durable::replace(&self.path(&identity.name)?, &to_json(identity))?)
    }

    /// Forgets an identity. Its key stays in its keystore.
    ///
    /// # Errors
    /// [`Error::Absent`].
    pub fn delete(&self, name: &str) -> Result<()> {
        if durable::remove(&self.path(name)?)? {
            Ok(())
        } else {
            Err(Error::Absent { name: name.into(), known: self.names()? })
        }
    }

    /// # Errors
    /// [`Error::Name`] if `name` cannot name an identity.
    pub fn check_name(name: &str) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.len() > MAX_NAME {
            "it is longer than 64 bytes"
        } else if name.starts_with('.') || !name.chars().all(plain) {
            "it holds something else than letters, digits, `.`, `_` and `-`"
        } else {
            return Ok(());
        };
        Err(Error::Name { name: name.chars().take(100).collect(), reason: reason.into() })
    }

    fn names(&self) -> Result<Vec<String>> {
        let failed = |e: std::io::Error| enclasp_keystore::Error::Storage {
            operation: "list".into(),
            path: self.folder.display().to_string(),
            reason: e.to_string(),
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
            names.extend(name.filter(|name| Self::check_name(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        Self::check_name(name)?;
        Ok(self.folder.join(format!("{name}.json")))
    }
}

fn to_json(identity: &Identity) -> Vec<u8> {
    // Serializing strings, a bool and a time cannot fail.
    let mut bytes = serde_json::to_vec_pretty(&Stored::from(identity)).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn parse(path: &Path, name: &str, bytes: &[u8]) -> Result<Identity> {
    let damaged = |reason: String| Error::Damaged { path: path.display().to_string(), reason };
    let identity = Stored::parse(bytes).map_err(damaged)?;
    if identity.name == name {
        Ok(identity)
    } else {
        Err(damaged(format!("it holds the identity `{}`", identity.name)))
    }
}
