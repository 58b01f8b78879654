//! Durations in buckets that grow with what they hold.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets share each power of two, which bounds the error of a quantile: 1/16.
const PARTS: u64 = 16;

/// For 2^36 µs (19 hours) and less; what is longer is in the last bucket.
const BUCKETS: usize = (36 - 4 + 1) * PARTS as usize;

/// A histogram of durations, to a microsecond.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(super) fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(index(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(micros, Relaxed);
        self.min.fetch_min(micros, Relaxed);
        self.max.fetch_max(micros, Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// In seconds, as all that follow.
    pub(super) fn sum(&self) -> f64 {
        seconds(self.sum.load(Relaxed))
    }

    /// 0 if there is nothing.
    pub(super) fn min(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { seconds(self.min.load(Relaxed)) }
    }

    pub(super) fn max(&self) -> f64 {
        seconds(self.max.load(Relaxed))
    }

    pub(super) fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum() / self.count() as f64 }
    }

    /// What that part of all durations is at most; 0 if there is nothing.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        let rank = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= rank && seen > 0 {
                return seconds(upper(index)).min(self.max());
            }
        }
        self.max()
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Which bucket holds `micros`: one for each of the first 16, then 16 for each power of two.
fn index(micros: u64) -> usize {
    if micros < PARTS {
        return micros as usize;
    }
    let exponent = u64::from(micros.ilog2()) - 4;
    let index = (exponent + 1) * PARTS + ((micros >> exponent) - PARTS);
    (index as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < PARTS {
        return index;
    }
    let exponent = index / PARTS - 1;
    ((index % PARTS + PARTS + 1) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bounds_it_is_within() {
        for micros in (0..100_000).chain([1 << 20, (1 << 35) - 1]) {
            let bucket = index(micros);
            assert!(micros <= upper(bucket), "{micros}");
            assert!(bucket == 0 || micros > upper(bucket - 1), "{micros}");
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_sixteenth() {
        let histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.min(), histogram.mean()), (0.0, 0.0, 0.0));
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        for (part, exact) in [(0.5, 0.5), (0.95, 0.95), (0.99, 0.99), (1.0, 1.0)] {
            let found = histogram.quantile(part);
            assert!(found >= exact && found <= exact * 17.0 / 16.0, "{part}: {found}");
        }
        assert_eq!((histogram.count(), histogram.min(), histogram.max()), (1000, 0.001, 1.0));
        assert!((histogram.mean() - 0.5005).abs() < 1e-9);
    }
}
