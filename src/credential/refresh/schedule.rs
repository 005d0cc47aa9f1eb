//! When an account is refreshed: ahead of its token's end, apart from the others, and before idleness ends it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;

use super::clock::{after, before, between};
use crate::id::AccountKey;

/// A token is refreshed at most this long before its end (F17).
const MOST: Duration = Duration::from_mins(5);
/// And at least this long, unless it lives less than twice that.
const LEAST: Duration = Duration::from_secs(30);
/// When the owner of a grant that ends for good is told, in days before (F35).
pub(super) const WARNINGS: [u64; 3] = [30, 7, 1];

/// How long before its end a token of this life is refreshed: a fifth of its life, within bounds.
#[must_use]
pub(super) fn ahead(life: Duration) -> Duration {
    (life / 5).clamp(LEAST, MOST).min(life / 2)
}

/// When a token is to be refreshed. Tokens that end together are spread over half of the time ahead, before it.
#[must_use]
pub(super) fn due(obtained: Timestamp, expires: Timestamp, spread: Spread) -> Timestamp {
    let life = between(obtained, expires);
    let ahead = ahead(life);
    let jitter = (ahead / 2).min(life / 4).mul_f64(spread.0);
    before(expires, ahead + jitter)
}

/// When a grant that nobody uses is refreshed, so that the provider does not end it for being idle: after a third of
/// what it allows at the latest, spread over a twelfth (F34).
#[must_use]
pub(super) fn keep_alive(obtained: Timestamp, idle: Duration, spread: Spread) -> Timestamp {
    after(obtained, idle / 4 + (idle / 12).mul_f64(spread.0))
}

/// The warnings before a deadline that are still to come, the next first.
pub(super) fn warnings(deadline: Timestamp, now: Timestamp) -> impl Iterator<Item = (Timestamp, u64)> {
    let at = move |days: u64| (before(deadline, Duration::from_hours(24 * days)), days);
    WARNINGS.into_iter().map(at).filter(move |(at, _)| *at > now)
}

/// Where in a window an account stands: from 0, the latest, to below 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Spread(f64);

impl Spread {
    /// Another one for each account, each generation of it and each replica, and always the same for the same.
    #[must_use]
    pub(super) fn of(key: &AccountKey, generation: u64, replica: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (key, generation, replica).hash(&mut hasher);
        #[expect(clippy::cast_precision_loss, reason = "53 bits are all that a fraction holds")]
        Self((hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// As a fraction.
    #[must_use]
    pub(super) const fn fraction(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Spread = Spread(0.0);
    const ALL: Spread = Spread(0.999_999);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// How long before its end a token of this life is refreshed, at the latest and at the earliest.
    fn margins(life: u64) -> (u64, u64) {
        let obtained = Timestamp::UNIX_EPOCH;
        let expires = after(obtained, secs(life));
        let margin = |spread| between(due(obtained, expires, spread), expires).as_secs();
        (margin(NONE), margin(ALL))
    }

    #[test]
    fn a_token_is_refreshed_a_fifth_of_its_life_but_at_most_five_minutes_ahead() {
        assert_eq!(margins(3600), (300, 449));
        assert_eq!(margins(600), (120, 179)); // Snowflake
        assert_eq!(margins(300), (60, 89)); // Zendesk's shortest
        assert_eq!(margins(86_400 * 400), (300, 449));
    }

    #[test]
    fn the_floor_of_thirty_seconds_never_exceeds_half_of_a_short_life() {
        assert_eq!(margins(100), (30, 44));
        assert_eq!(margins(40), (20, 29));
        assert_eq!(margins(1), (0, 0));
        assert_eq!(ahead(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn ten_thousand_tokens_that_end_together_are_spread_over_the_window() {
        let obtained = Timestamp::UNIX_EPOCH;
        let expires = after(obtained, secs(3600));
        let mut buckets = [0_u32; 10];
        for number in 0..10_000 {
            let key = format!("acme/crm/role:r{number}").parse().unwrap();
            let due = due(obtained, expires, Spread::of(&key, 1, "one"));
            let into = between(before(expires, secs(450)), due).as_secs();
            buckets[usize::try_from(into / 15).unwrap()] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }

    #[test]
    fn replicas_and_generations_stand_elsewhere_and_stay_there() {
        let key: AccountKey = "acme/crm/tenant".parse().unwrap();
        assert_eq!(Spread::of(&key, 1, "one"), Spread::of(&key, 1, "one"));
        assert_ne!(Spread::of(&key, 1, "one"), Spread::of(&key, 1, "two"));
        assert_ne!(Spread::of(&key, 1, "one"), Spread::of(&key, 2, "one"));
    }

    #[test]
    fn an_idle_grant_is_kept_alive_within_a_third_of_what_the_provider_allows() {
        let obtained = Timestamp::UNIX_EPOCH;
        let idle = secs(90 * 86_400);
        assert_eq!(between(obtained, keep_alive(obtained, idle, NONE)), idle / 4);
        assert!(between(obtained, keep_alive(obtained, idle, ALL)) <= idle / 3);
    }

    #[test]
    fn only_warnings_that_are_to_come_are_given() {
        let day = secs(86_400);
        let now = Timestamp::UNIX_EPOCH;
        let days =
            |left: u32| warnings(after(now, day * left), now).map(|(_, days)| days).collect::<Vec<_>>();
        assert_eq!(days(365), [30, 7, 1]);
        assert_eq!(days(10), [7, 1]);
        assert!(days(1).is_empty());
    }
}
