//! How long to leave a token endpoint alone after it failed for reasons of its own (F19, F20, F23).

use std::time::Duration;

use jiff::Timestamp;

use super::{clock::between, schedule::Spread};

/// The first wait is at most this, each further one at most twice as long.
const FIRST: Duration = Duration::from_secs(2);
/// Up to this.
const CAP: Duration = Duration::from_mins(5);
/// Never shorter: a wait of nothing would be no wait.
const FLOOR: Duration = Duration::from_millis(500);
/// What a `Retry-After` can ask for. More would be an outage that nobody here can see the end of.
const OBEYED: Duration = Duration::from_hours(6);
/// After so long without an answer, an account is given up until somebody uses it.
const DEAD: Duration = Duration::from_hours(72);
/// How often an account that was given up is tried for somebody who uses it.
pub(super) const DEAD_WAIT: Duration = Duration::from_hours(1);

/// How long to wait after so many failures in a row: full jitter under a ceiling that doubles, and never less than
/// the provider asked for.
#[must_use]
pub(super) fn wait(failures: u32, asked: Option<Duration>, spread: Spread) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = FIRST.saturating_mul(1 << doublings).min(CAP);
    let own = ceiling.mul_f64(spread.fraction()).max(FLOOR);
    // All who were told the same moment come back one after the other.
    asked.map_or(own, |asked| asked.min(OBEYED) + own)
}

/// Whether an account has failed for so long that nothing but its use tries it again.
#[must_use]
pub(super) fn is_dead(since: Timestamp, now: Timestamp) -> bool {
    between(since, now) >= DEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::refresh::clock::after;

    fn spreads() -> impl Iterator<Item = Spread> {
        let key = "acme/crm/tenant".parse().unwrap();
        (0..1000).map(move |generation| Spread::of(&key, generation, "one"))
    }

    #[test]
    fn waits_are_spread_under_a_ceiling_that_doubles_up_to_five_minutes() {
        for (failures, ceiling) in [(1, 2), (2, 4), (5, 32), (9, 300), (u32::MAX, 300)] {
            let waits: Vec<Duration> = spreads().map(|spread| wait(failures, None, spread)).collect();
            let ceiling = Duration::from_secs(ceiling);
            assert!(waits.iter().all(|wait| (FLOOR..=ceiling).contains(wait)), "{failures}");
            assert!(waits.iter().any(|wait| *wait > ceiling.mul_f64(0.9)), "{failures}");
            assert!(waits.iter().any(|wait| *wait < ceiling.mul_f64(0.1).max(FLOOR * 2)), "{failures}");
        }
    }

    #[test]
    fn what_the_provider_asked_for_is_waited_for_and_not_for_days() {
        let asked = Duration::from_mins(10);
        assert!(spreads().all(|spread| wait(1, Some(asked), spread) > asked));
        assert!(spreads().all(|spread| wait(1, Some(DEAD), spread) < OBEYED + CAP));
    }

    #[test]
    fn an_account_is_given_up_after_three_days_of_failures() {
        let since = Timestamp::UNIX_EPOCH;
        assert!(!is_dead(since, after(since, Duration::from_hours(71))));
        assert!(is_dead(since, after(since, Duration::from_hours(72))));
    }
}
