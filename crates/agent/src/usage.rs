//! Counting what becomes of the signatures with each key.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use enclasp_keystore::agent::KeyUsage;
use enclasp_keystore::{Error, Result, Signature};

/// How many keys are counted for; the first come first.
const MAX_KEYS: usize = 256;

/// The usage of all keys. A key is known here from its first signature, which nobody gets to who
/// may not use it, so that requests with made-up names fill nothing.
#[derive(Default)]
pub(crate) struct Usages(Mutex<HashMap<String, KeyUsage>>);

impl Usages {
    /// Counts a signature that arrived, was begun, and is done now.
    pub(crate) fn record(&self, key: &str, arrived: Instant, begun: Instant, done: &Result<Signature>) {
        let signing = begun.elapsed();
        let mut usages = self.usages();
        let count = usages.len();
        let usage = match usages.get_mut(key) {
            Some(usage) => usage,
            None if count >= MAX_KEYS => return,
            None => usages
                .entry(key.to_owned())
                .or_insert_with(|| KeyUsage { key: key.to_owned(), ..KeyUsage::default() }),
        };
        usage.queueing.record(begun.saturating_duration_since(arrived));
        usage.signing.record(signing);
        let outcome = match done {
            Ok(_) => &mut usage.signed,
            Err(Error::Denied { .. } | Error::Locked { .. } | Error::WrongPin { .. }) => &mut usage.denied,
            Err(Error::Deadline { .. } | Error::Cancelled { .. }) => &mut usage.late,
            Err(Error::Busy { .. }) => &mut usage.busy,
            Err(_) => &mut usage.failed,
        };
        *outcome += 1;
    }

    /// Counts a request that never had its turn.
    pub(crate) fn turned_away(&self, key: &str, because: &Error) {
        let mut usages = self.usages();
        let Some(usage) = usages.get_mut(key) else { return };
        let outcome = if matches!(because, Error::Busy { .. }) { &mut usage.busy } else { &mut usage.late };
        *outcome += 1;
    }

    /// All of them, sorted by URI.
    pub(crate) fn all(&self) -> Vec<KeyUsage> {
        let mut all: Vec<_> = self.usages().values().cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    fn usages(&self) -> MutexGuard<'_, HashMap<String, KeyUsage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_for_keys_that_were_used() {
        let usages = Usages::default();
        let busy = || Error::Busy { key: "k".into(), operation: "sign with".into(), reason: "x".into() };
        let late = || Error::Deadline { key: "k".into(), operation: "sign with".into() };
        usages.turned_away("k", &busy());
        assert!(usages.all().is_empty());
        let now = Instant::now();
        usages.record("k", now, now, &Ok(Signature::new([1])));
        usages.record("k", now, now, &Err(late()));
        usages.record("k", now, now, &Err(Error::Absent { key: "k".into() }));
        usages.turned_away("k", &busy());
        usages.turned_away("k", &late());
        let all = usages.all();
        let [usage] = &all[..] else { panic!("{all:?}") };
        let counts = (usage.signed, usage.denied, usage.late, usage.busy, usage.failed);
        assert_eq!(counts, (1, 0, 2, 1, 1));
        for name in 0..2 * MAX_KEYS {
            usages.record(&name.to_string(), now, now, &Ok(Signature::new([1])));
        }
        assert_eq!(usages.all().len(), MAX_KEYS);
    }
}
