//! Enrolment in one step, which goes on where it stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use enclasp_identity::{Identity, Store};
use enclasp_keystore::{Key, KeySpec, KeyUri, Keystore, Origin, SignContext};
use enclasp_pki::{Certificate, Purpose, create_csr, order_chain, rfc3339, verify_chain};

use crate::pending::{self, Pending};
use crate::trust::with_successors;
use crate::{Client, Error, Result, Token, Trust};

/// How often to ask whether a person has approved, if the authority does not say.
const POLL: Duration = Duration::from_secs(10);

/// What an enrolment shall make, and where.
#[derive(Clone)]
pub struct Enrolment {
    /// The name of the identity.
    pub identity: String,
    /// The key. It is made unless there is one of that name, which is then used as it is.
    pub key: KeySpec,
    /// Where the key is or shall be.
    pub keystore: Arc<dyn Keystore>,
    /// Where the identity goes.
    pub store: Store,
    /// The folder of enrolments that are under way.
    pub pending: PathBuf,
    /// How long to wait for a person's approval, if the authority demands one. After it, the same call
    /// goes on.
    pub patience: Duration,
}

impl Enrolment {
    /// The key of an identity that there is not yet.
    pub(crate) fn new_key(&self) -> Result<(Box<dyn Key>, Step)> {
        Store::check_name(&self.identity)?;
        match self.store.get(&self.identity) {
            Err(enclasp_identity::Error::Absent { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Error::IdentityExists { identity: self.identity.clone() }),
        }
        let uri = &self.key.uri;
        match self.keystore.open(uri) {
            Ok(key) => Ok((key, Step::KeyFound(uri.clone()))),
            Err(enclasp_keystore::Error::Absent { .. }) => {
                Ok((self.keystore.create(&self.key)?, Step::KeyMade(uri.clone())))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What an enrolment has just done, for a person who watches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// An earlier attempt with this token is taken up again.
    Resumed {
        /// Its key.
        key: KeyUri,
    },
    /// A key was made.
    KeyMade(KeyUri),
    /// The key was there already.
    KeyFound(KeyUri),
    /// The request is signed and recorded, and goes to the authority now.
    Requesting {
        /// URL of the authority.
        authority: String,
    },
    /// A person has to approve first.
    Waiting {
        /// What the authority says.
        reason: String,
    },
    /// The certificate is there and is the right one.
    Certified {
        /// Its subject.
        subject: String,
        /// Its serial number.
        serial: String,
        /// Its end, as RFC 3339.
        not_after: String,
    },
    /// The identity is stored.
    Stored {
        /// Its name.
        identity: String,
    },
}

/// Enrols with `token`: key, request, certificate, identity.
///
/// The key's name and the request are recorded before anything is sent. If this process or the
/// authority ends at any moment, the same call goes on: the authority answers the same key and
/// names with the certificate that it recorded, until the token's lifetime ends.
///
/// # Errors
/// [`Error::Expired`], [`Error::IdentityExists`], [`Error::OtherEnrolment`]; what the keystore, the
/// connection and the authority say; [`Error::WrongCertificate`] if the authority issued something
/// else. The identity exists only if this succeeds. If the authority refuses the token for good, a
/// key that was made for it is deleted.
pub async fn enroll(
    token: &Token,
    enrolment: &Enrolment,
    mut progress: impl FnMut(Step),
) -> Result<Identity> {
    token.check(SystemTime::now())?;
    Store::check_name(&enrolment.identity)?;
    let url = token.contents().authority.to_string();
    // Keys may be slow, or ask a person.
    let (pending, key, steps) = blocking({
        let (token, enrolment) = (token.clone(), enrolment.clone());
        move || prepare(&token, &enrolment)
    })
    .await?;
    steps.into_iter().for_each(&mut progress);
    progress(Step::Requesting { authority: url.clone() });
    let client =
        Client::new(token.contents().authority.clone(), Trust::RootFingerprint(token.contents().root))?;
    let asked = Instant::now();
    let answer = loop {
        match client.simpleenroll(&pending.csr, token.secret()).await {
            Err(Error::Later { status: 202, reason, retry_after, .. })
                if asked.elapsed() < enrolment.patience =>
            {
                progress(Step::Waiting { reason });
                let left = enrolment.patience.saturating_sub(asked.elapsed());
                tokio::time::sleep(retry_after.unwrap_or(POLL).min(left)).await;
            }
            answer => break answer,
        }
    };
    let issued = match answer {
        Ok(issued) => issued,
        Err(error) => {
            if error.is_final() {
                let (token, enrolment) = (token.clone(), enrolment.clone());
                blocking(move || {
                    give_up(&token, &enrolment, &pending);
                    Ok(())
                })
                .await?;
            }
            return Err(error);
        }
    };
    let authorities = client.cacerts().await?;
    let wrong = |reason: String| Error::WrongCertificate { url: url.clone(), reason };
    let leaf = issued
        .iter()
        .find(|certificate| certificate.spki() == key.info().spki)
        .ok_or_else(|| wrong(format!("it is not for the key `{}`", pending.key)))?;
    if leaf.subject().to_string() != token.subject()?.to_string()
        || !same_names(leaf, token.contents().subject_alt_names.iter().map(ToString::to_string))
    {
        return Err(wrong(format!("it is for {}", leaf.describe())));
    }
    let is_root = |certificate: &Certificate| certificate.fingerprint() == token.contents().root;
    let roots: Vec<_> = authorities.iter().filter(|c| is_root(c)).cloned().collect();
    let roots = with_successors(&roots, &authorities);
    let chain = checked_chain(leaf, &authorities, &roots).map_err(wrong)?;
    progress(Step::Certified {
        subject: leaf.name(),
        serial: leaf.serial().to_owned(),
        not_after: rfc3339(leaf.not_after()),
    });
    let identity = Identity {
        name: enrolment.identity.clone(),
        key: pending.key.clone(),
        chain: chain.iter().map(|certificate| certificate.der().clone()).collect(),
        roots: roots.iter().map(|root| root.der().clone()).collect(),
        authority: Some(url),
        software: key.info().origin == Origin::Imported,
        updated: SystemTime::now(),
        retired: None,
        certified_by: None,
    };
    // One that exists was stored by an earlier attempt with this very token: see `prepare`.
    enrolment.store.put(&identity)?;
    Pending::remove(&enrolment.pending, &pending::of_token(token))?;
    progress(Step::Stored { identity: identity.name.clone() });
    Ok(identity)
}

/// The key and the request, new or of an earlier attempt.
fn prepare(token: &Token, enrolment: &Enrolment) -> Result<(Pending, Box<dyn Key>, Vec<Step>)> {
    let existing = match enrolment.store.get(&enrolment.identity) {
        Ok(identity) => Some(identity),
        Err(enclasp_identity::Error::Absent { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(pending) = Pending::read(&enrolment.pending, &pending::of_token(token))? {
        if pending.identity != enrolment.identity || pending.key != enrolment.key.uri {
            return Err(Error::OtherEnrolment { identity: pending.identity, key: pending.key });
        }
        if existing.is_some_and(|existing| existing.key != pending.key) {
            return Err(Error::IdentityExists { identity: pending.identity });
        }
        let key = enrolment.keystore.open(&pending.key)?;
        let steps = vec![Step::Resumed { key: pending.key.clone() }];
        return Ok((pending, key, steps));
    }
    let uri = &enrolment.key.uri;
    let (key, step) = enrolment.new_key()?;
    let subject = token.subject()?;
    let ctx =
        SignContext::new(format!("certificate request for {subject} to {}", token.contents().authority));
    let csr = create_csr(&*key, &subject, &token.contents().subject_alt_names, &ctx)?;
    let made = matches!(step, Step::KeyMade(_));
    let pending =
        Pending { identity: enrolment.identity.clone(), key: uri.clone(), csr, made, replaces: None };
    pending.write(&enrolment.pending, &pending::of_token(token))?;
    Ok((pending, key, vec![step]))
}

/// Forgets an enrolment that cannot succeed any more, and deletes the key that was made for it. What
/// goes wrong is logged: the refusal is what matters.
fn give_up(token: &Token, enrolment: &Enrolment, pending: &Pending) {
    let key = &pending.key;
    let done = || -> Result<()> {
        Pending::remove(&enrolment.pending, &pending::of_token(token))?;
        // An earlier attempt may have succeeded, but for its last step; or the key is put to use.
        let in_use =
            enrolment.store.list()?.iter().any(|one| one.as_ref().map_or(true, |one| one.key == *key));
        if pending.made && !in_use {
            enrolment.keystore.delete(key)?;
        }
        Ok(())
    };
    if let Err(error) = done() {
        tracing::warn!(%key, %error, "something of the refused enrolment is left behind");
    }
}

/// The chain of `leaf` as peers get it, without the root, if it is good for a client or a server.
pub(crate) fn checked_chain(
    leaf: &Certificate,
    authorities: &[Certificate],
    roots: &[Certificate],
) -> std::result::Result<Vec<Certificate>, String> {
    let now = SystemTime::now();
    let purpose = if leaf.is_for(Purpose::Client) { Purpose::Client } else { Purpose::Server };
    verify_chain(leaf, authorities, roots, now, purpose).map_err(|e| e.to_string())?;
    let mut chain = order_chain(leaf, authorities);
    chain.retain(|certificate| !certificate.is_self_issued());
    Ok(chain)
}

/// Whether the alternative names of `certificate` are these, in whatever order.
pub(crate) fn same_names(certificate: &Certificate, names: impl Iterator<Item = String>) -> bool {
    let mut names: Vec<_> = names.collect();
    let mut held: Vec<_> = certificate.subject_alt_names().iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    held.sort();
    held.dedup();
    names == held
}

/// Runs something that may block where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
    }
}
