//! The schema, and how a database comes to have it.

use sqlx::any::Any;
use sqlx::{AssertSqlSafe, Executor, Transaction};

use super::{Store, collided, retried_if, state};
use crate::{Error, Result};

/// The steps from an empty database to the present one. A step that was released never changes.
/// `BLOB` stands for the type that the database has for bytes, `COLLATE BINARY` for an order of text by its bytes.
const MIGRATIONS: &[&[&str]] = &[
    &[
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
    ],
    &[
        // In microseconds from here on, so that a list is in the order of issuance.
        "UPDATE certificate SET issued_at = issued_at * 1000000",
        // The SHA-256 of the issuing certificate in hexadecimal; unknown of what is older than this.
        "ALTER TABLE certificate ADD COLUMN issuer TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX certificate_by_subject ON certificate (subject)",
        "CREATE INDEX token_by_end ON token (expires_at)",
        // What all replicas have in common: one row.
        "CREATE TABLE authority (
            id BIGINT NOT NULL PRIMARY KEY,
            root BLOB NOT NULL,
            settings TEXT NOT NULL
        )",
        "CREATE TABLE issuer (
            fingerprint TEXT NOT NULL PRIMARY KEY,
            certificate BLOB NOT NULL,
            added_at BIGINT NOT NULL
        )",
        "CREATE TABLE joining (
            id TEXT NOT NULL PRIMARY KEY,
            request BLOB NOT NULL,
            asked_at BIGINT NOT NULL,
            certificate BLOB
        )",
    ],
    &[
        "ALTER TABLE certificate ADD COLUMN shard BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE certificate ADD COLUMN revoked_at BIGINT",
        "ALTER TABLE certificate ADD COLUMN revocation_reason BIGINT",
        "CREATE INDEX certificate_by_revocation ON certificate (issuer, shard, revoked_at)
            WHERE revoked_at IS NOT NULL",
        "CREATE TABLE crl (
            issuer TEXT NOT NULL,
            shard BIGINT NOT NULL,
            changes BIGINT NOT NULL,
            signed_changes BIGINT NOT NULL,
            number BIGINT NOT NULL,
            this_update BIGINT NOT NULL,
            next_update BIGINT NOT NULL,
            der BLOB,
            PRIMARY KEY (issuer, shard)
        )",
        "CREATE TABLE responder (
            id TEXT NOT NULL PRIMARY KEY,
            spki BLOB NOT NULL,
            seen_at BIGINT NOT NULL
        )",
        "CREATE TABLE responder_certificate (
            responder TEXT NOT NULL,
            issuer TEXT NOT NULL,
            certificate BLOB NOT NULL,
            PRIMARY KEY (responder, issuer)
        )",
    ],
    &[
        "CREATE TABLE audit (
            chain TEXT NOT NULL,
            position BIGINT NOT NULL,
            event TEXT NOT NULL,
            hash BLOB NOT NULL,
            PRIMARY KEY (chain, position)
        )",
        "CREATE TABLE audit_chain (
            chain TEXT NOT NULL PRIMARY KEY,
            position BIGINT NOT NULL,
            hash BLOB NOT NULL
        )",
        "CREATE TABLE audit_head (chain TEXT NOT NULL PRIMARY KEY, head TEXT NOT NULL)",
    ],
    &[
        // Requests that wait for a person (decision 0), were approved (1) or denied (2).
        "CREATE TABLE approval (
            token TEXT NOT NULL PRIMARY KEY,
            key_sha256 TEXT NOT NULL,
            asked_at BIGINT NOT NULL,
            decision BIGINT NOT NULL
        )",
    ],
    &[
        // Roots of before, and certificates with which roots vouch for one another.
        "CREATE TABLE published (
            fingerprint TEXT NOT NULL PRIMARY KEY,
            certificate BLOB NOT NULL,
            added_at BIGINT NOT NULL
        )",
        // By bytes, so that subjects that begin alike are beside one another in any database.
        "DROP INDEX certificate_by_subject",
        "CREATE INDEX certificate_by_subject ON certificate (subject COLLATE BINARY)",
    ],
    &[
        // What the console lists and counts.
        "CREATE INDEX certificate_by_end ON certificate (not_after, serial, revoked_at, not_before)",
        "CREATE INDEX certificate_revoked ON certificate (issued_at, serial) WHERE revoked_at IS NOT NULL",
    ],
];

impl Store {
    /// Brings the schema up to date. Of processes that start at once, one does it.
    pub(super) async fn migrate(&self) -> Result<()> {
        let failed = |e| Error::database("prepare", e);
        // Of two processes that make the same table at the same time, PostgreSQL lets one fail.
        let made_twice = |e: &sqlx::Error| matches!(state(e).as_deref(), Some("23505" | "42P07"));
        retried_if(
            |e| collided(e) || made_twice(e),
            || async {
                let mut transaction = self.begin().await.map_err(failed)?;
                self.migrate_in(&mut transaction).await?;
                transaction.commit().await.map_err(failed)
            },
        )
        .await
    }

    async fn migrate_in(&self, transaction: &mut Transaction<'_, Any>) -> Result<()> {
        let failed = |e| Error::database("prepare", e);
        for statement in [
            "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS schema_lock (id BIGINT NOT NULL PRIMARY KEY, holders BIGINT NOT NULL)",
            "INSERT INTO schema_lock (id, holders) VALUES (1, 0) ON CONFLICT (id) DO NOTHING",
            // The lock: whoever changes this row first does the work, and the others find it done.
            "UPDATE schema_lock SET holders = holders + 1 WHERE id = 1",
        ] {
            transaction.execute(statement).await.map_err(failed)?;
        }
        let version: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM schema_version")
            .fetch_one(&mut **transaction)
            .await
            .map_err(failed)?;
        let done = usize::try_from(version.unwrap_or(0)).unwrap_or(usize::MAX);
        let Some(missing) = MIGRATIONS.get(done..) else {
            return Err(Error::NewerDatabase { found: done, known: MIGRATIONS.len() });
        };
        for (step, statements) in missing.iter().enumerate() {
            for statement in *statements {
                let statement = self.dialect.spelled(statement);
                transaction.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.map_err(failed)?;
            }
            sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
                .bind((done + step + 1) as i64)
                .execute(&mut **transaction)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}
