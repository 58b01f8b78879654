//! Backups: the records as they were in one moment, and the files of the folder; and their way back.
//!
//! A backup holds no key: those stay where they were made.

use std::path::Path;
use std::time::SystemTime;

use enclasp_keystore::{KeyUri, KeystoreKind, durable};
use serde_json::json;

use crate::authority::{CONFIG, DATABASE};
use crate::init::lock;
use crate::store::{Location, Store};
use crate::{Authority, Config, DatabaseUrl, Error, Result};

/// The longest file of certificates, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What became of a backup or a restoration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// How many certificates the records tell of.
    pub certificates: u64,
    /// The keys that are needed and are not in the backup.
    pub keys: Vec<NeededKey>,
}

/// A key of an authority, which is nowhere but in its keystore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededKey {
    /// What it is for: `root`, `issuing`, `server`, `ocsp`, `audit`, `former issuing`.
    pub role: &'static str,
    /// Where it is.
    pub uri: KeyUri,
    /// Whether its keystore can be copied to another machine at all.
    pub can_be_copied: bool,
}

impl Authority {
    /// Writes a backup into the new folder `folder`: `authority.toml`, the certificates, and the records in
    /// a SQLite file, wherever they are now, as they were in one moment. The authority may be in use.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Database`]; [`Error::Config`] and what the file system says.
    pub async fn back_up(&self, folder: &Path) -> Result<Saved> {
        durable::private_folder(folder)?;
        let _one_at_a_time = lock(folder)?;
        if folder.join(CONFIG).exists() || folder.join(DATABASE).exists() {
            return Err(Error::Exists { dir: folder.display().to_string() });
        }
        let copy = Store::open(&Location::Sqlite(folder.join(DATABASE)), "").await?;
        let certificates = self.store().copy_snapshot_to(&copy).await?;
        copy.close().await;
        let config = self.config();
        for file in [&config.root_certificate, &config.issuing_certificate] {
            copy_file(self.folder(), folder, file)?;
        }
        // The last one: without it, it is no backup.
        durable::replace(&folder.join(CONFIG), config.to_toml()?.as_bytes())?;
        self.store().note(json!({ "event": "backed up", "certificates": certificates })).await?;
        Ok(Saved { certificates, keys: needed_keys(self.config()) })
    }
}

/// Makes the authority in the backup `from` anew in the new folder `folder`, with its records in `database`,
/// which must be empty, or in SQLite. CRL numbers go on above all that were ever given, and the audit log
/// tells of it. The keys have to be where they were.
///
/// # Errors
/// [`Error::Absent`] if there is no backup; [`Error::Exists`]; [`Error::OtherAuthority`] if the database is
/// in use; [`Error::Database`], [`Error::Config`].
pub async fn restore(from: &Path, folder: &Path, database: Option<&DatabaseUrl>) -> Result<Saved> {
    let absent = || Error::Absent { dir: from.display().to_string() };
    let config = Config::read(&from.join(CONFIG))?.ok_or_else(absent)?;
    if !from.join(DATABASE).exists() {
        return Err(absent());
    }
    durable::private_folder(folder)?;
    let _one_at_a_time = lock(folder)?;
    if folder.join(CONFIG).exists() || folder.join(DATABASE).exists() {
        return Err(Error::Exists { dir: folder.display().to_string() });
    }
    let config = Config { database: database.map(DatabaseUrl::without_password), ..config };
    let location = match database {
        Some(url) => Location::Postgres(url.clone()),
        None => Location::Sqlite(folder.join(DATABASE)),
    };
    let backup = Store::open(&Location::Sqlite(from.join(DATABASE)), "").await?;
    let target = Store::open(&location, "").await?;
    if let Some(shared) = target.shared().await? {
        let database = database.map_or_else(|| folder.display().to_string(), ToString::to_string);
        return Err(Error::OtherAuthority { database, root: shared.root.fingerprint_hex() });
    }
    let certificates = backup.copy_snapshot_to(&target).await?;
    target.outrun_crl_numbers(SystemTime::now()).await?;
    backup.close().await;
    target.close().await;
    for file in [&config.root_certificate, &config.issuing_certificate] {
        copy_file(from, folder, file)?;
    }
    durable::replace(&folder.join(CONFIG), config.to_toml()?.as_bytes())?;
    let authority = Authority::open_with(folder, database).await?;
    let event = json!({ "event": "restored", "certificates": certificates });
    authority.store().note(event).await?;
    authority.close().await;
    Ok(Saved { certificates, keys: needed_keys(&config) })
}

/// Copies a file of certificates.
fn copy_file(from: &Path, to: &Path, file: &str) -> Result<()> {
    let path = from.join(file);
    let missing = || Error::Config { path: path.display().to_string(), reason: "it is missing".into() };
    let bytes = durable::read(&path, MAX_FILE)?.ok_or_else(missing)?;
    Ok(durable::replace(&to.join(file), &bytes)?)
}

fn needed_keys(config: &Config) -> Vec<NeededKey> {
    let keys = [
        ("root", config.root_key.as_ref()),
        ("issuing", Some(&config.issuing_key)),
        ("server", Some(&config.server_key)),
        ("ocsp", config.ocsp_key.as_ref()),
        ("audit", config.audit_key.as_ref()),
    ];
    let former = config.former_issuers.iter().map(|former| ("former issuing", Some(&former.key)));
    let keys = keys.into_iter().chain(former).filter_map(|(role, uri)| {
        let uri = uri?.clone();
        Some(NeededKey { role, can_be_copied: uri.kind() == KeystoreKind::Soft, uri })
    });
    keys.collect()
}
