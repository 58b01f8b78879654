//! Chains that have verified, so that a peer that comes back costs no second verification.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use enclasp_pki::{Certificate, Error, PublishedCrl, sha256};
use rustls_pki_types::CertificateDer;

use crate::Revocation;
use crate::evidence::CertificateSummary;

/// A chain that a peer presented, as it was read once.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) leaf: Certificate,
    /// Of those that can be read.
    pub(crate) summaries: Arc<[CertificateSummary]>,
    /// When every certificate of it is valid; unknown if one of them cannot be read by us, which the
    /// verification may have used nevertheless.
    valid: Option<RangeInclusive<SystemTime>>,
}

impl Chain {
    /// Of a leaf and what was presented with it.
    ///
    /// # Errors
    /// That the leaf cannot be read.
    pub(crate) fn read(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<Self, Error> {
        let leaf = Certificate::from_der(leaf.as_ref())?;
        let others = others.iter().map(|der| Certificate::from_der(der.as_ref()));
        let read: Vec<_> = std::iter::once(Ok(leaf.clone())).chain(others).collect();
        let count = read.len();
        let chain: Vec<Certificate> = read.into_iter().flatten().collect();
        let begin = chain.iter().map(Certificate::not_before).max();
        let end = chain.iter().map(Certificate::not_after).min();
        let valid = begin.zip(end).filter(|_| chain.len() == count).map(|(begin, end)| begin..=end);
        let summaries = chain.iter().map(CertificateSummary::of).collect();
        Ok(Self { leaf, summaries, valid })
    }
}

/// How long a verification counts, within the validity of the chain.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How many chains a generation has. There are two: the older one is forgotten when the younger one
/// is full, and who is asked for again is young again.
const GENERATION: usize = 512;

/// The chains that one verifier has found good. Another verifier, with other roots or revocation
/// lists, has its own.
#[derive(Debug)]
pub(crate) struct KnownChains {
    generations: Mutex<Generations>,
    /// When a list of revoked certificates ends that counts only until then; unknown if one of them
    /// cannot be read by us, and then nothing is remembered.
    lists_end: Option<Vec<SystemTime>>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Fingerprint, Remembered>,
    old: HashMap<Fingerprint, Remembered>,
}

#[derive(Clone, Debug)]
struct Remembered {
    chain: Arc<Chain>,
    until: SystemTime,
}

/// SHA-256 of everything that a verification depends on but the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a chain, and of the name that it was to be good for.
    pub(crate) fn of(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], name: &str) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        let parts = std::iter::once(leaf).chain(others).map(AsRef::as_ref);
        for part in std::iter::once(name.as_bytes()).chain(parts) {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Self(sha256(&bytes))
    }
}

impl KnownChains {
    /// None yet, of a verifier that looks certificates up in these lists.
    pub(crate) fn new(revocation: &Revocation) -> Self {
        let lists_end = match revocation.strict {
            true => {
                revocation.lists.iter().map(|list| PublishedCrl::from_der(list).ok()?.next_update).collect()
            }
            false => Some(Vec::new()),
        };
        Self { generations: Mutex::default(), lists_end }
    }

    /// A chain whose verification still counts at `now`.
    pub(crate) fn verified(&self, fingerprint: Fingerprint, now: SystemTime) -> Option<Arc<Chain>> {
        let remembered = self.find(fingerprint)?;
        let counts = remembered.chain.valid.as_ref().is_some_and(|valid| valid.contains(&now));
        (counts && now < remembered.until).then_some(remembered.chain)
    }

    /// A chain that verified when the session began which is resumed now; none if it has no leaf.
    ///
    /// # Errors
    /// That it cannot be read any more.
    pub(crate) fn of_session(
        &self,
        chain: &[CertificateDer<'_>],
        name: &str,
    ) -> Result<Option<Arc<Chain>>, Error> {
        let Some((leaf, others)) = chain.split_first() else { return Ok(None) };
        if let Some(remembered) = self.find(Fingerprint::of(leaf, others, name)) {
            return Ok(Some(remembered.chain));
        }
        Chain::read(leaf, others).map(|chain| Some(Arc::new(chain)))
    }

    /// Remembers a chain that has verified at `now`.
    pub(crate) fn remember(&self, fingerprint: Fingerprint, chain: &Arc<Chain>, now: SystemTime) {
        let Some(lists_end) = &self.lists_end else { return };
        let next_end = lists_end.iter().filter(|end| **end > now).min();
        let until = (now + REMEMBERED).min(*next_end.unwrap_or(&(now + REMEMBERED)));
        self.lock().insert(fingerprint, Remembered { chain: chain.clone(), until });
    }

    fn find(&self, fingerprint: Fingerprint) -> Option<Remembered> {
        let mut generations = self.lock();
        if let Some(found) = generations.young.get(&fingerprint) {
            return Some(found.clone());
        }
        let found = generations.old.remove(&fingerprint)?;
        generations.insert(fingerprint, found.clone());
        Some(found)
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, fingerprint: Fingerprint, remembered: Remembered) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, remembered);
    }
}

#[cfg(test)]
mod tests {
    use enclasp_keystore::{Algorithm, SignContext};
    use enclasp_pki::create_root;

    use super::*;
    use crate::testing::{Authority, soft_key};

    fn chain() -> (Fingerprint, Arc<Chain>) {
        let leaf = Authority::new("Acme").client("CN=laptop-17", &[]).der().clone();
        (Fingerprint::of(&leaf, &[], ""), Arc::new(Chain::read(&leaf, &[]).unwrap()))
    }

    #[test]
    fn a_verification_counts_for_a_while_and_never_beyond_the_validity() {
        let (fingerprint, chain) = chain();
        let known = KnownChains::new(&Revocation::default());
        let (begin, end) = (chain.leaf.not_before(), chain.leaf.not_after());
        assert!(known.verified(fingerprint, begin).is_none(), "it has not verified yet");
        let second = Duration::from_secs(1);
        known.remember(fingerprint, &chain, begin);
        assert!(known.verified(fingerprint, begin - second).is_none());
        assert!(known.verified(fingerprint, begin + REMEMBERED - second).is_some());
        assert!(known.verified(fingerprint, begin + REMEMBERED).is_none());
        known.remember(fingerprint, &chain, end - second);
        assert!(known.verified(fingerprint, end).is_some());
        assert!(known.verified(fingerprint, end + second).is_none());
    }

    #[test]
    fn the_certificate_that_ends_first_counts_and_none_may_be_unreadable() {
        let (second, now) = (Duration::from_secs(1), SystemTime::now());
        let leaf = Authority::new("Acme").client("CN=laptop-17", &[]).der().clone();
        let key = soft_key("short", Algorithm::P256);
        let name = "CN=Short".parse().unwrap();
        let short = create_root(&key, &name, 5 * second, now, &SignContext::default()).unwrap();
        for (others, [at_the_end, after]) in [
            (vec![short.der().clone()], [true, false]),
            (vec![CertificateDer::from(vec![0x30, 0])], [false, false]),
            (vec![], [true, true]),
        ] {
            let (known, fingerprint) =
                (KnownChains::new(&Revocation::default()), Fingerprint::of(&leaf, &others, ""));
            known.remember(fingerprint, &Arc::new(Chain::read(&leaf, &others).unwrap()), now);
            for (time, expected) in [(short.not_after(), at_the_end), (short.not_after() + second, after)] {
                assert_eq!(known.verified(fingerprint, time).is_some(), expected, "{others:?}");
            }
        }
    }

    #[test]
    fn a_list_that_counts_until_its_end_ends_what_is_remembered_and_an_unreadable_one_prevents_it() {
        let authority = Authority::new("Acme");
        let (fingerprint, chain) = chain();
        let (second, now) = (Duration::from_secs(1), SystemTime::now());
        let at = |seconds: u32| now + seconds * second;
        let list = |end| authority.empty_list(end).into();
        let known = |lists, strict| {
            let known = KnownChains::new(&Revocation { lists, strict });
            known.remember(fingerprint, &chain, now);
            move |time| known.verified(fingerprint, time).is_some()
        };
        // One that had ended already took no part in the verification, or let it fail.
        let strict = known(vec![list(at(90)), list(at(30)), list(now - second)], true);
        assert_eq!([now, at(28), at(31)].map(strict), [true, true, false]);
        let lenient = known(vec![list(at(30))], false);
        assert_eq!([now, at(31)].map(lenient), [true, true]);
        let unreadable = known(vec![list(at(30)), vec![0x30, 0].into()], true);
        assert!(!unreadable(now));
    }

    #[test]
    fn a_chain_is_known_by_all_that_was_presented_and_the_name() {
        let authority = Authority::new("Acme");
        let [one, other] = ["CN=a", "CN=b"].map(|subject| authority.client(subject, &[]).der().clone());
        let all = [
            Fingerprint::of(&one, &[], ""),
            Fingerprint::of(&other, &[], ""),
            Fingerprint::of(&one, &[], "localhost"),
            Fingerprint::of(&one, std::slice::from_ref(&other), ""),
            Fingerprint::of(&other, std::slice::from_ref(&one), ""),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
    }

    #[test]
    fn who_is_asked_for_stays_and_the_number_is_bounded() {
        let (wanted, chain) = chain();
        let known = KnownChains::new(&Revocation::default());
        let now = chain.leaf.not_before();
        known.remember(wanted, &chain, now);
        for number in 0..10 * GENERATION as u64 {
            let passing = Fingerprint(sha256(&number.to_be_bytes()));
            known.remember(passing, &chain, now);
            assert!(known.verified(wanted, now).is_some());
        }
        let generations = known.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
        drop(generations);
        assert!(known.verified(Fingerprint(sha256(&0u64.to_be_bytes())), now).is_none(), "it was forgotten");
    }
}
