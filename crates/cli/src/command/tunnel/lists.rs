//! Lists of revoked certificates, kept up to date on their own beside the tunnel that looks certificates up
//! in them: none is waited for by a handshake, or by a renewed certificate that is to be taken up.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use enclasp_pki::{PublishedCrl, rfc3339};
use enclasp_tls::Revocation;
use enclasp_tunnel::{Fetched, Health, HttpUrl, ListFacts, ListReport, RevocationReport};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::plan::FileStamp;
use super::reload::LOOK;
use super::revocation::{ListSource, RevocationFlags};
use crate::failure::{Failure, Outcome};
use crate::{command, input};

/// How long a list may take to come, and how long the start waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
const FIRST_TIMEOUT: Duration = Duration::from_secs(3);

/// No list is larger.
const MAX_LIST: usize = 64 << 20;

/// How often a list is fetched again: as often as its server says, between these bounds; hourly if it does
/// not say.
const REFRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// The longest pause after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// The lists of one tunnel.
pub(super) struct Lists {
    entries: Vec<Entry>,
    strict: bool,
    /// How often to fetch, if the user said so.
    refresh: Option<Duration>,
    changed: watch::Sender<()>,
}

struct Entry {
    source: ListSource,
    known: Mutex<Known>,
}

/// What is known of a source.
#[derive(Clone, Default)]
struct Known {
    lists: Vec<(CertificateRevocationListDer<'static>, PublishedCrl)>,
    /// Of a file.
    stamp: Option<FileStamp>,
    /// Of a URL.
    tag: Option<String>,
    fresh_for: Option<Duration>,
    /// When it was read or found unchanged.
    fetched: Option<SystemTime>,
    error: Option<String>,
}

impl Lists {
    /// Reads what files there are, and fetches the others, but does not wait for them for long: they may
    /// come later. What a source of `before` held is kept until then.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) async fn open(flags: &RevocationFlags, before: &[Arc<Self>]) -> Outcome<Arc<Self>> {
        let entry = |source: &ListSource| {
            let same = before.iter().flat_map(|lists| &lists.entries).find(|entry| entry.source == *source);
            let known = same.map_or_else(Known::default, |entry| entry.known().clone());
            Entry { source: source.clone(), known: Mutex::new(known) }
        };
        let lists = Arc::new(Self {
            entries: flags.sources().iter().map(entry).collect(),
            strict: flags.is_strict(),
            refresh: flags.refresh(),
            changed: watch::Sender::new(()),
        });
        let mut looks = JoinSet::new();
        for index in 0..lists.entries.len() {
            let lists = lists.clone();
            looks.spawn(async move { (index, lists.look(index, FIRST_TIMEOUT).await) });
        }
        for (index, looked) in looks.join_all().await {
            match (looked, &lists.entries[index].source) {
                (Ok(_), _) => {}
                (Err(failure), ListSource::File(_)) => return Err(failure),
                (Err(failure), ListSource::Url(_)) => lists.complain(index, &failure),
            }
        }
        Ok(lists)
    }

    /// Changes with what they say.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is to be looked up in now.
    pub(super) fn revocation(&self) -> Revocation {
        let of_entry =
            |entry: &Entry| entry.known().lists.iter().map(|(der, _)| der.clone()).collect::<Vec<_>>();
        Revocation { lists: self.entries.iter().flat_map(of_entry).collect(), strict: self.strict }
    }

    /// Looks for newer ones for ever, each list on a timer of its own and all when it is `asked`. `health`
    /// is told how they are.
    pub(super) async fn follow(self: Arc<Self>, health: Health, asked: watch::Receiver<()>) {
        if self.entries.is_empty() {
            return std::future::pending().await;
        }
        health.looks_up_in(self.report());
        let mut tasks = JoinSet::new();
        for index in 0..self.entries.len() {
            tasks.spawn(self.clone().follow_one(index, health.clone(), asked.clone()));
        }
        tasks.join_all().await;
    }

    async fn follow_one(self: Arc<Self>, index: usize, health: Health, mut asked: watch::Receiver<()>) {
        loop {
            tokio::select! {
                () = sleep(self.pause(index)) => {}
                // When the sender is gone, the process is about to end.
                asked = asked.changed() => if asked.is_err() { return },
            }
            match self.look(index, FETCH_TIMEOUT).await {
                Ok(false) => {}
                Ok(true) => {
                    let Entry { source, .. } = &self.entries[index];
                    tracing::info!(%source, "a list of revoked certificates has changed");
                    self.changed.send_replace(());
                }
                Err(failure) => self.complain(index, &failure),
            }
            health.looks_up_in(self.report());
        }
    }

    /// How long a source is left alone.
    fn pause(&self, index: usize) -> Duration {
        let Entry { source, .. } = &self.entries[index];
        let known = self.entries[index].known();
        let (shortest, longest) = REFRESH;
        match source {
            ListSource::File(_) => LOOK,
            ListSource::Url(_) => {
                let said = known.fresh_for.map_or(longest, |time| time.clamp(shortest, longest));
                let regular = self.refresh.unwrap_or(said);
                if known.error.is_some() { regular.min(RETRY) } else { regular }
            }
        }
    }

    /// Whether there is something new.
    async fn look(&self, index: usize, within: Duration) -> Outcome<bool> {
        let Entry { source, .. } = &self.entries[index];
        let (stamp, tag) = {
            let known = self.entries[index].known();
            (known.stamp.clone(), known.tag.clone())
        };
        let found = match source.clone() {
            ListSource::File(path) => command::blocking(move || read(&path, stamp.as_ref())).await,
            ListSource::Url(url) => fetch(&url, within, tag.as_deref()).await,
        };
        let found = found.map_err(|failure| failure.within(source))?;
        let mut known = self.entries[index].known();
        match found {
            None => {
                known.fetched = Some(SystemTime::now());
                known.error = None;
                Ok(false)
            }
            // What comes in the clear may be what somebody has kept.
            Some(new) if matches!(source, ListSource::Url(_)) && is_older(&new, &known) => {
                Err(Failure::new("it is older than the one in use").within(source))
            }
            Some(new) => {
                let changed = new.lists != known.lists;
                *known = new;
                Ok(changed)
            }
        }
    }

    /// Says once why a list cannot be had, and what that means.
    fn complain(&self, index: usize, failure: &Failure) {
        let cause = failure.message().to_owned();
        let mut known = self.entries[index].known();
        if known.error.as_ref() == Some(&cause) {
            return;
        }
        let meanwhile = match (known.lists.is_empty(), self.strict) {
            (false, _) => "the last one stays in use",
            (true, false) => "meanwhile nobody of its issuer is taken for revoked",
            (true, true) => "meanwhile everybody of its issuer is refused",
        };
        tracing::warn!(%cause, "cannot have a list of revoked certificates; {meanwhile}");
        known.error = Some(cause);
    }

    fn report(&self) -> RevocationReport {
        let fail_mode = if self.strict { "strict" } else { "open" };
        RevocationReport { fail_mode, lists: self.entries.iter().flat_map(Entry::report).collect() }
    }
}

impl Entry {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Vec<ListReport> {
        let known = self.known();
        let report = |list| ListReport {
            source: self.source.to_string(),
            last_fetch: known.fetched.map(rfc3339),
            error: known.error.clone(),
            list,
        };
        let facts = |crl: &PublishedCrl| ListFacts {
            issuer: crl.issuer.to_string(),
            number: crl.number.clone(),
            this_update: rfc3339(crl.this_update),
            next_update: crl.next_update.map(rfc3339),
            revoked: crl.revoked,
        };
        match known.lists.as_slice() {
            [] => vec![report(None)],
            lists => lists.iter().map(|(_, crl)| report(Some(facts(crl)))).collect(),
        }
    }
}

/// None if the file is as it was.
fn read(path: &Path, before: Option<&FileStamp>) -> Outcome<Option<Known>> {
    let stamp = FileStamp::of(path);
    if stamp.is_some() && stamp.as_ref() == before {
        return Ok(None);
    }
    let lists = parse(&input::file(path)?)?;
    Ok(Some(Known { lists, stamp, fetched: Some(SystemTime::now()), ..Known::default() }))
}

/// None if it is what it was.
async fn fetch(url: &HttpUrl, within: Duration, tag: Option<&str>) -> Outcome<Option<Known>> {
    let Some(Fetched { body, fresh_for, tag }) = url.get(within, MAX_LIST, tag).await? else {
        return Ok(None);
    };
    // Reading a large one takes a while.
    let lists = command::blocking(move || parse(&body)).await?;
    Ok(Some(Known { lists, tag, fresh_for, fetched: Some(SystemTime::now()), ..Known::default() }))
}

fn parse(bytes: &[u8]) -> Outcome<Vec<(CertificateRevocationListDer<'static>, PublishedCrl)>> {
    // DER begins with SEQUENCE.
    let lists = match bytes.first() {
        Some(0x30) => vec![bytes.to_vec().into()],
        _ => CertificateRevocationListDer::pem_slice_iter(bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failure::new(format!("it cannot be read as PEM: {error}")))?,
    };
    if lists.is_empty() {
        return Err(Failure::new("there is no list of revoked certificates (X509 CRL) in it"));
    }
    lists
        .into_iter()
        .map(|der| PublishedCrl::from_der(&der).map(|crl| (der, crl)).map_err(Failure::from))
        .collect()
}

fn is_older(new: &Known, known: &Known) -> bool {
    new.lists.iter().any(|(_, new)| {
        known.lists.iter().any(|(_, old)| new.issuer == old.issuer && new.this_update < old.this_update)
    })
}
