//! Requests of devices that a person has to approve.

use std::time::SystemTime;

use sqlx::any::AnyRow;

use super::tokens::token_record;
use super::writer::Change;
use super::{Store, TokenRecord, column, seconds, time};
use crate::{Error, Result};

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Waiting,
    Approved,
    Denied,
}

/// A request for the first certificate of a token.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) token: TokenRecord,
    /// The SHA-256 of the SubjectPublicKeyInfo that the token is held for, in hexadecimal.
    pub(crate) key_sha256: String,
    pub(crate) at: SystemTime,
}

impl Store {
    /// Notes that somebody with this token asks for a certificate for this key. The first key has it;
    /// returns which one that was, and what was decided.
    pub(crate) async fn ask_for_approval(&self, token: &str, key_sha256: &str) -> Result<(String, Decision)> {
        let asking = Change::Request { token: token.to_owned(), key_sha256: key_sha256.to_owned() };
        let failed = |e| Error::database("look up an approval", e);
        for already in [false, true] {
            let row = sqlx::query("SELECT key_sha256, decision FROM approval WHERE token = $1")
                .bind(token)
                .fetch_optional(if already { &self.write } else { &self.read })
                .await
                .map_err(failed)?;
            if let Some(row) = row {
                return Ok((column(&row, "key_sha256")?, decision(column(&row, "decision")?)?));
            }
            if !already {
                self.write(asking.clone()).await?;
            }
        }
        Err(Error::Record { reason: format!("the request with token {token} vanished") })
    }

    /// Decides about a request that waits. False if it does not.
    pub(crate) async fn decide(&self, token: &str, approved: bool) -> Result<bool> {
        self.write(Change::Decision { token: token.to_owned(), approved }).await
    }

    /// The requests that wait at this time, those that asked first first.
    pub(crate) async fn waiting_for_certificates(&self, now: SystemTime) -> Result<Vec<Asked>> {
        sqlx::query(
            "SELECT id, secret_hash, common_name, subject_alt_names, profile, expires_at, key_sha256, asked_at
             FROM approval JOIN token ON id = token WHERE decision = 0 AND expires_at > $1 ORDER BY asked_at, id",
        )
        .bind(seconds(now))
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("list who waits for approval", e))?
        .iter()
        .map(asked)
        .collect()
    }
}

fn asked(row: &AnyRow) -> Result<Asked> {
    Ok(Asked {
        token: token_record(row)?,
        key_sha256: column(row, "key_sha256")?,
        at: time(column(row, "asked_at")?)?,
    })
}

fn decision(code: i64) -> Result<Decision> {
    match code {
        0 => Ok(Decision::Waiting),
        1 => Ok(Decision::Approved),
        2 => Ok(Decision::Denied),
        _ => Err(Error::Record { reason: format!("{code} is not a decision") }),
    }
}
