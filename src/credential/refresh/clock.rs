//! What time it is: by the calendar for what is stored and shared, by tokio's clock for what waits here.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

/// The calendar. Every end and deadline of the engine is read from one of these, so that tests can let hours pass.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// One that says what this function says.
    #[must_use]
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// When that will be by tokio's clock, which no correction of the calendar moves. What is past is now.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + between(self.now(), at).min(FAR)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Instants end some centuries from now, at least; a token that lives longer than this lives long enough.
pub(in crate::credential) const FAR: Duration = Duration::from_hours(24 * 365 * 10);

/// So much after `at`, or as far as the calendar goes.
#[must_use]
pub(in crate::credential) fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// So much before `at`, or as far back as the calendar goes.
#[must_use]
pub(super) fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// From `from` to `to`; nothing where that is past.
#[must_use]
pub(in crate::credential) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
