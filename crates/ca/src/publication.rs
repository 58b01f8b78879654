//! What the authority says of its certificates to everybody: CRLs, OCSP answers, its own
//! certificates. It is signed ahead and served from memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use enclasp_keystore::{Key, Keystore, SignContext};
use enclasp_pki::{
    CertId, CertStatus, Certificate, CrlContents, Issuer, OcspRefusal, OcspRequest, hex, ocsp_response,
    sha256,
};

use crate::issuance::{Issuance, SIGN_TIMEOUT, Signer, blocking};
use crate::store::{CrlState, ResponderKey};
use crate::{Authority, Error, IssuedBy, Record, Result};

/// How long a CRL is good. A new one is signed at half of it, or as soon as something is revoked.
const CRL_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long an OCSP answer is good. One that nobody asked to be fresh is kept for half of it.
const ANSWER_LIFETIME: Duration = Duration::from_secs(3600);
/// How long the certificate of a responder is good. It is replaced at two thirds of it. As long as that a lost
/// replica's certificates are still answered for by the others.
const RESPONDER_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How long a responder that is silent gets new certificates.
const RESPONDER_PATIENCE: Duration = Duration::from_secs(7 * 86_400);
/// What the certificates of responders are recorded under.
pub(crate) const RESPONDER_PROFILE: &str = "ocsp";
/// How many OCSP answers are kept.
const MAX_ANSWERS: usize = 100_000;
/// How long after a revocation a new CRL is there, at most, apart from the signing.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// A CRL as it is served.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) der: Vec<u8>,
    pub(crate) state: CrlState,
}

/// An OCSP answer as it is served.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) der: Arc<Vec<u8>>,
    /// When it stops being good; none of a refusal or a fresh one, which nobody may keep.
    pub(crate) until: Option<SystemTime>,
}

/// What is public, kept up to date by [`refresh`](Self::refresh).
pub(crate) struct Publication {
    issuance: Arc<Issuance>,
    responder: Option<Responder>,
    /// By the name in their URL.
    crls: RwLock<BTreeMap<String, Arc<Published>>>,
    issuers: RwLock<Vec<Certificate>>,
}

struct Responder {
    key: Arc<dyn Key>,
    id: ResponderKey,
    /// Issuing certificates, each with what it gave this responder.
    certificates: RwLock<Vec<(Certificate, Certificate)>>,
    kept: Mutex<Kept>,
}

/// Answers, all of them signed after as many revocations.
#[derive(Default)]
struct Kept {
    changes: i64,
    answers: HashMap<Vec<u8>, Answer>,
}

impl Publication {
    /// Opens the responder's key, if the settings name one.
    pub(crate) async fn open(issuance: Arc<Issuance>, keystore: Arc<dyn Keystore>) -> Result<Self> {
        let responder = match issuance.authority().config().ocsp_key.clone() {
            None => None,
            Some(uri) => {
                let key: Arc<dyn Key> = Arc::from(blocking(move || Ok(keystore.open(&uri)?)).await?);
                let spki = key.info().spki.clone();
                let id = ResponderKey { id: hex(&sha256(&spki)), spki };
                Some(Responder { key, id, certificates: RwLock::default(), kept: Mutex::default() })
            }
        };
        Ok(Self { issuance, responder, crls: RwLock::default(), issuers: RwLock::default() })
    }

    /// Signs what is due, and takes up what other replicas have signed.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let authority = self.issuance.authority();
        let signed = self.issuance.sign_due_crls().await;
        let states = authority.store().crl_states().await?;
        let changes = states.iter().map(|state| state.changes).sum();
        for state in states.into_iter().filter(|state| state.number > 0) {
            let name = crl_name(&state.issuer, state.shard);
            let known = read(&self.crls).get(&name).is_some_and(|known| known.state.number == state.number);
            if !known && let Some(der) = authority.store().crl(&state.issuer, state.shard).await? {
                write(&self.crls).insert(name, Arc::new(Published { der, state }));
            }
        }
        *write(&self.issuers) = authority.store().issuers().await?;
        if let Some(responder) = &self.responder {
            self.certify_responders(&responder.id).await?;
            let certificates = authority.store().responder_certificates(&responder.id.id).await?;
            *write(&responder.certificates) = certificates;
            let mut kept = responder.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.changes != changes {
                *kept = Kept { changes, answers: HashMap::new() };
            }
        }
        signed
    }

    /// The CRL of that name, which ends in `.crl`.
    pub(crate) fn crl(&self, name: &str) -> Option<Arc<Published>> {
        read(&self.crls).get(name).cloned()
    }

    /// The issuing certificate of that name, which ends in `.cer`.
    pub(crate) fn issuer(&self, name: &str) -> Option<Certificate> {
        read(&self.issuers).iter().find(|issuer| issuer_name(&issuer.fingerprint_hex()) == name).cloned()
    }

    /// The answer to an OCSP request in DER: kept, or signed now if it shall be fresh.
    pub(crate) async fn ocsp(&self, request: &[u8]) -> Result<Answer> {
        let refused = |refusal: OcspRefusal| Ok(Answer { der: Arc::new(refusal.to_der()?), until: None });
        let Some(responder) = &self.responder else {
            return refused(OcspRefusal::Unauthorized);
        };
        let Ok(request) = OcspRequest::from_der(request) else {
            return refused(OcspRefusal::MalformedRequest);
        };
        let keepable = match request.certificates() {
            [one] if request.nonce().is_none() => Some(one.to_der()?),
            _ => None,
        };
        let now = SystemTime::now();
        if let Some(name) = &keepable {
            let kept = responder.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(answer) = kept.answers.get(name).filter(|answer| !is_stale(answer, now)) {
                return Ok(answer.clone());
            }
        }
        let Some((issuer, certificate)) = responder.certificate_for(request.certificates(), now) else {
            return refused(OcspRefusal::Unauthorized);
        };
        // Taken before the records are read: what is revoked meanwhile makes the answer old at once.
        let changes = responder.kept.lock().unwrap_or_else(PoisonError::into_inner).changes;
        let mut statuses = Vec::new();
        for id in request.certificates() {
            statuses.push((id.clone(), self.status(id, &issuer).await?));
        }
        let known = statuses.iter().all(|(_, status)| *status != CertStatus::Unknown);
        let until = now + ANSWER_LIFETIME;
        let (key, nonce) = (responder.key.clone(), request.nonce().map(<[u8]>::to_vec));
        let der = blocking(move || {
            let ctx = SignContext::new("OCSP answer").with_deadline(Instant::now() + SIGN_TIMEOUT);
            Ok(ocsp_response(&*key, &certificate, &statuses, nonce.as_deref(), (now, until), &ctx)?)
        })
        .await?;
        let answer = Answer { der: Arc::new(der), until: keepable.is_some().then_some(until) };
        // One that is not issued yet may be soon.
        if let Some(name) = keepable.filter(|_| known) {
            let mut kept = responder.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.changes == changes {
                if kept.answers.len() >= MAX_ANSWERS {
                    kept.answers.clear();
                }
                kept.answers.insert(name, answer.clone());
            }
        }
        Ok(answer)
    }

    async fn status(&self, id: &CertId, issuer: &Certificate) -> Result<CertStatus> {
        let record = self.issuance.authority().store().certificate(&id.serial()).await?;
        Ok(match record.filter(|record| record.issuer == issuer.fingerprint_hex()) {
            None => CertStatus::Unknown,
            Some(record) => record.revoked.map_or(CertStatus::Good, CertStatus::Revoked),
        })
    }

    /// Gives every responder, of this replica and of the others, a certificate of each issuer of this one.
    async fn certify_responders(&self, own: &ResponderKey) -> Result<()> {
        let (store, now) = (self.issuance.authority().store(), SystemTime::now());
        store.note_responder(own, now).await?;
        let since = now.checked_sub(RESPONDER_PATIENCE).unwrap_or(SystemTime::UNIX_EPOCH);
        for signer in self.issuance.signers() {
            // As long as that issuer itself, at most.
            let lifetime = signer.certificate.not_after().duration_since(now).unwrap_or_default();
            let lifetime = lifetime.min(RESPONDER_LIFETIME);
            for (key, certificate) in store.responders(&signer.certificate.fingerprint_hex(), since).await? {
                let due = |certificate: &Certificate| certificate.not_after() < now + lifetime / 3;
                if certificate.as_ref().is_none_or(due) {
                    let record = self.issuance.issue_responder(&signer, &key.spki, lifetime).await?;
                    store.certify_responder(&key.id, &record).await?;
                }
            }
        }
        Ok(())
    }
}

impl Responder {
    /// The issuer that all of these certificates are of, and what it gave this responder.
    fn certificate_for(&self, ids: &[CertId], now: SystemTime) -> Option<(Certificate, Certificate)> {
        let certificates = read(&self.certificates);
        let mut certificates = certificates.iter().filter(|(_, own)| own.not_after() > now);
        certificates.find(|(issuer, _)| ids.iter().all(|id| id.is_of(issuer))).cloned()
    }
}

impl Authority {
    /// The latest CRL of this issuer, in DER, signed now if something was revoked since or if it is half
    /// as old as it may get; or that of another one, by the beginning of its SHA-256 in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such issuer, shard or CRL; [`Error::Database`]; what the keystore says.
    pub async fn crl(
        &self,
        keystore: Arc<dyn Keystore>,
        issuer: Option<&str>,
        shard: u32,
    ) -> Result<Vec<u8>> {
        let shards = self.config().crl_shards;
        if shard >= shards {
            let (what, value) = ("the shard of a CRL", shard.to_string());
            return Err(Error::Setting { what, value, reason: format!("there are {shards}, from 0") });
        }
        Issuance::open(self.clone(), keystore).await?.sign_due_crls().await?;
        let wanted = issuer.map(str::to_lowercase);
        let known = std::iter::once(self.issuing().clone()).chain(self.issuers().await?);
        let mut known = known.map(|issuer| issuer.fingerprint_hex());
        let found = known.find(|known| wanted.as_ref().is_none_or(|wanted| known.starts_with(wanted)));
        let none = |reason: &str| Error::Setting {
            what: "the issuer of a CRL",
            value: issuer.unwrap_or_default().to_owned(),
            reason: reason.to_owned(),
        };
        let found = found.ok_or_else(|| none("no issuer's SHA-256 begins like that"))?;
        self.store().crl(&found, shard).await?.ok_or_else(|| none("it has signed none yet"))
    }
}

impl Issuance {
    /// Signs the CRLs of this authority's issuers that are due. One that fails keeps no other from it.
    async fn sign_due_crls(&self) -> Result<()> {
        let states = self.authority().store().crl_states().await?;
        let mut outcome = Ok(());
        for signer in self.signers() {
            for shard in 0..self.authority().config().crl_shards {
                let issuer = signer.certificate.fingerprint_hex();
                let state = states.iter().find(|state| state.issuer == issuer && state.shard == shard);
                let state = state.cloned().unwrap_or_else(|| CrlState::unsigned(&issuer, shard));
                outcome = outcome.and(self.sign_crl(&signer, state).await);
            }
        }
        outcome
    }

    /// Signs the CRL that follows on `state`, if it is due.
    async fn sign_crl(&self, signer: &Signer, state: CrlState) -> Result<()> {
        let (store, now) = (self.authority().store(), SystemTime::now());
        let is_fresh = state.number > 0
            && state.changes == state.signed_changes
            && state.this_update <= now
            && state.next_update > now + CRL_LIFETIME / 2;
        if is_fresh {
            return Ok(());
        }
        // What has ended stays on one more list (RFC 5280 §3.3).
        let revoked = store.revoked(&state.issuer, state.shard, state.this_update).await?;
        let next = CrlState {
            signed_changes: state.changes,
            number: state.number + 1,
            this_update: now,
            next_update: now + CRL_LIFETIME,
            ..state.clone()
        };
        let config = self.authority().config();
        let point = config.crl_url(&state.issuer, state.shard).filter(|_| config.crl_shards > 1);
        let (certificate, key) = (signer.certificate.clone(), signer.key.clone());
        let (contents, count) = (next.clone(), revoked.len());
        let der = blocking(move || {
            let contents = CrlContents {
                number: contents.number,
                this_update: contents.this_update,
                next_update: contents.next_update,
                distribution_point: point.as_deref(),
                revoked: &revoked,
            };
            let ctx = SignContext::new(format!("CRL of {}", certificate.subject()))
                .with_deadline(Instant::now() + SIGN_TIMEOUT);
            Ok(Issuer::new(certificate, &*key)?.sign_crl(&contents, &ctx)?)
        })
        .await?;
        // Of two replicas with one key, one is first.
        if store.publish_crl(&next, state.number, &der).await? {
            let issuer = signer.certificate.subject();
            tracing::info!(%issuer, number = next.number, shard = next.shard, revoked = count, "signed a CRL");
        }
        Ok(())
    }

    /// A certificate for a responder, which is recorded by whoever hands it out.
    async fn issue_responder(&self, signer: &Signer, spki: &[u8], lifetime: Duration) -> Result<Record> {
        let name = &self.authority().config().name;
        let subject = enclasp_enroll::subject_of(&format!("{name} OCSP responder"))?;
        let Signer { certificate, key } = signer.clone();
        let spki = spki.to_vec();
        blocking(move || {
            let now = SystemTime::now();
            let ctx = SignContext::new(format!("certificate of an OCSP responder: {subject}"))
                .with_deadline(Instant::now() + SIGN_TIMEOUT);
            let issuer = Issuer::new(certificate, &*key)?;
            let issued = issuer.issue_responder(&subject, &spki, lifetime, now, &ctx)?;
            Ok(Record::new(&issued, issuer.certificate(), 0, RESPONDER_PROFILE, IssuedBy::Server, now))
        })
        .await
    }
}

/// The name of a CRL in its URL.
pub(crate) fn crl_name(issuer: &str, shard: u32) -> String {
    format!("{}-{shard}.crl", short(issuer))
}

/// The name of an issuing certificate in its URL.
pub(crate) fn issuer_name(issuer: &str) -> String {
    format!("{}.cer", short(issuer))
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}

fn is_stale(answer: &Answer, now: SystemTime) -> bool {
    answer.until.is_none_or(|until| until < now + ANSWER_LIFETIME / 2)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
