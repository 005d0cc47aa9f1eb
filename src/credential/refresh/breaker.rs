//! Leaving a token endpoint alone that does not answer: one probe at a time instead of every account's attempt.

use std::time::Duration;

use tokio::time::Instant;

/// So many attempts in a row must have failed.
const FAILURES: u32 = 5;
/// The endpoint is left alone for so long at first, and for twice as long after each probe that failed.
const FIRST: Duration = Duration::from_secs(15);
/// At most for so long.
const CAP: Duration = Duration::from_mins(5);

/// The circuit breaker of one connector's token host. It is the caller's to lock.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    trips: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether an attempt may be made now. Of those who ask after the wait, the first one is the probe; the others
    /// are let through when it has succeeded.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.open_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                self.open_until = Some(now + self.pause());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether an attempt could be made now, without making one.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn peek(&self, now: Instant) -> Result<(), Duration> {
        self.open_until.filter(|until| now < *until).map_or(Ok(()), |until| Err(until - now))
    }

    /// The endpoint answered, whatever it said.
    pub(super) const fn answered(&mut self) {
        self.failures = 0;
        self.trips = 0;
        self.open_until = None;
    }

    /// The endpoint did not answer, or only that it failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open_until = Some(now + self.pause());
            self.trips = self.trips.saturating_add(1);
        }
    }

    fn pause(&self) -> Duration {
        FIRST.saturating_mul(1 << self.trips.min(16)).min(CAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tripped(at: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(at), Ok(()));
            breaker.failed(at);
        }
        breaker
    }

    #[tokio::test]
    async fn five_failures_in_a_row_open_it_and_one_probe_at_a_time_goes_through() {
        let now = Instant::now();
        let mut breaker = tripped(now);
        assert_eq!(breaker.admit(now), Err(FIRST));
        assert_eq!(breaker.admit(now + SECOND), Err(SECOND * 14));
        assert_eq!(breaker.admit(now + FIRST), Ok(()));
        assert_eq!(breaker.admit(now + FIRST), Err(FIRST * 2));
        breaker.failed(now + FIRST);
        assert_eq!(breaker.admit(now + FIRST + SECOND), Err(SECOND * 29));
        breaker.answered();
        assert_eq!(breaker.admit(now + FIRST + SECOND), Ok(()));
    }

    #[tokio::test]
    async fn an_answer_between_failures_keeps_it_closed() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.answered();
        }
        assert_eq!(breaker.admit(now), Ok(()));
    }

    #[tokio::test]
    async fn a_host_that_stays_away_is_probed_every_five_minutes() {
        let mut now = Instant::now();
        let mut breaker = tripped(now);
        for _ in 0..10 {
            now += CAP;
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Err(CAP));
    }
}
