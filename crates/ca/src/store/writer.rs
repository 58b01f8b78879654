//! Writing: whatever waits is committed together, by one task for each process, and with each change
//! the audit log's record of it.
//!
//! A hash chain needs its records one after the other. Were each a transaction of its own, issuance
//! would be as slow as one commit after the other; together, a commit costs as much for sixty as
//! for one.

use std::io::Write;
use std::sync::PoisonError;
use std::time::SystemTime;

use enclasp_pki::{Certificate, Revoked, rfc3339};
use serde_json::{Value, json};
use sqlx::any::Any;
use sqlx::{AnyPool, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::issuers::{NewIssuer, insert_issuer, insert_new_issuer};
use super::{AuditRecord, Dialect, Mirror, Store, TokenRecord, audit, begin, retried, seconds, to_json};
use crate::{Error, IssuedBy, Record, Result};

/// How many changes are committed together at most.
const BATCH: usize = 64;
/// How many may wait; more wait to be let in.
const QUEUE: usize = 1024;

/// A change of the records, which the audit log tells of.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A token was made.
    Token(TokenRecord, SystemTime),
    /// A token is spent on a certificate, unless it was before.
    Spending { token: String, certificate: Record },
    /// A token's owner asks for a certificate that a person has to approve, unless it did before.
    Request { token: String, key_sha256: String },
    /// A person decides about such a request, if it waits.
    Decision { token: String, approved: bool },
    /// A certificate that no token pays for.
    Certificate(Record),
    /// A certificate that follows on another, unless that was revoked.
    Successor { of: String, certificate: Record },
    /// A certificate is revoked, unless it was before.
    Revocation(Revoked),
    /// A responder's certificate.
    Responder { id: String, certificate: Record },
    /// This replica has a new issuing certificate, unless it was recorded before.
    Issuer(Box<NewIssuer>, SystemTime),
    /// A replica is let in, if it waits.
    Admission { id: String, issuing: Certificate, at: SystemTime },
    /// A replica is turned away, if it waits.
    Refusal { id: String },
    /// The audit log alone changes.
    Note(Value),
}

/// A change, and who waits for it.
pub(super) struct Job {
    change: Change,
    operator: String,
    done: oneshot::Sender<Result<bool>>,
}

/// Starts the task that writes. It ends when nobody can send to it any more.
pub(super) fn start(pool: AnyPool, dialect: Dialect, chain: String, mirror: Mirror) -> mpsc::Sender<Job> {
    let (sender, jobs) = mpsc::channel(QUEUE);
    tokio::spawn(run(Writer { pool, dialect, chain, mirror }, jobs));
    sender
}

impl Store {
    /// Commits a change. False if it had nothing to change; then nothing is recorded either.
    pub(super) async fn write(&self, change: Change) -> Result<bool> {
        let ended = || Error::Task { reason: "the one that writes records".into() };
        let (done, outcome) = oneshot::channel();
        self.writer.send(Job { change, operator: self.operator.clone(), done }).await.map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }

    /// Appends to the audit log what changes no other record.
    pub(crate) async fn note(&self, event: Value) -> Result<()> {
        self.write(Change::Note(event)).await?;
        Ok(())
    }
}

struct Writer {
    pool: AnyPool,
    dialect: Dialect,
    chain: String,
    mirror: Mirror,
}

async fn run(writer: Writer, mut queue: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let jobs: Vec<_> = batch.iter().collect();
        let outcomes: Vec<Result<bool>> = match writer.commit(&jobs).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) if jobs.len() == 1 => vec![Err(error)],
            // Whichever is to blame shall not spoil the others.
            Err(_) => {
                let mut outcomes = Vec::with_capacity(jobs.len());
                for job in jobs {
                    outcomes.push(writer.commit(&[job]).await.map(|done| done.first() == Some(&true)));
                }
                outcomes
            }
        };
        for (job, outcome) in batch.drain(..).zip(outcomes) {
            // Nobody may wait any more; what is done is done.
            let _ = job.done.send(outcome);
        }
    }
}

impl Writer {
    /// All of them in one transaction. Says of each whether it had something to change.
    async fn commit(&self, jobs: &[&Job]) -> Result<Vec<bool>> {
        let failed = |e| Error::database("record what was done", e);
        let (outcomes, records) = retried(|| async {
            let mut records = Vec::with_capacity(jobs.len());
            let mut transaction = begin(&self.pool, self.dialect).await.map_err(failed)?;
            let mut chain = audit::hold(&mut transaction, &self.chain).await?;
            let mut outcomes = Vec::with_capacity(jobs.len());
            for Job { change, operator, .. } in jobs {
                let done = apply(&mut transaction, change).await?;
                if done {
                    records.push(audit::append(&mut transaction, &mut chain, &change.event(operator)).await?);
                }
                outcomes.push(done);
            }
            audit::release(&mut transaction, &chain).await?;
            transaction.commit().await.map_err(failed)?;
            Ok((outcomes, records))
        })
        .await?;
        self.mirror(&records);
        Ok(outcomes)
    }

    /// Writes to the mirror of the audit log, if there is one.
    fn mirror(&self, records: &[AuditRecord]) {
        let mut mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = mirror.as_mut().filter(|_| !records.is_empty()) else { return };
        let lines: String = records.iter().map(|record| record.to_line(&self.chain) + "\n").collect();
        if let Err(error) = file.write_all(lines.as_bytes()) {
            tracing::error!(%error, "cannot write the audit log to its file; the database has it");
        }
    }
}

async fn apply(transaction: &mut Transaction<'_, Any>, change: &Change) -> Result<bool> {
    match change {
        Change::Token(token, now) => {
            insert_token(transaction, token, *now).await?;
            Ok(true)
        }
        Change::Spending { token, certificate } => spend(transaction, token, certificate).await,
        Change::Request { token, key_sha256 } => ask(transaction, token, key_sha256).await,
        Change::Decision { token, approved } => decide(transaction, token, *approved).await,
        Change::Certificate(certificate) => {
            Store::insert(transaction, certificate).await?;
            Ok(true)
        }
        Change::Successor { of, certificate } => succeed(transaction, of, certificate).await,
        Change::Revocation(revoked) => revoke(transaction, revoked).await,
        Change::Responder { id, certificate } => {
            certify_responder(transaction, id, certificate).await?;
            Ok(true)
        }
        Change::Issuer(new, at) => {
            insert_new_issuer(transaction, new, *at).await.map_err(|e| Error::database("record an issuer", e))
        }
        Change::Admission { id, issuing, at } => admit(transaction, id, issuing, *at).await,
        Change::Refusal { id } => {
            let done = sqlx::query("DELETE FROM joining WHERE id = $1 AND certificate IS NULL")
                .bind(id)
                .execute(&mut **transaction)
                .await
                .map_err(|e| Error::database("turn away a replica", e))?;
            Ok(done.rows_affected() == 1)
        }
        Change::Note(_) => Ok(true),
    }
}

async fn insert_token(
    transaction: &mut Transaction<'_, Any>,
    token: &TokenRecord,
    now: SystemTime,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO token (id, secret_hash, common_name, subject_alt_names, profile, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&token.id)
    .bind(&token.secret_hash)
    .bind(&token.common_name)
    .bind(to_json(&token.subject_alt_names)?)
    .bind(&token.profile)
    .bind(seconds(now))
    .bind(seconds(token.expires))
    .execute(&mut **transaction)
    .await
    .map_err(|e| Error::database("record a token", e))?;
    Ok(())
}

async fn spend(transaction: &mut Transaction<'_, Any>, token: &str, certificate: &Record) -> Result<bool> {
    let failed = |e| Error::database("spend a token", e);
    Store::insert(transaction, certificate).await?;
    // The row decides. It is the database that lets one of many through, in whichever process.
    let spent = sqlx::query("UPDATE token SET certificate = $1 WHERE id = $2 AND certificate IS NULL")
        .bind(&certificate.serial)
        .bind(token)
        .execute(&mut **transaction)
        .await
        .map_err(failed)?
        .rows_affected()
        == 1;
    if !spent {
        sqlx::query("DELETE FROM certificate WHERE serial = $1")
            .bind(&certificate.serial)
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
    }
    Ok(spent)
}

async fn ask(transaction: &mut Transaction<'_, Any>, token: &str, key_sha256: &str) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO approval (token, key_sha256, asked_at, decision) VALUES ($1, $2, $3, 0)
         ON CONFLICT (token) DO NOTHING",
    )
    .bind(token)
    .bind(key_sha256)
    .bind(seconds(SystemTime::now()))
    .execute(&mut **transaction)
    .await
    .map_err(|e| Error::database("record a request", e))?;
    Ok(done.rows_affected() == 1)
}

async fn decide(transaction: &mut Transaction<'_, Any>, token: &str, approved: bool) -> Result<bool> {
    let done = sqlx::query("UPDATE approval SET decision = $1 WHERE token = $2 AND decision = 0")
        .bind(if approved { 1_i64 } else { 2 })
        .bind(token)
        .execute(&mut **transaction)
        .await
        .map_err(|e| Error::database("decide about a request", e))?;
    Ok(done.rows_affected() == 1)
}

async fn succeed(transaction: &mut Transaction<'_, Any>, old: &str, certificate: &Record) -> Result<bool> {
    // Changes nothing, but holds the row until the end.
    let good =
        sqlx::query("UPDATE certificate SET revoked_at = NULL WHERE serial = $1 AND revoked_at IS NULL")
            .bind(old)
            .execute(&mut **transaction)
            .await
            .map_err(|e| Error::database("record a certificate", e))?
            .rows_affected()
            == 1;
    if good {
        Store::insert(transaction, certificate).await?;
    }
    Ok(good)
}

async fn revoke(transaction: &mut Transaction<'_, Any>, revoked: &Revoked) -> Result<bool> {
    let failed = |e| Error::database("revoke a certificate", e);
    let done = sqlx::query(
        "UPDATE certificate SET revoked_at = $1, revocation_reason = $2
         WHERE serial = $3 AND revoked_at IS NULL",
    )
    .bind(seconds(revoked.at))
    .bind(i64::from(revoked.reason.code()))
    .bind(&revoked.serial)
    .execute(&mut **transaction)
    .await
    .map_err(failed)?
    .rows_affected()
        == 1;
    if done {
        sqlx::query(
            "INSERT INTO crl (issuer, shard, changes, signed_changes, number, this_update, next_update)
             SELECT issuer, shard, 1, 0, 0, 0, 0 FROM certificate WHERE serial = $1
             ON CONFLICT (issuer, shard) DO UPDATE SET changes = crl.changes + 1",
        )
        .bind(&revoked.serial)
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    }
    Ok(done)
}

async fn certify_responder(
    transaction: &mut Transaction<'_, Any>,
    id: &str,
    certificate: &Record,
) -> Result<()> {
    Store::insert(transaction, certificate).await?;
    sqlx::query(
        "INSERT INTO responder_certificate (responder, issuer, certificate) VALUES ($1, $2, $3)
         ON CONFLICT (responder, issuer) DO UPDATE SET certificate = excluded.certificate",
    )
    .bind(id)
    .bind(&certificate.issuer)
    .bind(&certificate.der)
    .execute(&mut **transaction)
    .await
    .map_err(|e| Error::database("certify a responder", e))?;
    Ok(())
}

async fn admit(
    transaction: &mut Transaction<'_, Any>,
    id: &str,
    issuing: &Certificate,
    at: SystemTime,
) -> Result<bool> {
    let failed = |e| Error::database("admit a replica", e);
    let admitted = sqlx::query("UPDATE joining SET certificate = $1 WHERE id = $2 AND certificate IS NULL")
        .bind(issuing.der().as_ref())
        .bind(id)
        .execute(&mut **transaction)
        .await
        .map_err(failed)?
        .rows_affected()
        == 1;
    if admitted {
        insert_issuer(transaction, issuing, at).await.map_err(failed)?;
    }
    Ok(admitted)
}

impl Change {
    /// What the audit log says of it.
    fn event(&self, operator: &str) -> Value {
        let issued = |certificate: &Record, by: String| {
            json!({
                "event": "issued",
                "serial": certificate.serial,
                "issuer": certificate.issuer,
                "subject": certificate.subject,
                "subject_alt_names": certificate.subject_alt_names,
                "profile": certificate.profile,
                "not_after": rfc3339(certificate.not_after),
                "issued_by": certificate.issued_by.name(),
                "by": by,
            })
        };
        match self {
            Self::Token(token, _) => json!({
                "event": "token made",
                "token": token.id,
                "common_name": token.common_name,
                "subject_alt_names": token.subject_alt_names,
                "profile": token.profile,
                "expires": rfc3339(token.expires),
                "by": operator,
            }),
            Self::Request { token, key_sha256 } => json!({
                "event": "approval asked for",
                "token": token,
                "key_sha256": key_sha256,
                "by": format!("token {token}"),
            }),
            Self::Decision { token, approved } => json!({
                "event": if *approved { "approved" } else { "denied" },
                "token": token,
                "by": operator,
            }),
            Self::Spending { token, certificate } => issued(certificate, format!("token {token}")),
            Self::Certificate(certificate) => {
                let by_hand = certificate.issued_by == IssuedBy::Hand;
                issued(certificate, if by_hand { operator.to_owned() } else { "the authority".into() })
            }
            Self::Successor { of, certificate } => issued(certificate, format!("certificate {of}")),
            Self::Revocation(revoked) => json!({
                "event": "revoked",
                "serial": revoked.serial,
                "reason": revoked.reason,
                "by": operator,
            }),
            Self::Responder { id, certificate } => issued(certificate, format!("responder {id}")),
            Self::Issuer(new, _) => json!({
                "event": "issuer changed",
                "issuer": new.issuing.fingerprint_hex(),
                "subject": new.issuing.subject().to_string(),
                "root": new.root.fingerprint_hex(),
                "by": operator,
            }),
            Self::Admission { id, issuing, .. } => json!({
                "event": "replica admitted",
                "id": id,
                "issuer": issuing.fingerprint_hex(),
                "subject": issuing.subject().to_string(),
                "by": operator,
            }),
            Self::Refusal { id } => json!({ "event": "replica turned away", "id": id, "by": operator }),
            Self::Note(event) => event.clone(),
        }
    }
}
