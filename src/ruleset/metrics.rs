//! What is measured of the policy (contract §11).

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Outcome;

/// Reloads counted, and which revision is in use.
#[derive(Debug, Clone)]
pub struct Metrics {
    reloads: IntCounterVec,
    revision: IntGaugeVec,
}

impl Metrics {
    /// Registers `keybearer_policy_reload_total{outcome}` and `keybearer_policy_revision_info{revision}`.
    ///
    /// # Errors
    /// The registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reloads = Opts::new(
            "keybearer_policy_reload_total",
            "Changed policy files, by whether they could be used.",
        );
        let revision = Opts::new("keybearer_policy_revision_info", "1 for the policy revision in use.");
        let metrics = Self {
            reloads: IntCounterVec::new(reloads, &["outcome"])?,
            revision: IntGaugeVec::new(revision, &["revision"])?,
        };
        for outcome in ["loaded", "refused"] {
            metrics.reloads.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.revision.clone()))?;
        Ok(metrics)
    }

    /// Tells which revision is in use from now on.
    pub fn in_use(&self, revision: &str) {
        self.revision.reset();
        self.revision.with_label_values(&[revision]).set(1);
    }

    /// Counts what became of changed files.
    pub fn count(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Loaded(summary) => {
                self.reloads.with_label_values(&["loaded"]).inc();
                self.in_use(&summary.revision);
            }
            Outcome::Refused(_) => self.reloads.with_label_values(&["refused"]).inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::{super::Summary, *};

    #[test]
    fn one_revision_is_in_use_and_both_outcomes_show_from_the_start() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.in_use("aaaaaaaaaaaa");
        let summary = Summary { revision: "bbbbbbbbbbbb".into(), ..Summary::default() };
        metrics.count(&Outcome::Loaded(summary));
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("keybearer_policy_reload_total{outcome=\"loaded\"} 1\n"), "{text}");
        assert!(text.contains("keybearer_policy_reload_total{outcome=\"refused\"} 0\n"), "{text}");
        assert!(text.contains("keybearer_policy_revision_info{revision=\"bbbbbbbbbbbb\"} 1\n"), "{text}");
        assert!(!text.contains("aaaaaaaaaaaa"), "{text}");
    }
}
