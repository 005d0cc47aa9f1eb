//! What `/metrics` says of the broker.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::Error;
use crate::credential::wire::{Answer, Ask, Problem};

/// How the broker is heard from and what it answers.
#[derive(Debug, Clone)]
pub struct Metrics {
    connected: IntGauge,
    calls: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics known to the registry.
    ///
    /// # Errors
    /// Where their names are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let connected = IntGauge::new("keybearer_broker_connected", "Whether the broker tells of changes")?;
        let calls = Opts::new("keybearer_broker_calls_total", "What was asked of the broker");
        let calls = IntCounterVec::new(calls, &["ask", "outcome"])?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        Ok(Self { connected, calls })
    }

    /// Whether it tells of changes at present.
    pub(super) fn connected(&self, is_connected: bool) {
        self.connected.set(i64::from(is_connected));
    }

    /// Counts a question by its outcome.
    pub(super) fn called(&self, ask: Ask, answered: &Result<Result<Answer, Problem>, Error>) {
        let outcome = match answered {
            Ok(Ok(_)) => "answered",
            Ok(Err(problem)) => problem.error.as_str(),
            Err(Error::Late { .. }) => "late",
            Err(_) => "unreachable",
        };
        self.calls.with_label_values(&[ask.as_str(), outcome]).inc();
    }
}
