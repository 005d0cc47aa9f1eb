//! What `/metrics` says of accounts.

use prometheus::{IntGaugeVec, Opts, Registry};

use super::Overview;

/// How many accounts there are.
#[derive(Debug, Clone)]
pub struct Metrics {
    accounts: IntGaugeVec,
}

impl Metrics {
    /// Makes the metrics known to the registry.
    ///
    /// # Errors
    /// Where their names are taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let accounts = IntGaugeVec::new(
            Opts::new("keybearer_accounts", "Connected accounts"),
            &["connector", "status"],
        )?;
        registry.register(Box::new(accounts.clone()))?;
        Ok(Self { accounts })
    }

    /// Shows what there is now.
    pub fn show(&self, overview: &Overview) {
        self.accounts.reset(); // a connector whose last account went is no longer there
        for ((connector, status), count) in &overview.accounts {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.accounts.with_label_values(&[connector.as_str(), status]).set(count);
        }
        for key in &overview.unreadable {
            self.accounts.with_label_values(&[key.connector.as_str(), "unreadable"]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::vault::{Backend, seal::Key};

    #[test]
    fn accounts_are_counted_by_connector_and_status() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let mut overview = Overview {
            backend: Backend::Memory,
            place: None,
            key: Key::generate().unwrap().fingerprint(),
            tenants: 1,
            accounts: [(("slack".parse().unwrap(), "active"), 1)].into(),
            unreadable: Vec::new(),
        };
        metrics.show(&overview);
        overview.accounts = [(("github".parse().unwrap(), "frozen"), 2)].into();
        metrics.show(&overview);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains(r#"keybearer_accounts{connector="github",status="frozen"} 2"#), "{text}");
        assert!(!text.contains("slack"), "{text}");
    }
}
