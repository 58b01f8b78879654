//! Tokens, and what they were spent on.

use std::time::SystemTime;

use enclasp_pki::SubjectAltName;
use sqlx::any::AnyRow;

use super::writer::Change;
use super::{Store, column, from_json, retried, seconds, time};
use crate::{Error, Record, Result};

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
#[derive(Debug)]
pub(crate) enum Spent {
    /// The certificate is recorded, and may be handed out.
    Now,
    /// Somebody was faster; the certificate that was offered is not recorded.
    Before(Box<Record>),
}

impl Store {
    pub(crate) async fn add_token(&self, token: &TokenRecord, now: SystemTime) -> Result<()> {
        self.write(Change::Token(token.clone(), now)).await?;
        Ok(())
    }

    /// The token of this id, and the certificate that it was spent on.
    pub(crate) async fn token(&self, id: &str) -> Result<Option<(TokenRecord, Option<Record>)>> {
        let row = sqlx::query(
            "SELECT id, secret_hash, common_name, subject_alt_names, profile, expires_at, certificate
             FROM token WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.read)
        .await
        .map_err(|e| Error::database("look up a token", e))?;
        let Some(row) = row else {
            return Ok(None);
        };
        let certificate = match column::<Option<String>>(&row, "certificate")? {
            Some(serial) => self.certificate(&serial).await?,
            None => None,
        };
        Ok(Some((token_record(&row)?, certificate)))
    }

    /// Spends a token on a certificate and records it, or finds that it was spent before.
    pub(crate) async fn spend(&self, token: &str, certificate: &Record) -> Result<Spent> {
        let spending = Change::Spending { token: token.to_owned(), certificate: certificate.clone() };
        if self.write(spending).await? {
            return Ok(Spent::Now);
        }
        match self.token(token).await? {
            Some((_, Some(before))) => Ok(Spent::Before(Box::new(before))),
            _ => Err(Error::Record { reason: format!("token {token} vanished while it was spent") }),
        }
    }

    /// Forgets tokens whose lifetime ended before `time`, and says how many. Their certificates stay.
    pub(crate) async fn purge_tokens(&self, time: SystemTime) -> Result<u64> {
        let failed = |e| Error::database("forget old tokens", e);
        retried(|| async {
            let mut transaction = self.begin().await.map_err(failed)?;
            sqlx::query("DELETE FROM approval WHERE token IN (SELECT id FROM token WHERE expires_at < $1)")
                .bind(seconds(time))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            let done = sqlx::query("DELETE FROM token WHERE expires_at < $1")
                .bind(seconds(time))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            Ok(done.rows_affected())
        })
        .await
    }
}

pub(super) fn token_record(row: &AnyRow) -> Result<TokenRecord> {
    Ok(TokenRecord {
        id: column(row, "id")?,
        secret_hash: column(row, "secret_hash")?,
        common_name: column(row, "common_name")?,
        subject_alt_names: from_json(column(row, "subject_alt_names")?)?,
        profile: column(row, "profile")?,
        expires: time(column(row, "expires_at")?)?,
    })
}
