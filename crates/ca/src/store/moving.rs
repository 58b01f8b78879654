//! Moving an authority from SQLite to another database, while it is in use.

use std::time::SystemTime;

use sqlx::any::{Any, AnyRow};
use sqlx::{AssertSqlSafe, Executor, Transaction};

use super::{Dialect, Store, column, seconds};
use crate::{Error, Result};

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Bytes,
}
use Kind::{Bytes, Integer, Text};

/// A table: its name, its key, and its columns, of which the key's come first.
type Table = (&'static str, &'static str, &'static [(&'static str, Kind)]);

/// The tables that move, in an order in which nothing refers to what is not there yet. Responders get
/// new certificates by themselves.
const TABLES: &[Table] = &[
    ("authority", "id", &[("id", Integer), ("root", Bytes), ("settings", Text)]),
    ("issuer", "fingerprint", &[("fingerprint", Text), ("certificate", Bytes), ("added_at", Integer)]),
    ("published", "fingerprint", &[("fingerprint", Text), ("certificate", Bytes), ("added_at", Integer)]),
    (
        "certificate",
        "serial",
        &[
            ("serial", Text),
            ("issuer", Text),
            ("shard", Integer),
            ("subject", Text),
            ("subject_alt_names", Text),
            ("profile", Text),
            ("issued_by", Text),
            ("issued_at", Integer),
            ("not_before", Integer),
            ("not_after", Integer),
            ("der", Bytes),
            ("revoked_at", Integer),
            ("revocation_reason", Integer),
        ],
    ),
    (
        "token",
        "id",
        &[
            ("id", Text),
            ("secret_hash", Bytes),
            ("common_name", Text),
            ("subject_alt_names", Text),
            ("profile", Text),
            ("created_at", Integer),
            ("expires_at", Integer),
            ("certificate", Text),
        ],
    ),
    (
        "approval",
        "token",
        &[("token", Text), ("key_sha256", Text), ("asked_at", Integer), ("decision", Integer)],
    ),
    (
        "crl",
        "issuer, shard",
        &[
            ("issuer", Text),
            ("shard", Integer),
            ("changes", Integer),
            ("signed_changes", Integer),
            ("number", Integer),
            ("this_update", Integer),
            ("next_update", Integer),
            ("der", Bytes),
        ],
    ),
    ("audit", "chain, position", &[("chain", Text), ("position", Integer), ("event", Text), ("hash", Bytes)]),
    ("audit_chain", "chain", &[("chain", Text), ("position", Integer), ("hash", Bytes)]),
    ("audit_head", "chain", &[("chain", Text), ("head", Text)]),
];

/// How many rows move in one transaction.
const BATCH: usize = 500;

/// What a server that still runs on the old database says.
const MOVED: &str = "the records have moved to another database: start `enclasp ca serve` again";

impl Store {
    /// Lets nobody write to this SQLite database any more, in whichever process.
    pub(crate) async fn fence(&self) -> Result<()> {
        for (table, _, _) in TABLES {
            for event in ["INSERT", "UPDATE", "DELETE"] {
                let trigger = format!(
                    "CREATE TRIGGER IF NOT EXISTS {table}_moved_{event} BEFORE {event} ON {table}
                     BEGIN SELECT RAISE(ABORT, '{MOVED}'); END"
                );
                let fenced = self.write.execute(sqlx::raw_sql(AssertSqlSafe(trigger))).await;
                fenced.map_err(|e| Error::database("close", e))?;
            }
        }
        Ok(())
    }

    /// Copies every record to `target`, but for those that it has, as they are in one moment. Returns how many
    /// certificates it has now.
    pub(crate) async fn copy_snapshot_to(&self, target: &Self) -> Result<u64> {
        let failed = |e| Error::database("read records of", e);
        let begin = match self.dialect {
            // It sees one state of the database from its first statement on.
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        let mut snapshot = self.read.begin_with(begin).await.map_err(failed)?;
        for (table, key, columns) in TABLES {
            copy_table(&mut snapshot, target, table, key, columns).await?;
            let here: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
                .fetch_one(&mut *snapshot)
                .await
                .map_err(failed)?;
            let (here, there) = (here.unsigned_abs(), target.count(table).await?);
            if there < here {
                let reason = format!("{there} of {here} rows of the table {table} arrived");
                return Err(Error::Record { reason });
            }
        }
        target.count("certificate").await
    }

    /// Has all CRLs signed anew, with numbers above those that may have been given since the records were
    /// saved. There is one CRL a second at most, and so never as many as seconds since 1970.
    pub(crate) async fn outrun_crl_numbers(&self, now: SystemTime) -> Result<()> {
        sqlx::query("UPDATE crl SET changes = changes + 1, number = $1 WHERE number < $1")
            .bind(seconds(now))
            .execute(&self.write)
            .await
            .map_err(|e| Error::database("prepare CRLs in", e))?;
        Ok(())
    }

    /// Whether nothing depends on what it holds.
    pub(crate) async fn is_unused(&self) -> Result<bool> {
        Ok(self.count("certificate").await? == 0 && self.count("token").await? == 0)
    }

    async fn count(&self, table: &str) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(&self.read)
            .await
            .map_err(|e| Error::database("count the records of", e))?;
        Ok(count.unsigned_abs())
    }
}

async fn copy_table(
    snapshot: &mut Transaction<'_, Any>,
    target: &Store,
    table: &str,
    key: &str,
    columns: &[(&str, Kind)],
) -> Result<()> {
    let width = key.split(", ").count();
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let places = (1..=columns.len()).map(|i| format!("${i}")).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO {table} ({names}) VALUES ({places}) ON CONFLICT ({key}) DO NOTHING");
    let failed = |e| Error::database("move records to", e);
    let mut last = None;
    loop {
        // From key to key: to count off the rows before would take longer with each page.
        let after = last.as_ref().map_or_else(String::new, |_| {
            let places = (1..=width).map(|i| format!("${i}")).collect::<Vec<_>>().join(", ");
            format!("WHERE ({key}) > ({places})")
        });
        let select = format!("SELECT {names} FROM {table} {after} ORDER BY {key} LIMIT {BATCH}");
        let mut query = sqlx::query(AssertSqlSafe(select));
        if let Some(last) = &last {
            query = bound(query, last, &columns[..width])?;
        }
        let mut rows =
            query.fetch_all(&mut **snapshot).await.map_err(|e| Error::database("read records of", e))?;
        let mut transaction = target.begin().await.map_err(failed)?;
        for row in &rows {
            let query = bound(sqlx::query(AssertSqlSafe(insert.clone())), row, columns)?;
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        let is_end = rows.len() < BATCH;
        last = rows.pop();
        if is_end {
            return Ok(());
        }
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

/// The statement with the columns of `row` as its arguments.
fn bound<'q>(query: Query<'q>, row: &AnyRow, columns: &[(&str, Kind)]) -> Result<Query<'q>> {
    columns.iter().try_fold(query, |query, (name, kind)| {
        Ok(match kind {
            Text => query.bind(column::<Option<String>>(row, name)?),
            Integer => query.bind(column::<Option<i64>>(row, name)?),
            Bytes => query.bind(column::<Option<Vec<u8>>>(row, name)?),
        })
    })
}
