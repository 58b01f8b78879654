//! What became of the signatures with a key, as an agent counts them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a key has been used since its agent started. Requests whose caller went away before their
/// turn are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    /// Its URI, as requests have it.
    pub key: String,
    /// Signatures that were made.
    pub signed: u64,
    /// Signatures that a person, a PIN or a rule refused.
    pub denied: u64,
    /// Requests whose deadline passed, or whose caller went away, in the queue or while signing.
    pub late: u64,
    /// Requests that were refused at once because too many waited.
    pub busy: u64,
    /// Signatures that failed for another reason.
    pub failed: u64,
    /// How long signatures waited for their turn.
    pub queueing: Histogram,
    /// How long they took then, verification included.
    pub signing: Histogram,
}

/// Durations by their binary magnitude: element `i` counts those below 2^`i` µs that are not below
/// half of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let magnitude = (u64::BITS - micros.leading_zeros()) as usize;
        if self.0.len() <= magnitude {
            self.0.resize(magnitude + 1, 0);
        }
        if let Some(count) = self.0.get_mut(magnitude) {
            *count += 1;
        }
    }

    /// What `percent` of the durations are below. `None` if there are none.
    pub fn below(&self, percent: u8) -> Option<Duration> {
        let total: u64 = self.0.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let wanted = (u128::from(total) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let magnitude = self.0.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        })?;
        let micros = u32::try_from(magnitude).ok().and_then(|magnitude| 1_u64.checked_shl(magnitude));
        Some(Duration::from_micros(micros.unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} signed", self.signed)?;
        let others =
            [("denied", self.denied), ("late", self.late), ("busy", self.busy), ("failed", self.failed)];
        for (outcome, count) in others.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {count} {outcome}")?;
        }
        for (what, durations) in [("waited", &self.queueing), ("signing took", &self.signing)] {
            if let (Some(half), Some(most)) = (durations.below(50), durations.below(99)) {
                write!(f, "; {what} less than {half:?} (half of them), {most:?} (99 of 100)")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_below_their_magnitude() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.below(50), None);
        for micros in [0, 1, 2, 3, 4, 900] {
            histogram.record(Duration::from_micros(micros));
        }
        histogram.record(Duration::MAX);
        assert_eq!(histogram.0[..4], [1, 1, 2, 1]);
        assert_eq!((histogram.0[10], histogram.0[64]), (1, 1));
        assert_eq!(histogram.below(1), Some(Duration::from_micros(1)));
        assert_eq!(histogram.below(50), Some(Duration::from_micros(4)));
        assert_eq!(histogram.below(80), Some(Duration::from_micros(1024)));
        assert_eq!(histogram.below(100), Some(Duration::from_micros(u64::MAX)));
    }

    #[test]
    fn a_usage_names_what_there_was() {
        let mut usage = KeyUsage { signed: 2, busy: 1, ..KeyUsage::default() };
        assert_eq!(usage.to_string(), "2 signed, 1 busy");
        for micros in [100, 3000] {
            usage.signing.record(Duration::from_micros(micros));
        }
        let text = "2 signed, 1 busy; signing took less than 128µs (half of them), 4.096ms (99 of 100)";
        assert_eq!(usage.to_string(), text);
    }
}
