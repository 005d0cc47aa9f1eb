//! What `/metrics` says of refreshing.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::id::ConnectorName;

/// What is measured. Cloning shares the measures.
#[derive(Debug, Clone)]
pub struct Metrics {
    attempts: IntCounterVec,
    pub(super) expiry_min: IntGauge,
    pub(super) unpersisted: IntGauge,
    paused: IntGaugeVec,
    pub(super) undelivered: IntGauge,
}

impl Metrics {
    /// Makes the metrics known to the registry.
    ///
    /// # Errors
    /// Where their names are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let attempts = IntCounterVec::new(
            Opts::new("keybearer_refresh_total", "Attempts to obtain a token, by what came of them"),
            &["connector", "outcome"],
        )?;
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let expiry_min = gauge(
            "keybearer_credential_expiry_seconds_min",
            "Seconds until the first token in use ends; negative where one has ended",
        )?;
        let unpersisted =
            gauge("keybearer_unpersisted_rotations", "Rotated tokens that the vault has not taken yet")?;
        let undelivered =
            gauge("keybearer_outbox", "Events of the vault that the audit log has not taken yet")?;
        let paused = IntGaugeVec::new(
            Opts::new(
                "keybearer_apps_paused",
                "Apps that their provider refuses; their accounts are not refreshed",
            ),
            &["connector"],
        )?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(paused.clone()))?;
        Ok(Self { attempts, expiry_min, unpersisted, paused, undelivered })
    }

    pub(super) fn attempt(&self, connector: &ConnectorName, outcome: &str) {
        self.attempts.with_label_values(&[connector.as_str(), outcome]).inc();
    }

    pub(super) fn paused(&self, connector: &ConnectorName, by: i64) {
        self.paused.with_label_values(&[connector.as_str()]).add(by);
    }
}
