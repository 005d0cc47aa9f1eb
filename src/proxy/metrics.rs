//! What the data path measures (contract §11).

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::audit::Event;

/// Bounds in seconds: the proxy's own work is in the microseconds, a language model's answer takes minutes.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
/// So many pairs of a tenant and a role become label values. Where everybody may name any tenant, agents could fill the
/// memory with them.
const MOST_NAMED: usize = 4096;
const OVERHEAD: [f64; 10] = [0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1];

/// The data path's metrics.
pub struct Metrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    overhead_seconds: Histogram,
    tenants: bool,
    /// Hashes of the tenants and roles that are label values.
    named: RwLock<HashSet<u64>>,
    hashing: RandomState,
    /// Connections from agents that are open.
    pub(super) connections: IntGauge,
    /// Connections refused because there was no room.
    pub(super) turned_away: IntCounter,
    /// Handshakes that agents broke off, most often because they do not trust our CA.
    pub(super) handshakes_failed: IntCounter,
}

impl Metrics {
    /// Registers them. `tenants` says whether tenants become label values.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry, tenants: bool) -> Result<Self, prometheus::Error> {
        let labels = ["tenant", "role", "connector", "operation", "decision", "error"];
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("keybearer_requests_total", "Requests, by who asked for what and what was decided"),
                &labels,
            )?,
            request_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "keybearer_request_duration_seconds",
                    "From a request's head to its answer's last byte",
                )
                .buckets(SECONDS.to_vec()),
                &["connector"],
            )?,
            upstream_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "keybearer_upstream_duration_seconds",
                    "From sending a request to the provider's answer head",
                )
                .buckets(SECONDS.to_vec()),
                &["connector"],
            )?,
            overhead_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "keybearer_overhead_seconds",
                    "What the proxy added before an answer's head: total less the provider's part",
                )
                .buckets(OVERHEAD.to_vec()),
            )?,
            tenants,
            named: RwLock::default(),
            hashing: RandomState::new(),
            connections: IntGauge::new("keybearer_connections", "Connections from agents that are open")?,
            turned_away: IntCounter::new(
                "keybearer_connections_refused_total",
                "Connections refused because there was no room",
            )?,
            handshakes_failed: IntCounter::new(
                "keybearer_tls_handshakes_failed_total",
                "TLS handshakes that agents broke off, most often because they do not trust the proxy's CA",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.upstream_seconds.clone()))?;
        registry.register(Box::new(metrics.overhead_seconds.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.turned_away.clone()))?;
        registry.register(Box::new(metrics.handshakes_failed.clone()))?;
        Ok(metrics)
    }

    /// Whether this pair of names is a label value, or still becomes one.
    fn names(&self, tenant: &str, role: &str) -> bool {
        let hash = self.hashing.hash_one((tenant, role));
        if self.named.read().unwrap_or_else(PoisonError::into_inner).contains(&hash) {
            return true;
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= MOST_NAMED {
            return false;
        }
        named.insert(hash);
        true
    }

    /// What the proxy added to the time before an answer's head.
    pub(super) fn overhead(&self, added: Duration) {
        self.overhead_seconds.observe(added.as_secs_f64());
    }

    /// Counts a finished action. Whoever was not admitted is not named.
    pub(super) fn finished(
        &self,
        event: &Event,
        admitted: bool,
        total: Duration,
        upstream: Option<Duration>,
    ) {
        let connector = event.connector.as_ref().map_or("", |name| name.as_str());
        let tenant = event.tenant.as_ref().filter(|_| self.tenants).map_or("", |name| name.as_str());
        let role = event.role.as_ref().map_or("", |name| name.as_str());
        let (tenant, role) = if admitted && self.names(tenant, role) { (tenant, role) } else { ("", "") };
        self.requests
            .with_label_values(&[
                tenant,
                role,
                connector,
                event.operation.as_ref().map_or("", |name| name.as_str()),
                event.decision.map_or("", crate::audit::Decision::as_str),
                event.error.as_deref().unwrap_or(""),
            ])
            .inc();
        self.request_seconds.with_label_values(&[connector]).observe(total.as_secs_f64());
        if let Some(upstream) = upstream {
            self.upstream_seconds.with_label_values(&[connector]).observe(upstream.as_secs_f64());
        }
    }
}

/// A gauge that counts itself down when dropped.
pub(super) struct Open(IntGauge);

impl Open {
    /// Counts one more.
    #[must_use]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RoleName, TenantId};

    /// How many requests are told of a tenant, and how many kinds there are.
    fn told(registry: &Registry, tenant: &str) -> (f64, usize) {
        let families = registry.gather();
        let requests = families.iter().find(|family| family.name() == "keybearer_requests_total").unwrap();
        let is_tenants =
            |label: &prometheus::proto::LabelPair| label.name() == "tenant" && label.value() == tenant;
        let of_tenant = requests.get_metric().iter().filter(|one| one.get_label().iter().any(is_tenants));
        (of_tenant.map(|one| one.get_counter().get_value()).sum(), requests.get_metric().len())
    }

    #[test]
    fn invented_names_do_not_become_label_values_without_end() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, true).unwrap();
        let count = |tenant: &str, admitted| {
            let (tenant, role) = (TenantId::new(tenant).unwrap(), RoleName::new("r").unwrap());
            let event = Event { tenant: Some(tenant), role: Some(role), ..Event::default() };
            metrics.finished(&event, admitted, Duration::ZERO, None);
        };
        count("refused", false);
        assert_eq!((told(&registry, "refused"), told(&registry, "")), ((0.0, 1), (1.0, 1)));
        for n in 0..MOST_NAMED + 10 {
            count(&format!("t{n}"), true);
        }
        count("t0", true);
        let kinds = MOST_NAMED + 1;
        assert_eq!((told(&registry, "t0"), told(&registry, "")), ((2.0, kinds), (11.0, kinds)));
    }
}
