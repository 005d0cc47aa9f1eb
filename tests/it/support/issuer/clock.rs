//! The issuer's time: it stands still when tokio's does, and jumps when a test says so.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub(super) struct Clock {
    began: Timestamp,
    since: Instant,
    ahead: AtomicI64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: Timestamp::now(), since: Instant::now(), ahead: AtomicI64::new(0) }
    }

    pub(super) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap();
        self.began + passed + SignedDuration::from_secs(self.ahead.load(Ordering::SeqCst))
    }

    /// Moves on by so many seconds.
    pub(super) fn advance(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// As the `Date` header has it.
pub(super) fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
