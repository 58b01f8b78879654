//! Certificates that were issued.

use enclasp_pki::{RevocationReason, Revoked};
use sqlx::Transaction;
use sqlx::any::{Any, AnyRow};

use super::writer::Change;
use super::{Store, column, from_json, micros, seconds, time, time_of_micros, to_json};
use crate::{Error, Filter, IssuedBy, Record, Result};

/// The columns of a record. Not `*`: a newer program may add some.
macro_rules! columns {
    () => {
        "serial, issuer, shard, subject, subject_alt_names, profile, issued_by, issued_at, not_before, \
         not_after, der, revoked_at, revocation_reason"
    };
}
pub(super) use columns;

/// How many records are read at once.
const PAGE: usize = 500;

impl Store {
    pub(crate) async fn add_certificate(&self, certificate: &Record) -> Result<()> {
        self.write(Change::Certificate(certificate.clone())).await?;
        Ok(())
    }

    pub(crate) async fn certificate(&self, serial: &str) -> Result<Option<Record>> {
        sqlx::query(concat!("SELECT ", columns!(), " FROM certificate WHERE serial = $1"))
            .bind(serial)
            .fetch_optional(&self.read)
            .await
            .map_err(|e| Error::database("look up a certificate", e))?
            .map(|row| record(&row))
            .transpose()
    }

    /// The first `limit` certificates that the filter admits, in the order of issuance, of those
    /// that follow `after`.
    pub(crate) async fn certificates(
        &self,
        filter: &Filter,
        after: Option<&Record>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let mut place = after.map(|record| (micros(record.issued_at), record.serial.clone()));
        let mut found = Vec::new();
        loop {
            let (issued_at, serial) = place.unwrap_or((i64::MIN, String::new()));
            let rows = sqlx::query(concat!(
                "SELECT ",
                columns!(),
                " FROM certificate WHERE (issued_at, serial) > ($1, $2)
                  ORDER BY issued_at, serial LIMIT $3"
            ))
            .bind(issued_at)
            .bind(serial)
            .bind(PAGE as i64)
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("list certificates", e))?;
            let last_page = rows.len() < PAGE;
            let records = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
            place = records.last().map(|record| (micros(record.issued_at), record.serial.clone()));
            found.extend(records.into_iter().filter(|record| filter.admits(record)));
            if last_page || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    pub(super) async fn insert(transaction: &mut Transaction<'_, Any>, certificate: &Record) -> Result<()> {
        sqlx::query(concat!(
            "INSERT INTO certificate (",
            columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        ))
        .bind(&certificate.serial)
        .bind(&certificate.issuer)
        .bind(i64::from(certificate.shard))
        .bind(&certificate.subject)
        .bind(to_json(&certificate.subject_alt_names)?)
        .bind(&certificate.profile)
        .bind(certificate.issued_by.name())
        .bind(micros(certificate.issued_at))
        .bind(seconds(certificate.not_before))
        .bind(seconds(certificate.not_after))
        .bind(&certificate.der)
        .bind(certificate.revoked.as_ref().map(|revoked| seconds(revoked.at)))
        .bind(certificate.revoked.as_ref().map(|revoked| i64::from(revoked.reason.code())))
        .execute(&mut **transaction)
        .await
        .map_err(|e| Error::database("record a certificate", e))?;
        Ok(())
    }
}

pub(super) fn record(row: &AnyRow) -> Result<Record> {
    let issued_by: &str = column(row, "issued_by")?;
    let (serial, shard): (String, i64) = (column(row, "serial")?, column(row, "shard")?);
    let revoked = match column::<Option<i64>>(row, "revoked_at")? {
        None => None,
        Some(at) => Some(Revoked {
            serial: serial.clone(),
            at: time(at)?,
            reason: reason(column(row, "revocation_reason")?)?,
        }),
    };
    Ok(Record {
        serial,
        issuer: column(row, "issuer")?,
        shard: u32::try_from(shard)
            .map_err(|_| Error::Record { reason: format!("{shard} is not a shard") })?,
        subject: column(row, "subject")?,
        subject_alt_names: from_json(column(row, "subject_alt_names")?)?,
        profile: column(row, "profile")?,
        issued_by: IssuedBy::from_name(issued_by)
            .ok_or_else(|| Error::Record { reason: format!("`{issued_by}` is not a way of issuing") })?,
        issued_at: time_of_micros(column(row, "issued_at")?)?,
        not_before: time(column(row, "not_before")?)?,
        not_after: time(column(row, "not_after")?)?,
        der: column(row, "der")?,
        revoked,
    })
}

pub(super) fn reason(code: Option<i64>) -> Result<RevocationReason> {
    code.and_then(|code| RevocationReason::from_code(u8::try_from(code).ok()?))
        .ok_or_else(|| Error::Record { reason: format!("{code:?} is not a reason of revocation") })
}
