//! What `/metrics` says of refreshing.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::id::ConnectorName;

/// What is measured. Cloning shares the measures.
#[derive(Debug, Clone)]
pub struct Metrics {
    attempts: IntCounterVec,
    /// Without labels, and without a value while there is none.
    expiry_min: IntGaugeVec,
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
        let expiry_min = IntGaugeVec::new(
            Opts::new(
                "keybearer_credential_expiry_seconds_min",
                "Seconds until the first token in use ends; negative where one has ended, absent where none ends",
            ),
            &[],
        )?;
        registry.register(Box::new(expiry_min.clone()))?;
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

    /// Seconds until the first token in use ends. None is shown where none ends: 0 would be an end, and raise alarms.
    pub(super) fn first_end(&self, left: Option<i64>) {
        match left {
            Some(left) => self.expiry_min.with_label_values::<&str>(&[]).set(left),
            None => self.expiry_min.reset(),
        }
    }

    pub(super) fn attempt(&self, connector: &ConnectorName, outcome: &str) {
        self.attempts.with_label_values(&[connector.as_str(), outcome]).inc();
    }

    pub(super) fn paused(&self, connector: &ConnectorName, by: i64) {
        self.paused.with_label_values(&[connector.as_str()]).add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_token_ends_no_end_is_shown() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let shown = || {
            let families = registry.gather();
            let ends =
                families.iter().find(|family| family.name() == "keybearer_credential_expiry_seconds_min");
            ends.map(|family| family.get_metric()[0].get_gauge().get_value())
        };
        assert_eq!(shown(), None);
        for left in [-3, 0, 600] {
            metrics.first_end(Some(left));
            assert_eq!(shown(), Some(f64::from(i32::try_from(left).unwrap())));
        }
        metrics.first_end(None);
        assert_eq!(shown(), None);
    }
}
