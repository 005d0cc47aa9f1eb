//! The one way to a token endpoint.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::ClientConfig;

use crate::dial::Dialer;

/// What tells the time; tests have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Carries requests to token endpoints: one connection each, to an address that the guard has checked, over TLS that is
/// verified like a provider's, for at most `limit` in all. Cloning is cheap.
#[derive(Clone)]
pub struct Transport {
    #[expect(dead_code, reason = "STILL EMPTY")]
    dialer: Dialer,
    #[expect(dead_code, reason = "STILL EMPTY")]
    tls: Arc<ClientConfig>,
    limit: Duration,
    #[expect(dead_code, reason = "STILL EMPTY")]
    clock: Clock,
}

impl Transport {
    /// A transport that gives up after `limit`, connecting included: keep it shorter than a lease.
    #[must_use]
    pub fn new(dialer: Dialer, tls: Arc<ClientConfig>, limit: Duration) -> Self {
        Self { dialer, tls, limit, clock: Arc::new(Timestamp::now) }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("limit", &self.limit).finish_non_exhaustive()
    }
}
