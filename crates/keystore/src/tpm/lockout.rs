//! The TPM's protection against dictionary attacks (TPM 2.0 part 1, "Dictionary Attack Protection").

use std::time::Duration;

/// Its counters. They are the TPM's: wrong PINs of all keys count together, and so does each time
/// that it lost its power without a shutdown after a PIN was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lockout {
    /// What counts now.
    pub(super) failed: u32,
    /// At so many the TPM is in lockout.
    pub(super) allowed: u32,
    /// After this time without a wrong PIN, one less counts; zero if none is ever forgotten.
    pub(super) interval: Duration,
}

impl Lockout {
    pub(super) fn tries_left(&self) -> u32 {
        self.allowed.saturating_sub(self.failed)
    }

    /// How many tries are left, for a person.
    pub(super) fn tries_left_text(&self) -> String {
        match self.tries_left() {
            0 => self.text(),
            1 => "1 try remains".into(),
            left => format!("{left} tries remain"),
        }
    }

    /// Its counters, for a person.
    pub(super) fn counters_text(&self) -> String {
        let forgotten = if self.interval.is_zero() {
            "none is ever forgotten".into()
        } else {
            format!("one is forgotten every {} s", self.interval.as_secs())
        };
        format!(
            "{} of {} wrong PINs or power cuts before the TPM locks; {forgotten}",
            self.failed, self.allowed
        )
    }

    /// Why no try is left, and when one will be.
    pub(super) fn text(&self) -> String {
        let recovery = if self.interval.is_zero() {
            "only its administrator can end it".into()
        } else {
            format!("it allows one more try every {} s", self.interval.as_secs())
        };
        format!("the TPM is in lockout after {} wrong PINs or power cuts; {recovery}", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_left() {
        let lockout =
            |failed, seconds| Lockout { failed, allowed: 3, interval: Duration::from_secs(seconds) };
        assert_eq!(
            lockout(3, 0).text(),
            "the TPM is in lockout after 3 wrong PINs or power cuts; only its administrator can end it"
        );
        assert!(lockout(9, 600).tries_left_text().ends_with("it allows one more try every 600 s"));
        assert_eq!(
            lockout(1, 600).counters_text(),
            "1 of 3 wrong PINs or power cuts before the TPM locks; one is forgotten every 600 s"
        );
        assert_eq!(lockout(2, 600).tries_left_text(), "1 try remains");
        assert_eq!(lockout(0, 600).tries_left_text(), "3 tries remain");
    }
}
