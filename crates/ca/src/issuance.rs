//! Issuing: the authority with its key, and the rules by which devices get certificates.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_enroll::{TokenSecret, duration, subject_of};
use enclasp_keystore::{Input, Key, Keystore, Origin, SignContext, verify};
use enclasp_pki::{
    Certificate, CertificationRequest, DistinguishedName, Issuer, Leaf, Revoked, SubjectAltName, hex,
    rfc3339, sha256, sign_message,
};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::Metrics;
use crate::names::{same_as, within_token};
use crate::refusal::Refusal;
use crate::store::{Decision, Spent, TokenRecord};
use crate::{Authority, Error, IssuedBy, Profile, Record, Result};

/// How long the issuing key may take for one signature.
pub(crate) const SIGN_TIMEOUT: Duration = Duration::from_secs(20);

/// What somebody would be issued of whom nothing is known.
const DEFAULT_PROFILE: &str = "client";

/// What a device is answered.
type Answer<T> = std::result::Result<T, Refusal>;

/// An authority that can sign.
pub(crate) struct Issuance {
    authority: Authority,
    key: Arc<dyn Key>,
    former: Vec<Signer>,
    /// For those who are issued certificates at the moment.
    places: Semaphore,
    metrics: Metrics,
}

/// An issuing certificate whose CRLs and OCSP responders are this authority's.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) certificate: Certificate,
    pub(crate) key: Arc<dyn Key>,
}

/// A certificate to be issued.
pub(crate) struct Wanted {
    pub(crate) profile: Profile,
    pub(crate) subject: DistinguishedName,
    pub(crate) subject_alt_names: Vec<SubjectAltName>,
    pub(crate) spki: Vec<u8>,
    /// `None` is the profile's default.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) issued_by: IssuedBy,
}

/// A token that was made here, whose secret was shown, and whose lifetime has not ended.
pub(crate) struct Claim {
    token: TokenRecord,
    /// What it was spent on.
    certificate: Option<Record>,
}

impl Issuance {
    /// Opens the issuing key.
    pub(crate) async fn open(authority: Authority, keystore: Arc<dyn Keystore>) -> Result<Self> {
        let (opened, uri) = (keystore.clone(), authority.config().issuing_key.clone());
        let unusable = |source| Error::IssuingKey { source };
        let key: Arc<dyn Key> = Arc::from(blocking(move || opened.open(&uri).map_err(unusable)).await?);
        if key.info().spki != authority.issuing().spki() {
            return Err(Error::WrongKey { certificate: "issuing", key: key.info().uri.to_string() });
        }
        let places = Semaphore::new(authority.config().requests_at_once.min(Semaphore::MAX_PERMITS));
        let mut former = Vec::new();
        for (certificate, uri) in authority.former_issuers().await? {
            let keystore = keystore.clone();
            match blocking(move || Ok(keystore.open(&uri)?)).await {
                Ok(key) => former.push(Signer { certificate, key: Arc::from(key) }),
                Err(error) => {
                    let issuer = certificate.subject();
                    tracing::error!(%issuer, %error, "nobody signs the CRLs of a former issuer");
                }
            }
        }
        Ok(Self { authority, key, former, places, metrics: Metrics::default() })
    }

    /// Checks that the issuing key is what it has to be before anybody depends on it: its keystore vouches that
    /// there is no copy, and what it signs now verifies with the public key in the certificate.
    pub(crate) async fn prove_key(&self) -> Result<()> {
        let (key, spki) = (self.key.clone(), self.authority.issuing().spki().to_vec());
        blocking(move || {
            let uri = &key.info().uri;
            if key.info().origin == Origin::Imported {
                return Err(Error::Copied { key: uri.to_string() });
            }
            let message = format!("proof of the key of an authority\n{}\n", rfc3339(SystemTime::now()));
            let ctx = SignContext::new("proof that the issuing key is there")
                .with_deadline(Instant::now() + SIGN_TIMEOUT);
            let (scheme, signature) = sign_message(&*key, message.as_bytes(), &ctx).map_err(|e| match e {
                enclasp_pki::Error::Key(source) => Error::IssuingKey { source },
                other => other.into(),
            })?;
            verify(&spki, scheme, Input::Message(message.as_bytes()), &signature)
                .map_err(|_| Error::WrongKey { certificate: "issuing", key: uri.to_string() })
        })
        .await
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The issuing certificate, and those of before that have something to answer for.
    pub(crate) fn signers(&self) -> impl Iterator<Item = Signer> {
        let present = Signer { certificate: self.authority.issuing().clone(), key: self.key.clone() };
        std::iter::once(present).chain(self.former.iter().cloned())
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A place among those who are issued certificates at the moment, while it is held. Whoever gets none
    /// comes back later: a queue as long as a fleet would help nobody.
    pub(crate) fn place(&self) -> Answer<SemaphorePermit<'_>> {
        self.places.try_acquire().map_err(|_| Refusal::Busy)
    }

    /// Finds the record of a token whose secret a device shows.
    pub(crate) async fn claim(&self, secret: &TokenSecret, now: SystemTime) -> Answer<Claim> {
        let unknown = || Refusal::Unauthorized("this authority did not make this token".into());
        let (record, certificate) = self.authority.store().token(&secret.id()).await?.ok_or_else(unknown)?;
        if !bool::from(record.secret_hash.ct_eq(&secret.hash())) {
            return Err(unknown());
        }
        if let Ok(since) = now.duration_since(record.expires) {
            return Err(Refusal::Unauthorized(format!(
                "the token for {} expired {} ago, at {}",
                record.common_name,
                duration::in_words(since),
                rfc3339(record.expires)
            )));
        }
        Ok(Claim { token: record, certificate })
    }

    /// The certificate that a token pays for: a new one if it is unspent, else the recorded one if
    /// the request is for the same key and for names of the token. `profile` is the one that alone is issued
    /// under here, if there is one.
    pub(crate) async fn enroll(
        &self,
        claim: Claim,
        request: CertificationRequest,
        profile: Option<&str>,
    ) -> Answer<Record> {
        let who = format!("token {}", claim.token.id);
        let answer = self.enrolled(claim, request, profile).await;
        self.audited(&who, answer).await
    }

    async fn enrolled(
        &self,
        claim: Claim,
        request: CertificationRequest,
        only: Option<&str>,
    ) -> Answer<Record> {
        let Claim { token, certificate } = claim;
        under("token", &token.profile, only)?;
        let subject = subject_of(&token.common_name)?;
        let allowed = within_token(&request, &subject, &token.subject_alt_names);
        let again = |before: Record| {
            if let Some(revoked) = &before.revoked {
                Err(Refusal::Unauthorized(was_revoked(revoked)))
            } else if allowed.is_ok() && before.certificate()?.spki() == request.spki() {
                tracing::info!(serial = %before.serial, token = %token.id, "handed out again");
                Ok(before)
            } else {
                Err(Refusal::Unauthorized(
                    "the token was used already, for another key or other names".into(),
                ))
            }
        };
        if let Some(before) = certificate {
            return again(before);
        }
        allowed.clone().map_err(Refusal::Forbidden)?;
        let profile = self.authority.config().profile(&token.profile)?;
        if profile.approval {
            profile.check_key(request.spki()).map_err(fault)?;
            self.approved(&token, &request).await?;
        }
        let record = self
            .issue(Wanted {
                profile,
                subject,
                subject_alt_names: token.subject_alt_names.clone(),
                spki: request.spki().to_vec(),
                lifetime: None,
                issued_by: IssuedBy::Token,
            })
            .await
            .map_err(fault)?;
        match self.authority.store().spend(&token.id, &record).await? {
            Spent::Now => {
                log(&record);
                Ok(record)
            }
            Spent::Before(before) => again(*before),
        }
    }

    /// Whether a person has approved of this request. The token is held for the first key that asks.
    async fn approved(&self, token: &TokenRecord, request: &CertificationRequest) -> Answer<()> {
        let key = hex(&sha256(request.spki()));
        let (held_for, decision) = self.authority.store().ask_for_approval(&token.id, &key).await?;
        if held_for != key {
            return Err(Refusal::Unauthorized("the token is held for another key".into()));
        }
        match decision {
            Decision::Approved => Ok(()),
            Decision::Denied => Err(Refusal::Forbidden("a person denied this request".into())),
            Decision::Waiting => Err(Refusal::Waiting(format!(
                "request {} for {} waits for a person's approval; its key has the SHA-256 {key}",
                token.id, token.common_name
            ))),
        }
    }

    /// What a request should contain (RFC 7030 §4.5) of whoever shows this secret or this certificate:
    /// the profile that it would be issued under, and its names, if they are known.
    pub(crate) async fn suggestion(
        &self,
        secret: Option<&TokenSecret>,
        peer: Option<&CertificateDer<'_>>,
        only: Option<&str>,
    ) -> Answer<(Profile, Option<(DistinguishedName, Vec<SubjectAltName>)>)> {
        let (profile, names) = if let Some(secret) = secret {
            let token = self.claim(secret, SystemTime::now()).await?.token;
            (token.profile, Some((subject_of(&token.common_name)?, token.subject_alt_names)))
        } else if let Some(peer) = peer {
            let peer = Certificate::from_der(peer)?;
            let old = self.recorded(&peer).await?;
            (old.profile, Some((peer.subject().clone(), old.subject_alt_names)))
        } else {
            (only.unwrap_or(DEFAULT_PROFILE).to_owned(), None)
        };
        under("credential", &profile, only)?;
        Ok((self.authority.config().profile(&profile)?, names))
    }

    /// A new certificate for the names of `peer`, which authenticated the connection; `profile` as in
    /// [`enroll`](Self::enroll).
    pub(crate) async fn renew(
        &self,
        peer: &CertificateDer<'_>,
        request: CertificationRequest,
        profile: Option<&str>,
    ) -> Answer<Record> {
        let peer = Certificate::from_der(peer)?;
        let answer = self.renewed(&peer, request, profile).await;
        self.audited(&format!("certificate {}", peer.serial()), answer).await
    }

    /// Records a refusal of somebody that is known: a stranger shall not fill the audit log.
    async fn audited(&self, who: &str, answer: Answer<Record>) -> Answer<Record> {
        if let Err(reason) = answer.as_ref().map_err(Refusal::reason)
            && let Some(reason) = reason
        {
            let event = json!({ "event": "refused", "reason": reason, "by": who });
            self.authority.store().note(event).await?;
        }
        answer
    }

    /// The record of a certificate that somebody shows.
    async fn recorded(&self, peer: &Certificate) -> Answer<Record> {
        let known = self.authority.store().certificate(peer.serial()).await?;
        known.filter(|record| record.der == peer.der().as_ref()).ok_or_else(|| {
            Refusal::Forbidden(format!(
                "this authority has no record of issuing certificate {}",
                peer.serial()
            ))
        })
    }

    async fn renewed(
        &self,
        peer: &Certificate,
        request: CertificationRequest,
        only: Option<&str>,
    ) -> Answer<Record> {
        let old = self.recorded(peer).await?;
        under("certificate", &old.profile, only)?;
        let profile = self.authority.config().profile(&old.profile)?;
        self.succeeded(peer, old, request, profile, IssuedBy::Renewal).await
    }

    /// A certificate for the names of `peer`, which authenticated the connection, and for a software key: to
    /// compare the two with.
    pub(crate) async fn bisect(
        &self,
        peer: &CertificateDer<'_>,
        request: CertificationRequest,
    ) -> Answer<Record> {
        let peer = Certificate::from_der(peer)?;
        let answer = self.bisected(&peer, request).await;
        self.audited(&format!("certificate {}", peer.serial()), answer).await
    }

    async fn bisected(&self, peer: &Certificate, request: CertificationRequest) -> Answer<Record> {
        let old = self.recorded(peer).await?;
        let profile = self.authority.config().profile(&old.profile)?;
        let twin = profile.twin().ok_or_else(|| {
            Refusal::Forbidden(format!(
                "the profile {} allows no software key for a comparison: `bisect = true` would",
                old.profile
            ))
        })?;
        self.succeeded(peer, old, request, twin, IssuedBy::Bisect).await
    }

    /// A certificate for the names of `peer`, whose record is `old`, under `profile`.
    async fn succeeded(
        &self,
        peer: &Certificate,
        old: Record,
        request: CertificationRequest,
        profile: Profile,
        issued_by: IssuedBy,
    ) -> Answer<Record> {
        if let Some(revoked) = &old.revoked {
            return Err(Refusal::Forbidden(was_revoked(revoked)));
        }
        if old.issued_by == IssuedBy::Bisect {
            return Err(Refusal::Forbidden(
                "the certificate is for a comparison: it pays for no other, and is not renewed".into(),
            ));
        }
        same_as(&request, peer).map_err(Refusal::Forbidden)?;
        let grace = match issued_by {
            IssuedBy::Renewal => profile.renewal_grace,
            _ => Duration::ZERO,
        };
        // Another profile may be more patient, and the handshake knows of none.
        if let Ok(late) = SystemTime::now().duration_since(peer.not_after())
            && late > grace
        {
            return Err(Refusal::Forbidden(format!(
                "the certificate {} expired {} ago: enrol again with a new token",
                peer.serial(),
                duration::in_words(late)
            )));
        }
        let record = self
            .issue(Wanted {
                profile,
                subject: peer.subject().clone(),
                subject_alt_names: old.subject_alt_names,
                spki: request.spki().to_vec(),
                lifetime: None,
                issued_by,
            })
            .await
            .map_err(fault)?;
        if !self.authority.store().succeed(peer.serial(), &record).await? {
            return Err(Refusal::Forbidden(format!("the certificate {} was revoked", peer.serial())));
        }
        log(&record);
        Ok(record)
    }

    /// Issues a certificate that no token pays for; it is recorded when this returns.
    pub(crate) async fn issue_and_record(&self, wanted: Wanted) -> Result<Record> {
        let record = self.issue(wanted).await?;
        self.authority.store().add_certificate(&record).await?;
        log(&record);
        Ok(record)
    }

    /// Signs what the profile allows. The key may be slow, and holds up nobody here.
    async fn issue(&self, wanted: Wanted) -> Result<Record> {
        wanted.profile.check_key(&wanted.spki)?;
        wanted.profile.check_names(&wanted.subject_alt_names)?;
        self.authority.check_constraints(&wanted.subject, &wanted.subject_alt_names)?;
        let (certificate, key) = (self.authority.issuing().clone(), self.key.clone());
        let config = self.authority.config();
        let shard = config.shard_of(&wanted.spki);
        let pointers = config.pointers(&certificate.fingerprint_hex(), shard);
        blocking(move || {
            let now = SystemTime::now();
            let leaf = Leaf {
                profile: &wanted.profile.certificate,
                subject: &wanted.subject,
                subject_alt_names: &wanted.subject_alt_names,
                spki: &wanted.spki,
                lifetime: wanted.lifetime,
            };
            let reason = format!("certificate for {} by {}", wanted.subject, certificate.subject());
            let ctx = SignContext::new(reason).with_deadline(Instant::now() + SIGN_TIMEOUT);
            let issuer = Issuer::new(certificate, &*key)?.with_pointers(pointers);
            let issued = issuer.issue(&leaf, now, &ctx)?;
            let profile = wanted.profile.name();
            Ok(Record::new(&issued, issuer.certificate(), shard, profile, wanted.issued_by, now))
        })
        .await
    }
}

/// Whether what is shown is of the one profile that is issued under here.
fn under(what: &str, profile: &str, only: Option<&str>) -> Answer<()> {
    match only.filter(|only| *only != profile) {
        None => Ok(()),
        Some(only) => Err(Refusal::Forbidden(format!(
            "the {what} is for the profile {profile}, and this label for {only}"
        ))),
    }
}

fn was_revoked(revoked: &Revoked) -> String {
    format!("the certificate {} was revoked at {}: {}", revoked.serial, rfc3339(revoked.at), revoked.reason)
}

/// One line per issuance, after it is recorded.
fn log(record: &Record) {
    tracing::info!(
        serial = %record.serial,
        subject = %record.subject,
        profile = %record.profile,
        issued_by = %record.issued_by,
        not_after = %rfc3339(record.not_after),
        "issued"
    );
}

/// Whose fault it is that a certificate was not issued.
fn fault(error: Error) -> Refusal {
    use enclasp_pki::Error as Pki;
    match error {
        Error::Pki(
            e @ (Pki::Name { .. }
            | Pki::Malformed { .. }
            | Pki::Signature { .. }
            | Pki::Weak { .. }
            | Pki::Unsupported { .. }),
        ) => Refusal::BadRequest(e.to_string()),
        e @ (Error::NotAllowed { .. } | Error::Constrained { .. }) => Refusal::Forbidden(e.to_string()),
        other => Refusal::Internal(other),
    }
}

/// Runs something that may block where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Task { reason: e.to_string() })?
}
