//! When to renew, and when to try again, so that many devices do not come at the same moment.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use enclasp_pki::Certificate;

/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// When a certificate is to be renewed: at two thirds of its life, or up to a tenth of it later. How much
/// later depends on the certificate alone, so that it stays the same across restarts.
pub fn due(certificate: &Certificate) -> SystemTime {
    let start = certificate.not_before();
    let life = certificate.not_after().duration_since(start).unwrap_or_default();
    let [first, second, ..] = certificate.fingerprint();
    start + life * 2 / 3 + (life / 10).mul_f64(share(u16::from_be_bytes([first, second])))
}

/// The pauses between attempts that fail: twice as long each time, at random between a half and the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure. `asked` is how long the authority asks to wait, which is obeyed and
    /// added to; `left` is how long the certificate is still good: there are some attempts more in that time.
    pub fn next(&mut self, asked: Option<Duration>, left: Duration) -> Duration {
        let longest = if left.is_zero() { LONGEST_PAUSE } else { LONGEST_PAUSE.min(left / 4) };
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        // Without randomness, half of the pause is as good.
        let mut random = [0; 2];
        let _ = rand::fill(&mut random);
        let pause = doubled.mul_f64(0.5 + share(u16::from_be_bytes(random)) / 2.0);
        asked.unwrap_or_default() + pause.max(Duration::from_secs(1))
    }
}

/// A number as a part of one.
fn share(number: u16) -> f64 {
    f64::from(number) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn pauses_double_and_end_at_an_hour() {
        let mut backoff = Backoff::default();
        for expected in [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
            let pause = backoff.next(None, 30 * DAY);
            let expected = Duration::from_secs(expected);
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} of {expected:?}");
        }
    }

    #[test]
    fn the_authority_is_obeyed_and_the_end_is_minded() {
        let asked = Duration::from_secs(60);
        assert!(Backoff::default().next(Some(asked), DAY) >= asked + Duration::from_secs(1));
        let mut late = Backoff { failures: 30 };
        assert!(late.next(None, Duration::from_secs(40)) <= Duration::from_secs(10));
        // After the end there is no hurry.
        assert!(late.next(None, Duration::ZERO) >= LONGEST_PAUSE / 2);
    }
}
