//! Revocation: which certificates, the CRLs that say so, and who answers for which issuer.

use std::time::SystemTime;

use enclasp_pki::{Certificate, Revoked};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::certificates::{columns, reason, record};
use super::writer::Change;
use super::{Store, column, retried, seconds, time};
use crate::{Error, Record, Result};

/// How far the CRL of one issuer and shard has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrlState {
    /// SHA-256 of the issuing certificate, in hexadecimal.
    pub(crate) issuer: String,
    pub(crate) shard: u32,
    /// How many revocations there were.
    pub(crate) changes: i64,
    /// How many of them its latest CRL knows.
    pub(crate) signed_changes: i64,
    /// The number of its latest CRL; 0 if there is none yet.
    pub(crate) number: u64,
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: SystemTime,
}

impl CrlState {
    pub(crate) fn unsigned(issuer: &str, shard: u32) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        let issuer = issuer.to_owned();
        Self {
            issuer,
            shard,
            changes: 0,
            signed_changes: 0,
            number: 0,
            this_update: epoch,
            next_update: epoch,
        }
    }
}

/// The key of an OCSP responder, one for each replica.
#[derive(Clone, Debug)]
pub(crate) struct ResponderKey {
    /// SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    pub(crate) id: String,
    pub(crate) spki: Vec<u8>,
}

impl Store {
    /// Revokes a certificate. False if it was revoked before, or does not exist.
    pub(crate) async fn revoke(&self, revoked: &Revoked) -> Result<bool> {
        self.write(Change::Revocation(revoked.clone())).await
    }

    /// Records the successor of `old`, unless that was revoked: then false. A revocation that comes
    /// at the same moment comes before or after, and if after, finds the successor.
    pub(crate) async fn succeed(&self, old: &str, certificate: &Record) -> Result<bool> {
        self.write(Change::Successor { of: old.to_owned(), certificate: certificate.clone() }).await
    }

    /// The certificates with this subject, or with a subject that begins with it, which end after `now`.
    pub(crate) async fn certificates_of(&self, subject: &str, now: SystemTime) -> Result<Vec<Record>> {
        let select = self.dialect.spelled(concat!(
            "SELECT ",
            columns!(),
            " FROM certificate WHERE not_after > $1 AND (subject COLLATE BINARY = $2
                OR subject COLLATE BINARY >= $3 AND subject COLLATE BINARY < $4)
              ORDER BY issued_at, serial"
        ));
        let rows = sqlx::query(AssertSqlSafe(select))
            .bind(seconds(now))
            .bind(subject)
            .bind(format!("{subject},"))
            // What follows on a comma.
            .bind(format!("{subject}-"))
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("look up certificates", e))?;
        rows.iter().map(record).collect()
    }

    /// The revoked certificates of an issuer and shard that had not ended by `since`.
    pub(crate) async fn revoked(&self, issuer: &str, shard: u32, since: SystemTime) -> Result<Vec<Revoked>> {
        sqlx::query(
            "SELECT serial, revoked_at, revocation_reason FROM certificate
             WHERE issuer = $1 AND shard = $2 AND revoked_at IS NOT NULL AND not_after >= $3
             ORDER BY revoked_at, serial",
        )
        .bind(issuer)
        .bind(i64::from(shard))
        .bind(seconds(since))
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("list what is revoked", e))?
        .iter()
        .map(|row| {
            Ok(Revoked {
                serial: column(row, "serial")?,
                at: time(column(row, "revoked_at")?)?,
                reason: reason(column(row, "revocation_reason")?)?,
            })
        })
        .collect()
    }

    /// How far all CRLs have come.
    pub(crate) async fn crl_states(&self) -> Result<Vec<CrlState>> {
        sqlx::query(
            "SELECT issuer, shard, changes, signed_changes, number, this_update, next_update
             FROM crl ORDER BY issuer, shard",
        )
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("list CRLs", e))?
        .iter()
        .map(crl_state)
        .collect()
    }

    /// The DER of the latest CRL.
    pub(crate) async fn crl(&self, issuer: &str, shard: u32) -> Result<Option<Vec<u8>>> {
        let der: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT der FROM crl WHERE issuer = $1 AND shard = $2")
                .bind(issuer)
                .bind(i64::from(shard))
                .fetch_optional(&self.read)
                .await
                .map_err(|e| Error::database("read a CRL", e))?;
        Ok(der.flatten())
    }

    /// Publishes a CRL that follows on the one of number `after`. False if another one does already.
    pub(crate) async fn publish_crl(&self, crl: &CrlState, after: u64, der: &[u8]) -> Result<bool> {
        let failed = |e| Error::database("record a CRL", e);
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        retried(|| async {
            let mut transaction = self.begin().await.map_err(failed)?;
            sqlx::query(
                "INSERT INTO crl (issuer, shard, changes, signed_changes, number, this_update, next_update)
                 VALUES ($1, $2, 0, 0, 0, 0, 0) ON CONFLICT (issuer, shard) DO NOTHING",
            )
            .bind(&crl.issuer)
            .bind(i64::from(crl.shard))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
            let done = sqlx::query(
                "UPDATE crl SET number = $1, signed_changes = $2, this_update = $3, next_update = $4, der = $5
                 WHERE issuer = $6 AND shard = $7 AND number = $8",
            )
            .bind(number(crl.number))
            .bind(crl.signed_changes)
            .bind(seconds(crl.this_update))
            .bind(seconds(crl.next_update))
            .bind(der)
            .bind(&crl.issuer)
            .bind(i64::from(crl.shard))
            .bind(number(after))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            Ok(done.rows_affected() == 1)
        })
        .await
    }

    /// Says that a responder is there.
    pub(crate) async fn note_responder(&self, key: &ResponderKey, now: SystemTime) -> Result<()> {
        retried(|| async {
            sqlx::query(
                "INSERT INTO responder (id, spki, seen_at) VALUES ($1, $2, $3)
                 ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
            )
            .bind(&key.id)
            .bind(&key.spki)
            .bind(seconds(now))
            .execute(&self.write)
            .await
            .map_err(|e| Error::database("note a responder", e))?;
            Ok(())
        })
        .await
    }

    /// The responders that were there since `since`, each with the certificate that `issuer` gave it.
    pub(crate) async fn responders(
        &self,
        issuer: &str,
        since: SystemTime,
    ) -> Result<Vec<(ResponderKey, Option<Certificate>)>> {
        sqlx::query(
            "SELECT id, spki, certificate FROM responder
             LEFT JOIN responder_certificate ON responder = id AND issuer = $1
             WHERE seen_at >= $2 ORDER BY id",
        )
        .bind(issuer)
        .bind(seconds(since))
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("list responders", e))?
        .iter()
        .map(|row| {
            let certificate: Option<&[u8]> = column(row, "certificate")?;
            let key = ResponderKey { id: column(row, "id")?, spki: column(row, "spki")? };
            Ok((key, certificate.map(Certificate::from_der).transpose()?))
        })
        .collect()
    }

    /// Gives a responder its certificate of an issuer, and records that as issued.
    pub(crate) async fn certify_responder(&self, id: &str, certificate: &Record) -> Result<()> {
        self.write(Change::Responder { id: id.to_owned(), certificate: certificate.clone() }).await?;
        Ok(())
    }

    /// The certificates of a responder, by the issuer that gave them.
    pub(crate) async fn responder_certificates(&self, id: &str) -> Result<Vec<(Certificate, Certificate)>> {
        sqlx::query(
            "SELECT i.certificate AS issuing, r.certificate AS responding
             FROM responder_certificate r JOIN issuer i ON i.fingerprint = r.issuer WHERE r.responder = $1",
        )
        .bind(id)
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("list certificates of a responder", e))?
        .iter()
        .map(|row| {
            let certificate = |name| Ok::<_, Error>(Certificate::from_der(column(row, name)?)?);
            Ok((certificate("issuing")?, certificate("responding")?))
        })
        .collect()
    }
}

fn crl_state(row: &AnyRow) -> Result<CrlState> {
    let positive = |name| {
        let value: i64 = column(row, name)?;
        u64::try_from(value).map_err(|_| Error::Record { reason: format!("{value} is not a {name}") })
    };
    Ok(CrlState {
        issuer: column(row, "issuer")?,
        shard: u32::try_from(positive("shard")?).unwrap_or(u32::MAX),
        changes: column(row, "changes")?,
        signed_changes: column(row, "signed_changes")?,
        number: positive("number")?,
        this_update: time(column(row, "this_update")?)?,
        next_update: time(column(row, "next_update")?)?,
    })
}
