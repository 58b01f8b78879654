//! Tokens, and what they were spent on.

use std::time::SystemTime;

use enclasp_pki::SubjectAltName;
use sqlx::any::AnyRow;

use super::{Store, column, from_json, retried, seconds, time, to_json};
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
        retried(|| async {
            sqlx::query(
                "INSERT INTO token (id, secret_hash, common_name, subject_alt_names, profile, created_at,
                     expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(&token.id)
            .bind(&token.secret_hash)
            .bind(&token.common_name)
            .bind(to_json(&token.subject_alt_names)?)
            .bind(&token.profile)
            .bind(seconds(now))
            .bind(seconds(token.expires))
            .execute(&self.write)
            .await
            .map_err(|e| Error::database("record a token", e))?;
            Ok(())
        })
        .await
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
        let failed = |e| Error::database("spend a token", e);
        let spent = retried(|| async {
            let mut transaction = self.begin().await.map_err(failed)?;
            Self::insert(&mut transaction, certificate).await?;
            // The row decides. It is the database that lets one of many through, in whichever process.
            let spent =
                sqlx::query("UPDATE token SET certificate = $1 WHERE id = $2 AND certificate IS NULL")
                    .bind(&certificate.serial)
                    .bind(token)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?
                    .rows_affected();
            let ended = if spent == 1 { transaction.commit().await } else { transaction.rollback().await };
            ended.map_err(failed)?;
            Ok(spent == 1)
        })
        .await?;
        if spent {
            return Ok(Spent::Now);
        }
        match self.token(token).await? {
            Some((_, Some(before))) => Ok(Spent::Before(Box::new(before))),
            _ => Err(Error::Record { reason: format!("token {token} vanished while it was spent") }),
        }
    }

    /// Forgets tokens whose lifetime ended before `time`, and says how many. Their certificates stay.
    pub(crate) async fn purge_tokens(&self, time: SystemTime) -> Result<u64> {
        retried(|| async {
            let done = sqlx::query("DELETE FROM token WHERE expires_at < $1")
                .bind(seconds(time))
                .execute(&self.write)
                .await
                .map_err(|e| Error::database("forget old tokens", e))?;
            Ok(done.rows_affected())
        })
        .await
    }
}

fn token_record(row: &AnyRow) -> Result<TokenRecord> {
    Ok(TokenRecord {
        id: column(row, "id")?,
        secret_hash: column(row, "secret_hash")?,
        common_name: column(row, "common_name")?,
        subject_alt_names: from_json(column(row, "subject_alt_names")?)?,
        profile: column(row, "profile")?,
        expires: time(column(row, "expires_at")?)?,
    })
}
