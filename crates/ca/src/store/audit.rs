//! The audit log: one hash chain for each replica.

use std::time::SystemTime;

use enclasp_pki::{hex, rfc3339, sha256};
use serde_json::{Value, json};
use sqlx::Transaction;
use sqlx::any::{Any, AnyRow};

use super::{Store, column, literally, retried, to_json};
use crate::{Error, Result};

/// A record as it is in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    /// From 1, without gaps.
    pub(crate) position: i64,
    /// JSON.
    pub(crate) event: String,
    /// See [`link`].
    pub(crate) hash: Vec<u8>,
}

impl AuditRecord {
    /// The record as a line of JSON, without the line's end.
    pub(crate) fn to_line(&self, chain: &str) -> String {
        let event: Value = serde_json::from_str(&self.event).unwrap_or_else(|_| self.event.clone().into());
        let (position, hash) = (self.position, hex(&self.hash));
        json!({ "chain": chain, "position": position, "hash": hash, "record": event }).to_string()
    }
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    /// The replica: the SHA-256 of its issuing certificate, in hexadecimal.
    pub(crate) chain: String,
    /// 0 before the first record.
    pub(crate) position: i64,
    pub(crate) hash: Vec<u8>,
}

/// The hash of a record: SHA-256 over the hash before it (32 zero bytes for the first), its position
/// as 8 bytes in big-endian order, the chain's name, a zero byte, and its JSON.
pub(crate) fn link(before: &[u8], position: i64, chain: &str, event: &str) -> [u8; 32] {
    sha256(&[before, &position.to_be_bytes(), chain.as_bytes(), &[0], event.as_bytes()].concat())
}

/// What the first record follows on.
pub(crate) const BEGINNING: [u8; 32] = [0; 32];

/// Keeps the chain for this transaction alone, until its end.
pub(super) async fn hold(transaction: &mut Transaction<'_, Any>, chain: &str) -> Result<ChainEnd> {
    let failed = |e| Error::database("hold the audit log", e);
    loop {
        let held = sqlx::query("UPDATE audit_chain SET position = position WHERE chain = $1")
            .bind(chain)
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
        if held.rows_affected() == 1 {
            let row = sqlx::query("SELECT chain, position, hash FROM audit_chain WHERE chain = $1")
                .bind(chain)
                .fetch_one(&mut **transaction)
                .await
                .map_err(failed)?;
            return chain_end(&row);
        }
        sqlx::query(
            "INSERT INTO audit_chain (chain, position, hash) VALUES ($1, 0, $2) ON CONFLICT (chain) DO NOTHING",
        )
        .bind(chain)
        .bind(&BEGINNING[..])
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    }
}

/// Appends to a chain that is held.
pub(super) async fn append(
    transaction: &mut Transaction<'_, Any>,
    end: &mut ChainEnd,
    event: &Value,
) -> Result<AuditRecord> {
    let mut event = event.clone();
    event["at"] = rfc3339(SystemTime::now()).into();
    let event = to_json(&event)?;
    end.position += 1;
    end.hash = link(&end.hash, end.position, &end.chain, &event).to_vec();
    sqlx::query("INSERT INTO audit (chain, position, event, hash) VALUES ($1, $2, $3, $4)")
        .bind(&end.chain)
        .bind(end.position)
        .bind(&event)
        .bind(&end.hash)
        .execute(&mut **transaction)
        .await
        .map_err(|e| Error::database("append to the audit log", e))?;
    Ok(AuditRecord { position: end.position, event, hash: end.hash.clone() })
}

/// Notes where a chain ends that is held.
pub(super) async fn release(transaction: &mut Transaction<'_, Any>, end: &ChainEnd) -> Result<()> {
    sqlx::query("UPDATE audit_chain SET position = $1, hash = $2 WHERE chain = $3")
        .bind(end.position)
        .bind(&end.hash)
        .bind(&end.chain)
        .execute(&mut **transaction)
        .await
        .map_err(|e| Error::database("append to the audit log", e))?;
    Ok(())
}

impl Store {
    /// Where all chains end.
    pub(crate) async fn chain_ends(&self) -> Result<Vec<ChainEnd>> {
        sqlx::query("SELECT chain, position, hash FROM audit_chain ORDER BY chain")
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("read the audit log", e))?
            .iter()
            .map(chain_end)
            .collect()
    }

    /// The first `limit` records of a chain that follow on the position `after`.
    pub(crate) async fn audit(&self, chain: &str, after: i64, limit: usize) -> Result<Vec<AuditRecord>> {
        sqlx::query(
            "SELECT position, event, hash FROM audit WHERE chain = $1 AND position > $2
             ORDER BY position LIMIT $3",
        )
        .bind(chain)
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("read the audit log", e))?
        .iter()
        .map(audit_record)
        .collect()
    }

    /// The last `limit` records of a chain before the position `before` that have `text` in them, in whatever
    /// case; the latest first.
    pub(crate) async fn search_audit(
        &self,
        chain: &str,
        text: &str,
        before: i64,
        limit: usize,
    ) -> Result<Vec<AuditRecord>> {
        sqlx::query(
            "SELECT position, event, hash FROM audit
             WHERE chain = $1 AND position < $2 AND LOWER(event) LIKE LOWER($3) ESCAPE '\\'
             ORDER BY position DESC LIMIT $4",
        )
        .bind(chain)
        .bind(before)
        .bind(format!("%{}%", literally(text)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("search the audit log", e))?
        .iter()
        .map(audit_record)
        .collect()
    }

    /// The latest signed head of each chain, in JSON.
    pub(crate) async fn audit_heads(&self) -> Result<Vec<String>> {
        sqlx::query_scalar("SELECT head FROM audit_head ORDER BY chain")
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("read the audit log", e))
    }

    /// Keeps the signed head of a chain.
    pub(crate) async fn keep_audit_head(&self, chain: &str, head: &str) -> Result<()> {
        retried(|| async {
            sqlx::query(
                "INSERT INTO audit_head (chain, head) VALUES ($1, $2)
                 ON CONFLICT (chain) DO UPDATE SET head = excluded.head",
            )
            .bind(chain)
            .bind(head)
            .execute(&self.write)
            .await
            .map_err(|e| Error::database("keep the head of the audit log", e))?;
            Ok(())
        })
        .await
    }
}

fn audit_record(row: &AnyRow) -> Result<AuditRecord> {
    Ok(AuditRecord {
        position: column(row, "position")?,
        event: column(row, "event")?,
        hash: column(row, "hash")?,
    })
}

fn chain_end(row: &AnyRow) -> Result<ChainEnd> {
    Ok(ChainEnd {
        chain: column(row, "chain")?,
        position: column(row, "position")?,
        hash: column(row, "hash")?,
    })
}
