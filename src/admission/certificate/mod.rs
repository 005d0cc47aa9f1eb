//! A certificate of the webhook's own: made here, shared by its replicas, told to API servers, renewed.
//!
//! The replicas agree on CAs by one Secret: who finds none makes it, who finds one due adds the next, and each change
//! holds only for the version that was read. Every replica signs its own leaf. `caBundle` of the webhook configuration
//! carries all CAs that are left, so that a leaf of any of them is trusted; a new CA signs only once a replica has seen
//! it in there for [`SETTLED`] looks, which API servers have long noticed by then. While the API server is away, what is
//! there goes on.

mod api;
mod ring;

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use self::{
    api::{Api, Error, Written},
    ring::{Leaf, Print, Ring},
};
use crate::drain::Drain;

/// How many looks a CA is in `caBundle` before it signs: an hour of them.
const SETTLED: u32 = 60;
/// After the first failure; twice as long after each further one.
const BREATH: Duration = Duration::from_secs(1);
/// How often a change is tried that others are faster with.
const ATTEMPTS: usize = 5;

/// `webhook.self_managed`: where a certificate of the webhook's own is kept and told of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfManaged {
    /// The `MutatingWebhookConfiguration` whose `caBundle` is written.
    pub configuration: String,
    /// The `Service` that it names.
    pub service: String,
    /// The `Secret` by which the replicas share the CA, in their own namespace.
    pub secret: String,
    /// The API server.
    pub api: String,
    /// The folder with the service account's `token`, `ca.crt` and `namespace`.
    pub service_account: PathBuf,
    /// How often both objects are looked at.
    #[serde(with = "crate::duration")]
    pub check: Duration,
}

impl Default for SelfManaged {
    fn default() -> Self {
        Self {
            configuration: "keybearer-webhook".to_owned(),
            service: "keybearer-webhook".to_owned(),
            secret: "keybearer-webhook-ca".to_owned(),
            api: "https://kubernetes.default.svc".to_owned(),
            service_account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
            check: Duration::from_mins(1),
        }
    }
}

/// What is shown to API servers; nothing before the cluster was asked for the first time.
#[derive(Default)]
pub(super) struct Shown(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(…)")
    }
}

struct Metrics {
    looks: IntCounterVec,
    ends: IntGauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let looks = IntCounterVec::new(
            Opts::new(
                "keybearer_admission_certificate_looks_total",
                "Looks at the shared CA and at caBundle",
            ),
            &["outcome"],
        )?;
        let ends = IntGauge::new(
            "keybearer_admission_certificate_ends_seconds",
            "When the certificate that is shown ends, in seconds since 1970",
        )?;
        registry.register(Box::new(looks.clone()))?;
        registry.register(Box::new(ends.clone()))?;
        Ok(Self { looks, ends })
    }
}

/// Keeps a certificate from now until the drain begins.
///
/// # Errors
/// When metrics cannot be registered.
pub(super) fn keep(
    settings: SelfManaged,
    registry: &Registry,
    drain: &Drain,
) -> Result<Arc<Shown>, prometheus::Error> {
    let shown = Arc::new(Shown::default());
    let keeper = Keeper {
        settings,
        metrics: Metrics::register(registry)?,
        shown: Arc::clone(&shown),
        server_name: String::new(),
        ring: Ring::default(),
        trusted: HashMap::new(),
        leaf: None,
    };
    drain.spawn(keeper.run(drain.clone()));
    Ok(shown)
}

struct Keeper {
    settings: SelfManaged,
    metrics: Metrics,
    shown: Arc<Shown>,
    server_name: String,
    ring: Ring,
    /// Since when each CA has been seen in `caBundle`.
    trusted: HashMap<Print, Instant>,
    leaf: Option<Leaf>,
}

impl Keeper {
    async fn run(mut self, drain: Drain) {
        let mut failures = 0;
        loop {
            let looked = tokio::select! {
                looked = self.look() => looked,
                () = drain.begun() => return,
            };
            failures = self.note(looked, failures);
            if let Err(error) = self.renew() {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the webhook's certificate cannot be renewed"
                );
            }
            let pause = match failures {
                0 => self.settings.check,
                _ => (BREATH * (1 << (failures - 1).min(16))).min(self.settings.check),
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = drain.begun() => return,
            }
        }
    }

    /// Returns how many looks have failed since the last that did not.
    fn note(&self, looked: Result<(), Error>, failures: u32) -> u32 {
        let outcome = if looked.is_ok() { "done" } else { "failed" };
        self.metrics.looks.with_label_values(&[outcome]).inc();
        let Err(error) = looked else { return 0 };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the webhook's CA cannot be looked after; what it has stays in use"
        );
        failures + 1
    }

    /// Brings Secret and configuration to where they should be. The configuration is read first: if a change of it holds
    /// for the version read, then no CA of a Secret that is newer than ours can have been in it.
    async fn look(&mut self) -> Result<(), Error> {
        let settings = self.settings.clone();
        let api = Api::open(&settings)?;
        self.server_name = api.server_name();
        for _ in 0..ATTEMPTS {
            let configuration = api.configuration().await;
            let Some(ring) = shared(&api, &self.ring).await? else { continue };
            // A certificate is there even if nobody can be told yet: a Deployment may have to be ready before that.
            self.ring = ring;
            if api.publish(&configuration?, &self.ring.certificates()).await? == Written::Done {
                let (before, now) = (std::mem::take(&mut self.trusted), Instant::now());
                self.trusted =
                    self.ring.prints().map(|ca| (ca, before.get(&ca).copied().unwrap_or(now))).collect();
                return Ok(());
            }
        }
        Err(Error::Meanwhile(ATTEMPTS))
    }

    /// Shows another leaf if it is time. Needs nobody.
    fn renew(&mut self) -> Result<(), ring::Error> {
        let is_trusted =
            |ca| self.trusted.get(&ca).is_some_and(|since| since.elapsed() >= self.settings.check * SETTLED);
        let now = OffsetDateTime::now_utc();
        let Some(leaf) = self.ring.leaf(&self.server_name, now, is_trusted, self.leaf.as_ref())? else {
            return Ok(());
        };
        self.metrics.ends.set(leaf.ends());
        self.shown.0.store(Some(Arc::clone(&leaf.certified)));
        tracing::info!(name = self.server_name, "a new certificate is in use");
        self.leaf = Some(leaf);
        Ok(())
    }
}

/// The CAs that the Secret has now; makes what is missing. `None` if somebody else was faster. A Secret that was emptied or
/// removed is written again from what we have, so that nothing that is in use loses its trust.
async fn shared(api: &Api<'_>, own: &Ring) -> Result<Option<Ring>, Error> {
    let secret = api.secret().await?;
    let mut ring = secret.as_ref().map_or_else(|| Ok(Ring::default()), |secret| api.ring(secret))?;
    let is_lost = ring.is_empty();
    if is_lost {
        ring = own.copied()?;
    }
    let is_changed = ring.turn(OffsetDateTime::now_utc())?;
    if !is_changed && !is_lost {
        return Ok(Some(ring));
    }
    let written = match secret {
        Some(secret) => api.replace(secret, &ring).await?,
        None => api.create(&ring).await?,
    };
    Ok((written == Written::Done).then_some(ring))
}
