//! The sessions that a server can resume.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

/// Sessions by their names, of which the oldest are forgotten. rustls' own cache goes through the names of
/// all to forget one that was resumed, as every one is in TLS 1.3; this one is of two generations.
#[derive(Debug)]
pub(crate) struct Sessions {
    kept: Mutex<Generations>,
    /// How many a generation has at most.
    most: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
    old: HashMap<Vec<u8>, Zeroizing<Vec<u8>>>,
}

impl Sessions {
    /// With room for so many: half of them at least are kept.
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most: most.div_ceil(2) }
    }

    fn kept(&self) -> MutexGuard<'_, Generations> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let mut kept = self.kept();
        if kept.young.len() >= self.most {
            kept.old = mem::take(&mut kept.young);
        }
        kept.young.insert(key, Zeroizing::new(value));
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept();
        kept.young.get(key).or_else(|| kept.old.get(key)).map(|value| value.to_vec())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.kept();
        let (young, old) = (kept.young.remove(key), kept.old.remove(key));
        young.or(old).map(|mut value| mem::take(&mut *value))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_one_that_is_taken_is_gone() {
        let sessions = Sessions::new(8);
        for name in 0..100_u8 {
            assert!(sessions.put(vec![name], vec![name, 1]));
        }
        let kept: Vec<_> = (0..100).filter(|name| sessions.get(&[*name]).is_some()).collect();
        assert!((4..=8).contains(&kept.len()) && kept.ends_with(&[96, 97, 98, 99]), "{kept:?}");
        assert_eq!(sessions.take(&[97]), Some(vec![97, 1]));
        assert_eq!((sessions.take(&[97]), sessions.get(&[97])), (None, None));
        // Of two with one name the newer counts, and both go.
        sessions.put(vec![99], vec![99, 2]);
        assert_eq!(sessions.take(&[99]), Some(vec![99, 2]));
        assert_eq!(sessions.get(&[99]), None);
    }
}
