//! The way to one app's token endpoint: whether it may be gone now, and what was learnt on it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::{
    Engine, Trouble,
    apps::App,
    breaker::Breaker,
    bucket::Priority,
    note::{Told, event_of},
};
use crate::{
    catalog::Connector,
    id::AccountKey,
    oauth::{AppFault, Failure},
};

/// An app at a connector's token host.
pub(super) struct Way {
    pub(super) connector: Arc<Connector>,
    pub(super) shared: Arc<App>,
    pub(super) host: String,
}

impl Engine {
    /// Whether neither the app nor its token host is to be left alone.
    pub(super) fn peek(&self, way: &Way) -> Result<(), Trouble> {
        let now = Instant::now();
        self.open(way, way.shared.peek(now), |breaker| breaker.peek(now))
    }

    /// Whoever goes first after a pause of the app or of its token host is the probe.
    pub(super) fn admit(&self, way: &Way) -> Result<(), Trouble> {
        let now = Instant::now();
        self.open(way, way.shared.admit(now), |breaker| breaker.admit(now))
    }

    fn open(
        &self,
        way: &Way,
        app: Result<(), Duration>,
        host: impl FnOnce(&mut Breaker) -> Result<(), Duration>,
    ) -> Result<(), Trouble> {
        app.map_err(|retry_after| Trouble::AppPaused { retry_after })?;
        let open = self.0.shared.breaker(&way.connector.name, &way.host, host);
        open.map_err(|retry_after| Trouble::Unreachable { retry_after })
    }

    /// Waits for room in the app's bucket; in the background only until a request waits, too.
    pub(super) async fn room(&self, way: &Way, priority: Priority, urgent: &Notify) {
        let bucket = &way.shared.bucket;
        if priority != Priority::Demand {
            tokio::select! {
                () = bucket.take(priority) => return,
                () = urgent.notified() => {}
            }
        }
        bucket.take(Priority::Demand).await;
    }

    /// What an attempt says of the app and of its token host. `done` is what metrics call a success.
    pub(super) fn learn<T>(&self, way: &Way, done: &'static str, outcome: &Result<T, Failure>) {
        let is_down = matches!(
            outcome,
            Err(Failure::NotSent(_) | Failure::Ambiguous | Failure::Transient { retry_after: None })
        );
        self.0.shared.breaker(&way.connector.name, &way.host, |breaker| {
            if is_down { breaker.failed(Instant::now()) } else { breaker.answered() }
        });
        let metrics = &self.0.parts.metrics;
        metrics.attempt(&way.connector.name, outcome.as_ref().map_or_else(name, |_| done));
        if outcome.is_ok() && way.shared.resume() {
            tracing::info!(connector = %way.connector.name, "the provider takes the app again");
            metrics.paused(&way.connector.name, -1);
        }
    }

    /// Pauses the app: the provider refuses it, and no account of it is to blame (F24). What there is to tell, where it
    /// is news.
    pub(super) fn refused(&self, way: &Way, client: &str, fault: AppFault) -> Option<Told> {
        way.shared.pause(Instant::now()).then(|| {
            tracing::error!(connector = %way.connector.name, client, "the app is paused: {fault}");
            self.0.parts.metrics.paused(&way.connector.name, 1);
            Told::new("app.paused").with_detail(Some(&format!("app {client}: {fault}")))
        })
    }

    /// Tells of something that changed nothing in the vault. It waits in memory only.
    pub(super) fn tell(&self, key: &AccountKey, told: Told) {
        super::lock(&self.0.untold).push_back(event_of(key, told));
        self.0.noted.notify_one();
    }
}

/// What metrics call a failure.
const fn name(failure: &Failure) -> &'static str {
    match failure {
        Failure::NotSent(_) => "not_sent",
        Failure::Ambiguous => "ambiguous",
        Failure::Transient { .. } => "transient",
        Failure::Definitive(_) => "reauth_required",
        Failure::NeedsUser { .. } => "needs_user",
        Failure::SubjectGone(_) => "subject_gone",
        Failure::App(_) => "app_paused",
        Failure::Unreadable(_) => "unreadable",
    }
}
