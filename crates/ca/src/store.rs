//! The authority's records, in SQLite or PostgreSQL.
//!
//! Whatever must happen once is decided here, by one transaction: a token is spent together with
//! recording the certificate that it paid for. The SQL is what both databases understand, and what
//! others that speak PostgreSQL's protocol can be expected to: no advisory locks, no LISTEN, no
//! SERIAL; times are BIGINT, and a transaction that collided with another (SQLSTATE 40001) is run
//! again. Of a connection that broke nobody knows whether its last commit happened, so that is an
//! error, and whoever asked asks again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{Any, AnyConnectOptions, AnyPoolOptions, AnyRow, install_default_drivers};
use sqlx::{AnyPool, Decode, Executor, Row, Transaction, Type};
use tokio::sync::mpsc;

use self::writer::Job;
use crate::{DatabaseUrl, Error, Result};

mod approvals;
mod audit;
mod certificates;
mod issuers;
mod listing;
mod moving;
mod revocation;
mod schema;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

pub(crate) use approvals::Decision;
pub(crate) use audit::{AuditRecord, BEGINNING, ChainEnd, link};
pub(crate) use issuers::{NewIssuer, Shared};
pub(crate) use listing::{DAYS, MANY, Place, Search, State};
pub(crate) use revocation::{CrlState, ResponderKey};
pub(crate) use tokens::{Spent, TokenRecord};

/// What every connection to SQLite is told: to wait for another process that is writing, and that a
/// commit is on the disk before it is acknowledged.
const SQLITE: &str = "PRAGMA busy_timeout = 15000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                      PRAGMA foreign_keys = ON;";

/// How many connections one process has to PostgreSQL at most. Three replicas stay within the
/// hundred that a server allows by default.
const POSTGRES_CONNECTIONS: u32 = 16;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a transaction that collided with others is run.
const ATTEMPTS: u32 = 10;

/// Where the records are.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    /// A file, which is made if it is missing.
    Sqlite(PathBuf),
    Postgres(DatabaseUrl),
}

/// A handle on the database. Several processes may have one on the same database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// Of SQLite one connection: writers of this process wait in a queue rather than for the file's
    /// lock.
    write: AnyPool,
    read: AnyPool,
    dialect: Dialect,
    /// To the one task of this process that commits what the audit log tells of.
    writer: mpsc::Sender<Job>,
    /// Who does what is done by this handle, as the audit log says it.
    operator: String,
    /// Where the audit log is written to, besides.
    mirror: Mirror,
}

type Mirror = Arc<Mutex<Option<File>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// SQL of ours as this database wants it.
    fn spelled(self, sql: &str) -> String {
        match self {
            Self::Sqlite => sql.to_owned(),
            Self::Postgres => sql.replace(" BLOB", " BYTEA").replace("COLLATE BINARY", "COLLATE \"C\""),
        }
    }
}

impl Store {
    /// Opens the database, and brings its schema up to date. `chain` names the audit log's chain that tells
    /// what is done by this handle.
    pub(crate) async fn open(location: &Location, chain: &str) -> Result<Self> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(install_default_drivers);
        let (write, read, dialect) = match location {
            Location::Sqlite(path) => sqlite(path).await,
            Location::Postgres(url) => postgres(url).await,
        }
        .map_err(|e| Error::database("open", e))?;
        let mirror = Mirror::default();
        let writer = writer::start(write.clone(), dialect, chain.to_owned(), mirror.clone());
        let operator = format!("uid {}", geteuid().as_raw());
        let store = Self { write, read, dialect, writer, operator, mirror };
        store.migrate().await?;
        Ok(store)
    }

    /// The same handle for somebody else.
    pub(crate) fn operated_by(&self, operator: String) -> Self {
        Self { operator, ..self.clone() }
    }

    /// How many connections there are to the database, and how many of them have nothing to do.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let open = self.read.size() as usize;
        match self.dialect {
            Dialect::Sqlite => {
                (open + self.write.size() as usize, self.read.num_idle() + self.write.num_idle())
            }
            Dialect::Postgres => (open, self.read.num_idle()),
        }
    }

    /// Writes what is appended to the audit log from now on to `file`, too, as lines of JSON.
    pub(crate) fn mirror_audit(&self, file: File) {
        *self.mirror.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// Waits for what is under way and closes the database.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// A transaction that writes. SQLite's is alone from its beginning, so that what it reads it may
    /// change.
    async fn begin(&self) -> sqlx::Result<Transaction<'static, Any>> {
        begin(&self.write, self.dialect).await
    }
}

async fn sqlite(path: &Path) -> sqlx::Result<(AnyPool, AnyPool, Dialect)> {
    // For its owner alone. SQLite gives the files that it keeps beside it the same mode.
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let options = AnyConnectOptions::from_str(&sqlite_url(path)?)?;
    let pool = |connections| {
        AnyPoolOptions::new()
            .max_connections(connections)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(SQLITE).await?;
                    Ok(())
                })
            })
    };
    let write = pool(1).connect_with(options.clone()).await?;
    Ok((write, pool(4).connect_lazy_with(options), Dialect::Sqlite))
}

async fn postgres(url: &DatabaseUrl) -> sqlx::Result<(AnyPool, AnyPool, Dialect)> {
    let options = AnyConnectOptions::from_str(url.as_str())?;
    let pool = AnyPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).acquire_timeout(CONNECT_TIMEOUT);
    let pool = pool.connect_with(options).await?;
    Ok((pool.clone(), pool, Dialect::Postgres))
}

async fn begin(pool: &AnyPool, dialect: Dialect) -> sqlx::Result<Transaction<'static, Any>> {
    match dialect {
        Dialect::Sqlite => pool.begin_with("BEGIN IMMEDIATE").await,
        Dialect::Postgres => pool.begin().await,
    }
}

/// Runs `attempt`, which is one transaction, until it collides with no other.
async fn retried<T, F: Future<Output = Result<T>>>(attempt: impl FnMut() -> F) -> Result<T> {
    retried_if(collided, attempt).await
}

async fn retried_if<T, F: Future<Output = Result<T>>>(
    again: impl Fn(&sqlx::Error) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut pause = Duration::from_millis(2);
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(Error::Database { source, operation }) if again(&source) => {
                tracing::debug!(operation, "collided with another transaction");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

/// Whether the database undid a transaction because of another (serialization_failure,
/// deadlock_detected).
fn collided(error: &sqlx::Error) -> bool {
    matches!(state(error).as_deref(), Some("40001" | "40P01"))
}

/// The SQLSTATE of an error of PostgreSQL.
fn state(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// The URL of a file, whose path may have characters that mean something in a URL.
fn sqlite_url(path: &Path) -> sqlx::Result<String> {
    let path = std::path::absolute(path)?;
    let mut url = "sqlite://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                url.push(char::from(*byte));
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(url)
}

/// A column of a row.
fn column<'r, T>(row: &'r AnyRow, name: &str) -> Result<T>
where
    T: Decode<'r, Any> + Type<Any>,
{
    row.try_get(name).map_err(|e| Error::database("read a record", e))
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Record { reason: e.to_string() })
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Record { reason: e.to_string() })
}

/// The part of a pattern for `LIKE … ESCAPE '\\'` that matches this very text.
fn literally(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// Whole seconds since the Unix epoch; times before it, which nothing here has, are the epoch.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> Result<SystemTime> {
    at(u64::try_from(seconds).ok().map(Duration::from_secs), seconds)
}

/// Microseconds since the Unix epoch, for what happens more than once a second.
fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn time_of_micros(micros: i64) -> Result<SystemTime> {
    at(u64::try_from(micros).ok().map(Duration::from_micros), micros)
}

fn at(since: Option<Duration>, stored: i64) -> Result<SystemTime> {
    since
        .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
        .ok_or_else(|| Error::Record { reason: format!("{stored} is not a time") })
}
