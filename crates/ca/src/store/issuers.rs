//! What the replicas of an authority have in common, and those that want to join.

use std::time::SystemTime;

use enclasp_pki::{Certificate, CertificationRequest};
use sqlx::any::AnyRow;

use super::writer::Change;
use super::{Store, column, retried, seconds, time};
use crate::publication::RESPONDER_PROFILE;
use crate::{Error, Result};

/// What all replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) root: Certificate,
    /// `authority.toml` without what is of one replica alone.
    pub(crate) settings: String,
}

/// An issuing certificate that this replica issues with from now on.
#[derive(Clone, Debug)]
pub(crate) struct NewIssuer {
    pub(crate) issuing: Certificate,
    /// The root that it is under.
    pub(crate) root: Certificate,
    /// If that is a new one, what devices need to follow it: the one of before, and what vouches for either.
    pub(crate) published: Vec<Certificate>,
}

/// A replica that asks for an issuing certificate.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    /// The SHA-256 of its issuing key's SubjectPublicKeyInfo, in hexadecimal.
    pub(crate) id: String,
    pub(crate) request: CertificationRequest,
    pub(crate) asked: SystemTime,
    /// Once somebody has approved.
    pub(crate) certificate: Option<Certificate>,
}

impl Store {
    /// What the replicas share, if the database is of an authority yet.
    pub(crate) async fn shared(&self) -> Result<Option<Shared>> {
        let row = sqlx::query("SELECT root, settings FROM authority WHERE id = 1")
            .fetch_optional(&self.read)
            .await
            .map_err(|e| Error::database("look up the authority", e))?;
        row.map(|row| {
            let root = Certificate::from_der(column(&row, "root")?)?;
            Ok(Shared { root, settings: column(&row, "settings")? })
        })
        .transpose()
    }

    /// Makes the database that of an authority, with its first issuer, which is that of every
    /// certificate whose issuer nobody has noted.
    pub(crate) async fn found(&self, shared: &Shared, issuing: &Certificate, now: SystemTime) -> Result<()> {
        let failed = |e| Error::database("record the authority", e);
        retried(|| async {
            let mut transaction = self.begin().await.map_err(failed)?;
            sqlx::query(
                "INSERT INTO authority (id, root, settings) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING",
            )
            .bind(shared.root.der().as_ref())
            .bind(&shared.settings)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
            insert_issuer(&mut transaction, issuing, now).await.map_err(failed)?;
            sqlx::query("UPDATE certificate SET issuer = $1 WHERE issuer = ''")
                .bind(issuing.fingerprint_hex())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)
        })
        .await
    }

    /// The issuing certificates of all replicas, the oldest first.
    pub(crate) async fn issuers(&self) -> Result<Vec<Certificate>> {
        self.ca_certificates("SELECT certificate FROM issuer ORDER BY added_at, fingerprint", "list issuers")
            .await
    }

    /// The roots of before, and what roots vouch for one another with, the oldest first.
    pub(crate) async fn published(&self) -> Result<Vec<Certificate>> {
        self.ca_certificates("SELECT certificate FROM published ORDER BY added_at, fingerprint", "list roots")
            .await
    }

    async fn ca_certificates(
        &self,
        query: &'static str,
        operation: &'static str,
    ) -> Result<Vec<Certificate>> {
        sqlx::query(query)
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database(operation, e))?
            .iter()
            .map(|row| Ok(Certificate::from_der(column(row, "certificate")?)?))
            .collect()
    }

    /// Records an issuer of this replica. That it was recorded before changes nothing.
    pub(crate) async fn add_issuer(&self, new: NewIssuer, now: SystemTime) -> Result<()> {
        self.write(Change::Issuer(Box::new(new), now)).await?;
        Ok(())
    }

    /// Whether an issuer has issued something that is good at `now`, apart from certificates of responders.
    pub(crate) async fn is_in_use(&self, issuer: &str, now: SystemTime) -> Result<bool> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT serial FROM certificate WHERE issuer = $1 AND not_after >= $2 AND profile <> $3 LIMIT 1",
        )
        .bind(issuer)
        .bind(seconds(now))
        .bind(RESPONDER_PROFILE)
        .fetch_optional(&self.read)
        .await
        .map_err(|e| Error::database("look for certificates of an issuer", e))?;
        Ok(found.is_some())
    }

    /// Notes that a replica wants to join. That it asked before changes nothing.
    pub(crate) async fn ask_to_join(&self, id: &str, request: &[u8], now: SystemTime) -> Result<()> {
        retried(|| async {
            sqlx::query(
                "INSERT INTO joining (id, request, asked_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
            )
            .bind(id)
            .bind(request)
            .bind(seconds(now))
            .execute(&self.write)
            .await
            .map_err(|e| Error::database("ask to join", e))?;
            Ok(())
        })
        .await
    }

    /// The replicas that wait for approval.
    pub(crate) async fn waiting_to_join(&self) -> Result<Vec<Joining>> {
        sqlx::query("SELECT id, request, asked_at, certificate FROM joining WHERE certificate IS NULL ORDER BY asked_at, id")
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("list who wants to join", e))?
            .iter()
            .map(joining)
            .collect()
    }

    /// One that asked to join, approved or not.
    pub(crate) async fn joining(&self, id: &str) -> Result<Option<Joining>> {
        sqlx::query("SELECT id, request, asked_at, certificate FROM joining WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.read)
            .await
            .map_err(|e| Error::database("look up who wants to join", e))?
            .map(|row| joining(&row))
            .transpose()
    }

    /// Gives one that waits its certificate, and makes it an issuer. False if it does not wait.
    pub(crate) async fn admit(&self, id: &str, issuing: &Certificate, now: SystemTime) -> Result<bool> {
        self.write(Change::Admission { id: id.to_owned(), issuing: issuing.clone(), at: now }).await
    }

    /// Refuses one that waits, and forgets its request. False if it does not wait.
    pub(crate) async fn turn_away(&self, id: &str) -> Result<bool> {
        self.write(Change::Refusal { id: id.to_owned() }).await
    }
}

/// False if it was recorded before.
pub(super) async fn insert_new_issuer(
    transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
    new: &NewIssuer,
    now: SystemTime,
) -> sqlx::Result<bool> {
    for certificate in &new.published {
        sqlx::query(
            "INSERT INTO published (fingerprint, certificate, added_at) VALUES ($1, $2, $3)
             ON CONFLICT (fingerprint) DO NOTHING",
        )
        .bind(certificate.fingerprint_hex())
        .bind(certificate.der().as_ref())
        .bind(seconds(now))
        .execute(&mut **transaction)
        .await?;
    }
    if !new.published.is_empty() {
        sqlx::query("UPDATE authority SET root = $1 WHERE id = 1")
            .bind(new.root.der().as_ref())
            .execute(&mut **transaction)
            .await?;
    }
    insert_issuer(transaction, &new.issuing, now).await
}

/// False if it was there before.
pub(super) async fn insert_issuer(
    transaction: &mut sqlx::Transaction<'_, sqlx::Any>,
    issuing: &Certificate,
    now: SystemTime,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "INSERT INTO issuer (fingerprint, certificate, added_at) VALUES ($1, $2, $3)
         ON CONFLICT (fingerprint) DO NOTHING",
    )
    .bind(issuing.fingerprint_hex())
    .bind(issuing.der().as_ref())
    .bind(seconds(now))
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn joining(row: &AnyRow) -> Result<Joining> {
    let certificate: Option<&[u8]> = column(row, "certificate")?;
    Ok(Joining {
        id: column(row, "id")?,
        request: CertificationRequest::from_der(column(row, "request")?)?,
        asked: time(column(row, "asked_at")?)?,
        certificate: certificate.map(Certificate::from_der).transpose()?,
    })
}
