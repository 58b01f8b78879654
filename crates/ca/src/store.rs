//! The authority's records: tokens and certificates, in SQLite.
//!
//! Whatever must happen once is decided here, by one transaction: a token is spent together with
//! recording the certificate that it paid for. The SQL keeps to what PostgreSQL understands too,
//! and times are BIGINT seconds since the Unix epoch.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use enclasp_pki::SubjectAltName;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use crate::{Error, IssuedBy, Record, Result};

/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);

/// The steps from an empty database to the present one. A step that was released never changes.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE certificate (
        serial TEXT NOT NULL PRIMARY KEY,
        subject TEXT NOT NULL,
        subject_alt_names TEXT NOT NULL,
        profile TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        issued_at BIGINT NOT NULL,
        not_before BIGINT NOT NULL,
        not_after BIGINT NOT NULL,
        der BLOB NOT NULL
    )",
    "CREATE INDEX certificate_by_time ON certificate (issued_at, serial)",
    "CREATE TABLE token (
        id TEXT NOT NULL PRIMARY KEY,
        secret_hash BLOB NOT NULL,
        common_name TEXT NOT NULL,
        subject_alt_names TEXT NOT NULL,
        profile TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        expires_at BIGINT NOT NULL,
        certificate TEXT REFERENCES certificate (serial)
    )",
]];

/// A handle on the database. Several processes may have one on the same file.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// One connection: writers of this process wait in a queue rather than for the file's lock.
    write: SqlitePool,
    read: SqlitePool,
}

/// What the authority knows of a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenRecord {
    pub(crate) id: String,
    /// SHA-256 of the secret.
    pub(crate) secret_hash: Vec<u8>,
    pub(crate) common_name: String,
    pub(crate) subject_alt_names: Vec<SubjectAltName>,
    pub(crate) profile: String,
    pub(crate) expires: SystemTime,
}

/// What came of an attempt to spend a token.
pub(crate) enum Spent {
    /// The certificate is recorded, and may be handed out.
    Now,
    /// Somebody was faster; the certificate that was offered is not recorded.
    Before(Box<Record>),
}

impl Store {
    /// Opens the database, makes it if it is missing, and brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk before it is acknowledged.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let failed = |e| Error::database("open", e);
        // For its owner alone. SQLite gives the files that it keeps beside it the same mode.
        let mut file = OpenOptions::new();
        let made = file.write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(|e| failed(sqlx::Error::Io(e)))?;
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).idle_timeout(None);
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let store = Self { write, read: pool(4).connect_lazy_with(options) };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<()> {
        let failed = |e| Error::database("prepare", e);
        // IMMEDIATE, so that of two processes one waits and then finds the work done.
        let mut transaction = self.write.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let version: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM schema_version")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let done = usize::try_from(version.unwrap_or(0)).unwrap_or(usize::MAX);
        let Some(missing) = MIGRATIONS.get(done..) else {
            return Err(Error::NewerDatabase { found: done, known: MIGRATIONS.len() });
        };
        for (step, statements) in missing.iter().enumerate() {
            for statement in *statements {
                sqlx::query(*statement).execute(&mut *transaction).await.map_err(failed)?;
            }
            sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
                .bind((done + step + 1) as i64)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Waits for what is under way and closes the file.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    pub(crate) async fn add_token(&self, token: &TokenRecord, now: SystemTime) -> Result<()> {
        sqlx::query(
            "INSERT INTO token (id, secret_hash, common_name, subject_alt_names, profile, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&token.id)
        .bind(&token.secret_hash)
        .bind(&token.common_name)
        .bind(json(&token.subject_alt_names)?)
        .bind(&token.profile)
        .bind(seconds(now))
        .bind(seconds(token.expires))
        .execute(&self.write)
        .await
        .map_err(|e| Error::database("record a token", e))?;
        Ok(())
    }

    /// The token of this id, and the certificate that it was spent on.
    pub(crate) async fn token(&self, id: &str) -> Result<Option<(TokenRecord, Option<Record>)>> {
        let failed = |e| Error::database("look up a token", e);
        let row = sqlx::query(
            "SELECT id, secret_hash, common_name, subject_alt_names, profile, expires_at, certificate
             FROM token WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let serial: Option<String> = row.try_get("certificate").map_err(failed)?;
        let certificate = match serial {
            Some(serial) => self.certificate(&serial).await?,
            None => None,
        };
        Ok(Some((token_record(&row)?, certificate)))
    }

    /// Spends a token on a certificate and records it, or finds that it was spent before.
    pub(crate) async fn spend(&self, token: &str, certificate: &Record) -> Result<Spent> {
        let failed = |e| Error::database("spend a token", e);
        let mut transaction = self.write.begin().await.map_err(failed)?;
        insert(&mut transaction, certificate).await?;
        // The row decides. It is the database that lets one of many through, in whichever process.
        let spent = sqlx::query("UPDATE token SET certificate = $1 WHERE id = $2 AND certificate IS NULL")
            .bind(&certificate.serial)
            .bind(token)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?
            .rows_affected();
        if spent == 1 {
            transaction.commit().await.map_err(failed)?;
            return Ok(Spent::Now);
        }
        transaction.rollback().await.map_err(failed)?;
        match self.token(token).await? {
            Some((_, Some(before))) => Ok(Spent::Before(Box::new(before))),
            _ => Err(Error::Record { reason: format!("token {token} vanished while it was spent") }),
        }
    }

    pub(crate) async fn add_certificate(&self, certificate: &Record) -> Result<()> {
        let failed = |e| Error::database("record a certificate", e);
        let mut transaction = self.write.begin().await.map_err(failed)?;
        insert(&mut transaction, certificate).await?;
        transaction.commit().await.map_err(failed)
    }

    pub(crate) async fn certificate(&self, serial: &str) -> Result<Option<Record>> {
        sqlx::query("SELECT * FROM certificate WHERE serial = $1")
            .bind(serial)
            .fetch_optional(&self.read)
            .await
            .map_err(|e| Error::database("look up a certificate", e))?
            .map(|row| record(&row))
            .transpose()
    }

    /// All certificates, the oldest first.
    pub(crate) async fn certificates(&self) -> Result<Vec<Record>> {
        sqlx::query("SELECT * FROM certificate ORDER BY issued_at, serial")
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("list certificates", e))?
            .iter()
            .map(record)
            .collect()
    }
}

async fn insert(transaction: &mut Transaction<'_, Sqlite>, certificate: &Record) -> Result<()> {
    sqlx::query(
        "INSERT INTO certificate (serial, subject, subject_alt_names, profile, issued_by, issued_at,
             not_before, not_after, der)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&certificate.serial)
    .bind(&certificate.subject)
    .bind(json(&certificate.subject_alt_names)?)
    .bind(&certificate.profile)
    .bind(certificate.issued_by.name())
    .bind(seconds(certificate.issued_at))
    .bind(seconds(certificate.not_before))
    .bind(seconds(certificate.not_after))
    .bind(&certificate.der)
    .execute(&mut **transaction)
    .await
    .map_err(|e| Error::database("record a certificate", e))?;
    Ok(())
}

fn record(row: &SqliteRow) -> Result<Record> {
    let failed = |e| Error::database("read a certificate", e);
    let issued_by: String = row.try_get("issued_by").map_err(failed)?;
    Ok(Record {
        serial: row.try_get("serial").map_err(failed)?,
        subject: row.try_get("subject").map_err(failed)?,
        subject_alt_names: from_json(row.try_get("subject_alt_names").map_err(failed)?)?,
        profile: row.try_get("profile").map_err(failed)?,
        issued_by: IssuedBy::from_name(&issued_by)
            .ok_or_else(|| Error::Record { reason: format!("`{issued_by}` is not a way of issuing") })?,
        issued_at: time(row.try_get("issued_at").map_err(failed)?)?,
        not_before: time(row.try_get("not_before").map_err(failed)?)?,
        not_after: time(row.try_get("not_after").map_err(failed)?)?,
        der: row.try_get("der").map_err(failed)?,
    })
}

fn token_record(row: &SqliteRow) -> Result<TokenRecord> {
    let failed = |e| Error::database("read a token", e);
    Ok(TokenRecord {
        id: row.try_get("id").map_err(failed)?,
        secret_hash: row.try_get("secret_hash").map_err(failed)?,
        common_name: row.try_get("common_name").map_err(failed)?,
        subject_alt_names: from_json(row.try_get("subject_alt_names").map_err(failed)?)?,
        profile: row.try_get("profile").map_err(failed)?,
        expires: time(row.try_get("expires_at").map_err(failed)?)?,
    })
}

fn json(names: &[SubjectAltName]) -> Result<String> {
    serde_json::to_string(names).map_err(|e| Error::Record { reason: e.to_string() })
}

fn from_json<T: DeserializeOwned>(text: String) -> Result<T> {
    serde_json::from_str(&text).map_err(|e| Error::Record { reason: e.to_string() })
}

/// Whole seconds since the Unix epoch; times before it, which nothing here has, are the epoch.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> Result<SystemTime> {
    u64::try_from(seconds)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| Error::Record { reason: format!("{seconds} is not a time") })
}
