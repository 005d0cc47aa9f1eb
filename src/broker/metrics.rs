//! What a broker measures.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// A broker's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) requests: IntCounterVec,
    pub(super) watches: IntGauge,
    pub(super) connections: IntGauge,
    pub(super) handshakes_failed: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("keybearer_broker_requests_total", "Requests of sidecars, by what came of them"),
                &["route", "outcome"],
            )?,
            watches: IntGauge::new("keybearer_broker_watches", "Sidecars that are told of changes")?,
            connections: IntGauge::new(
                "keybearer_broker_connections",
                "Connections from sidecars that are open",
            )?,
            handshakes_failed: IntCounter::new(
                "keybearer_broker_tls_handshakes_failed_total",
                "Handshakes that sidecars broke off, most often because they do not trust the certificate",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.watches.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.handshakes_failed.clone()))?;
        Ok(metrics)
    }
}

/// One of what a gauge counts, until it is dropped.
pub(super) struct Open(IntGauge);

impl Open {
    pub(super) fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
