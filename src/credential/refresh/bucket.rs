//! How often one app may ask its token endpoint, and who comes first (F20, F21).

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::{sync::Mutex, time::Instant};

/// For whom a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A request waits for it.
    Demand,
    /// The token in use ends soon.
    Ahead,
    /// Nobody uses it; the provider would end it for that.
    KeepAlive,
}

/// The token bucket of one app (connector and client id).
///
/// Each priority has a lane of its own, and whoever is in a later one passes all before it: requests that wait find
/// room that work in the background cannot take.
#[derive(Debug)]
pub(super) struct Bucket {
    lanes: [Lane; 3],
}

impl Bucket {
    /// Room for so many attempts a second, and for as many at once.
    #[must_use]
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let share = |percent: u32| {
            let cells = u64::from(per_second.get()) * u64::from(percent);
            Quota::with_period(Duration::from_secs(100) / u32::try_from(cells.max(1)).unwrap_or(u32::MAX))
                .unwrap_or_else(|| Quota::per_second(per_second))
        };
        let burst = |quota: Quota, percent: u32| {
            quota.allow_burst(NonZeroU32::new(per_second.get() * percent / 100).unwrap_or(NonZeroU32::MIN))
        };
        Self { lanes: [100, 80, 20].map(|percent| Lane::new(burst(share(percent), percent))) }
    }

    /// Waits for room. Within a lane, first come, first served.
    pub(super) async fn take(&self, priority: Priority) {
        for lane in self.lanes[..=priority as usize].iter().rev() {
            lane.pass().await;
        }
    }
}

#[derive(Debug)]
struct Lane {
    queue: Mutex<()>,
    limiter: RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Duration>>,
}

impl Lane {
    fn new(quota: Quota) -> Self {
        Self {
            queue: Mutex::default(),
            limiter: RateLimiter::direct_with_clock(quota, Clock(Instant::now())),
        }
    }

    /// Only the first in the queue asks, so that thousands who wait cost nothing.
    async fn pass(&self) {
        let _first = self.queue.lock().await;
        while let Err(full) = self.limiter.check() {
            let now = clock::Clock::now(self.limiter.clock());
            tokio::time::sleep(full.wait_time_from(now).max(Duration::from_millis(1))).await;
        }
    }
}

/// tokio's clock, which tests pause.
#[derive(Debug, Clone)]
struct Clock(Instant);

impl clock::Clock for Clock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::{StreamExt, stream::FuturesUnordered};

    use super::*;

    fn bucket(per_second: u32) -> Arc<Bucket> {
        Arc::new(Bucket::new(NonZeroU32::new(per_second).unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_herd_is_let_through_at_the_rate() {
        let bucket = bucket(10);
        let begun = Instant::now();
        let mut all: FuturesUnordered<_> = (0..1010).map(|_| bucket.take(Priority::Demand)).collect();
        while all.next().await.is_some() {}
        let took = begun.elapsed().as_secs_f64();
        assert!((99.0..102.0).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_does_not_stand_behind_the_background() {
        let bucket = bucket(10);
        let mut background: FuturesUnordered<_> = (0..1000).map(|_| bucket.take(Priority::Ahead)).collect();
        let waited = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let begun = Instant::now();
            bucket.take(Priority::Demand).await;
            begun.elapsed()
        };
        let mut waited = std::pin::pin!(waited);
        let waited = loop {
            tokio::select! {
                waited = &mut waited => break waited,
                Some(()) = background.next() => {}
            }
        };
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        assert!(background.len() > 850, "{}", background.len());
    }

    #[tokio::test(start_paused = true)]
    async fn keeping_alive_takes_a_fifth_at_most() {
        let bucket = bucket(10);
        let begun = Instant::now();
        let mut idle: FuturesUnordered<_> = (0..102).map(|_| bucket.take(Priority::KeepAlive)).collect();
        while idle.next().await.is_some() {}
        assert!(begun.elapsed() >= Duration::from_secs(49), "{:?}", begun.elapsed());
    }
}
