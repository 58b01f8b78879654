//! When a connection has to end. The reckoning is apart from the timer, so that a test can have a day pass.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::Limits;

/// The time of one connection, and the timer for it; most have neither.
pub(crate) struct Deadline {
    reckoning: Reckoning,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Deadline {
    /// Of a connection that begins now.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { reckoning: Reckoning::new(limits, Instant::now()), timer: None }
    }

    /// Ready with the reason when the time is over. To be asked whenever something has moved: `carried` is how
    /// many bytes have, `is_half_closed` whether one way has ended and not the other.
    pub(crate) fn poll(
        &mut self,
        is_half_closed: bool,
        carried: u64,
        cx: &mut Context<'_>,
    ) -> Poll<&'static str> {
        loop {
            let next = match self.reckoning.look(Instant::now(), is_half_closed, carried) {
                Ok(None) => return Poll::Pending,
                Ok(Some(next)) => next,
                Err(reason) => return Poll::Ready(reason),
            };
            let (_, timer) = match &mut self.timer {
                // One that is early asks again, so that not every byte sets it anew.
                Some(timer) if timer.0 <= next => timer,
                other => other.insert((next, Box::pin(sleep_until(next.into())))),
            };
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
    }
}

/// What ends a connection, and when.
struct Reckoning {
    close_timeout: Option<Duration>,
    /// The end of its longest lifetime.
    end: Option<Instant>,
    /// Since when nothing moves on a connection that one end has closed, and how much had moved then.
    still: Option<(Instant, u64)>,
}

impl Reckoning {
    fn new(limits: &Limits, begun: Instant) -> Self {
        let end = limits.max_lifetime.and_then(|lifetime| begun.checked_add(lifetime));
        Self { close_timeout: limits.close_timeout, end, still: None }
    }

    /// When to look again at the latest, if ever; or why it is over.
    fn look(
        &mut self,
        now: Instant,
        is_half_closed: bool,
        carried: u64,
    ) -> Result<Option<Instant>, &'static str> {
        if self.end.is_some_and(|end| end <= now) {
            return Err("its longest lifetime is over");
        }
        let (Some(close_timeout), true) = (self.close_timeout, is_half_closed) else {
            return Ok(self.end);
        };
        let since = match self.still {
            Some((since, before)) if before == carried => since,
            _ => self.still.insert((now, carried)).0,
        };
        let Some(closed) = since.checked_add(close_timeout) else { return Ok(self.end) };
        if closed <= now {
            return Err("one end closed, and the other did not in time");
        }
        Ok(self.end.into_iter().chain([closed]).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn limits(close_timeout: Option<Duration>, max_lifetime: Option<Duration>) -> Limits {
        Limits { close_timeout, max_lifetime, ..Limits::default() }
    }

    #[test]
    fn an_idle_connection_may_be_so_for_a_day_and_needs_no_timer() {
        let begun = Instant::now();
        let mut reckoning = Reckoning::new(&limits(Some(MINUTE), None), begun);
        for hour in 0..=24 {
            assert_eq!(reckoning.look(begun + hour * HOUR, false, 7), Ok(None));
        }
    }

    #[test]
    fn a_half_closed_one_ends_when_nothing_has_moved_for_so_long_and_no_sooner() {
        let begun = Instant::now();
        let mut reckoning = Reckoning::new(&limits(Some(MINUTE), None), begun);
        let mut now = begun;
        // A byte every 59 seconds, for a day.
        for carried in 0..24 * 3600 / 59 {
            now += 59 * SECOND;
            assert_eq!(reckoning.look(now, true, carried), Ok(Some(now + MINUTE)), "{carried}");
        }
        let carried = 24 * 3600 / 59 - 1;
        assert_eq!(reckoning.look(now + MINUTE - SECOND, true, carried), Ok(Some(now + MINUTE)));
        assert!(reckoning.look(now + MINUTE, true, carried).is_err());
    }

    #[test]
    fn the_longest_lifetime_is_kept_to_whatever_moves() {
        let begun = Instant::now();
        for close_timeout in [None, Some(MINUTE)] {
            let mut reckoning = Reckoning::new(&limits(close_timeout, Some(24 * HOUR)), begun);
            for second in 1..24 * 3600 {
                let next = reckoning.look(begun + second * SECOND, second % 2 == 0, u64::from(second));
                assert!(next.is_ok_and(|next| next <= Some(begun + 24 * HOUR)), "{second}");
            }
            assert!(reckoning.look(begun + 24 * HOUR, false, 0).is_err());
        }
        let mut endless = Reckoning::new(&limits(Some(Duration::MAX), Some(Duration::MAX)), begun);
        assert_eq!(endless.look(begun + 24 * HOUR, true, 0), Ok(None));
    }
}
