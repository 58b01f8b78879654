//! The OCSP answer about what a server tunnel presents: fetched ahead, checked, and stapled to its handshakes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use enclasp_pki::{CertStatus, Certificate, OcspAnswer, ocsp_request, rfc3339};
use enclasp_tls::{Credential, Server};
use enclasp_tunnel::{Current, HttpUrl};
use rustls_pki_types::CertificateDer;
use tokio::time::sleep;

use crate::failure::{Failure, Outcome};

/// How long an answer may take to come, and how long the start waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const FIRST_TIMEOUT: Duration = Duration::from_secs(3);

/// No answer is longer.
const MAX_ANSWER: usize = 64 << 10;

/// An answer is fetched again at half of its time, between these bounds; hourly if it has no end.
const REFRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// The answer of one tunnel. Cloning shares it.
#[derive(Clone)]
pub(super) struct Staple(Option<Arc<Stapling>>);

struct Stapling {
    /// Who may have issued the certificate, if its chain does not say.
    roots: Vec<CertificateDer<'static>>,
    kept: Mutex<Option<Kept>>,
}

/// An answer that the certificate is good.
struct Kept {
    /// Fingerprint of the certificate.
    of: [u8; 32],
    der: Vec<u8>,
    /// When it is over.
    until: Option<SystemTime>,
}

impl Staple {
    /// Nothing is stapled.
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(roots: Vec<CertificateDer<'static>>) -> Self {
        Self(Some(Arc::new(Stapling { roots, kept: Mutex::new(None) })))
    }

    /// Has `server` staple the answer that there is about its certificate.
    pub(super) fn attach(&self, server: &Server) {
        let Some(stapling) = &self.0 else { return };
        let kept = stapling.kept();
        let kept = kept.as_ref().filter(|kept| kept.of == server.credential().leaf().fingerprint());
        let good = kept.filter(|kept| kept.until.is_none_or(|until| until > SystemTime::now()));
        server.staple(good.map(|kept| kept.der.clone()));
    }

    /// Fetches the answer about a certificate for the first time. If it does not come, there is none yet.
    ///
    /// # Errors
    /// If there cannot be one: nobody says whom to ask.
    pub(super) async fn begin(&self, credential: &Credential) -> Outcome {
        let Some(stapling) = &self.0 else { return Ok(()) };
        let question = stapling.question(credential)?;
        if let Err(failure) = stapling.fetch(&question, FIRST_TIMEOUT).await {
            tracing::warn!(
                cause = failure.message(),
                "cannot have an OCSP answer to staple; it is tried again"
            );
        }
        Ok(())
    }

    /// Keeps what `server` staples up to date, for ever.
    pub(super) async fn follow(self, server: Current<Server>) {
        let Some(stapling) = &self.0 else { return std::future::pending().await };
        let mut complained = None;
        let mut pause = stapling.pause();
        loop {
            let (now, mut changes) = server.watch();
            let leaf = now.credential().leaf().fingerprint();
            tokio::select! {
                () = sleep(pause) => {}
                // A renewed certificate wants an answer at once.
                Ok(_) = changes.wait_for(|now| now.credential().leaf().fingerprint() != leaf) => {}
            }
            let now = server.get();
            let fetched = match stapling.question(now.credential()) {
                Ok(question) => stapling.fetch(&question, FETCH_TIMEOUT).await,
                Err(failure) => Err(failure),
            };
            pause = match fetched {
                Ok(()) => {
                    complained = None;
                    stapling.pause()
                }
                Err(failure) => {
                    let cause = failure.message().to_owned();
                    if complained.as_ref() != Some(&cause) {
                        tracing::warn!(%cause, "cannot have an OCSP answer to staple; the last one stays while it is good");
                    }
                    complained = Some(cause);
                    RETRY
                }
            };
            self.attach(&now);
        }
    }
}

/// What is asked, and whom.
struct Question {
    url: HttpUrl,
    leaf: Certificate,
    issuer: Certificate,
}

impl Stapling {
    fn question(&self, credential: &Credential) -> Outcome<Question> {
        let leaf = credential.leaf();
        let url = leaf.ocsp_urls().into_iter().find_map(|url| url.parse().ok()).ok_or_else(|| {
            Failure::new(format!("{} names no OCSP responder (http://)", leaf.name()))
                .hint("leave out --staple-ocsp, or have its authority name one")
        })?;
        let others = credential.chain().iter().skip(1).chain(&self.roots);
        let mut others = others.filter_map(|der| Certificate::from_der(der).ok());
        let issuer = others.find(|other| leaf.verify_signed_by(other).is_ok()).ok_or_else(|| {
            Failure::new(format!("the issuer of {} is not there, for whom OCSP answers", leaf.name()))
                .hint("put its certificate after the leaf's")
        })?;
        Ok(Question { url, leaf: leaf.clone(), issuer })
    }

    /// Fetches an answer and keeps it if it says that the certificate is good.
    async fn fetch(&self, Question { url, leaf, issuer }: &Question, within: Duration) -> Outcome {
        let request = ocsp_request(leaf, issuer)?;
        let der = url.post("application/ocsp-request", request, within, MAX_ANSWER).await?;
        let answer = OcspAnswer::from_der(&der, leaf, issuer, SystemTime::now());
        let answer = answer.map_err(|e| Failure::from(e).within(url))?;
        match answer.status {
            CertStatus::Good => {}
            CertStatus::Revoked(revoked) => {
                self.kept().take();
                let (at, reason) = (rfc3339(revoked.at), revoked.reason);
                return Err(
                    Failure::new(format!("{} was revoked at {at} ({reason})", leaf.name())).within(url)
                );
            }
            CertStatus::Unknown => {
                self.kept().take();
                return Err(Failure::new(format!("it does not know {}", leaf.name())).within(url));
            }
        }
        *self.kept() = Some(Kept { of: leaf.fingerprint(), der, until: answer.next_update });
        Ok(())
    }

    /// How long the answer that there is will do.
    fn pause(&self) -> Duration {
        let kept = self.kept();
        let Some(kept) = kept.as_ref() else { return RETRY };
        let (shortest, longest) = REFRESH;
        let left = |until: SystemTime| until.duration_since(SystemTime::now()).unwrap_or_default();
        kept.until.map_or(longest, |until| (left(until) / 2).clamp(shortest, longest))
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
