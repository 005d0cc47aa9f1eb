//! What goes on beside the requests: policy files and accounts that change.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep_until},
};

use crate::{
    audit::{Audit, Event, Kind},
    credential::{Engine, Resolver},
    drain::Drain,
    ruleset::{self, Outcome, Rules},
    vault::{self, Change, Vault},
};

/// How often the accounts are counted at most.
const COUNTED: Duration = Duration::from_secs(2);
/// For each moment that it takes, so many go by without: with thousands of accounts something always changes.
const COUNTING: u32 = 20;

/// Follows the policy files: counts, logs and records what became of each change, and says when one is `taken`.
pub(super) fn policy(
    rules: &Rules,
    engine: Option<&Engine>,
    audit: &Audit,
    metrics: ruleset::Metrics,
    taken: impl Fn() + Send + 'static,
    drain: &Drain,
) {
    if let Some(rules) = rules.in_use() {
        metrics.in_use(&rules.revision);
    }
    let (audit, engine, spawner) = (audit.clone(), engine.cloned(), drain.clone());
    rules.watch(drain, move |outcome| {
        metrics.count(&outcome);
        if let Outcome::Loaded(_) = &outcome {
            taken();
            if let Some(engine) = &engine {
                spawner.spawn(read_again(engine.clone()));
            }
        }
        spawner.spawn(record(audit.clone(), event(&outcome)));
    });
}

/// Other connectors may understand an answer that those before did not.
async fn read_again(engine: Engine) {
    if let Err(error) = engine.connectors_changed().await {
        tracing::warn!(%error, "what could not be read before was not read again");
    }
}

fn event(outcome: &Outcome) -> Event {
    match outcome {
        Outcome::Loaded(summary) => {
            tracing::info!(revision = &*summary.revision, "the policy was reloaded");
            Event {
                policy_revision: Some(Arc::clone(&summary.revision)),
                ..Event::of(Kind::Policy, "policy.reloaded")
            }
        }
        Outcome::Refused(error) => {
            tracing::error!("the changed policy cannot be used, the one before stays:\n{error}");
            Event { detail: Some(error.to_string().into()), ..Event::of(Kind::Policy, "policy.refused") }
        }
    }
}

/// An account that was not used for so long, or twice that, is forgotten until it is used again.
const UNUSED: Duration = Duration::from_mins(30);

/// Follows the vault: a changed account is read anew at its next request, and one that may no longer be used
/// ends its open streams; `known` is told then. Counts them, too.
pub(super) fn accounts(
    vault: &Vault,
    resolver: Resolver,
    metrics: vault::Metrics,
    known: impl Fn(&Change) + Send + 'static,
    drain: &Drain,
) {
    counts(vault, metrics, drain);
    tidies(resolver.clone(), drain);
    let mut changes = vault.changes();
    let stopping = drain.clone();
    drain.spawn(async move {
        loop {
            let told = tokio::select! {
                told = changes.recv() => told,
                () = stopping.begun() => return,
            };
            let change = match told {
                Ok(change) => change,
                Err(RecvError::Lagged(_)) => Change::Unknown,
                Err(RecvError::Closed) => return,
            };
            resolver.follow(&change).await;
            known(&change);
        }
    });
}

/// Forgets accounts that nobody uses, so that a process does not grow with everybody who ever did.
pub(super) fn tidies(resolver: Resolver, drain: &Drain) {
    let stopping = drain.clone();
    drain.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UNUSED) => resolver.tidy(),
                () = stopping.begun() => return,
            }
        }
    });
}

/// Counts the accounts, now and after changes: apart from what follows them, because it opens every one of them, and
/// no more often than [`COUNTED`] and [`COUNTING`] say.
fn counts(vault: &Vault, metrics: vault::Metrics, drain: &Drain) {
    let mut changes = vault.changes();
    let (vault, stopping) = (vault.clone(), drain.clone());
    drain.spawn(async move {
        loop {
            let begun = Instant::now();
            match vault.status().await {
                Ok(overview) => metrics.show(&overview),
                Err(error) => tracing::warn!(%error, "the accounts could not be counted"),
            }
            let earliest = Instant::now() + COUNTED.max(begun.elapsed() * COUNTING);
            let next_time = async {
                let told = changes.recv().await;
                sleep_until(earliest).await;
                told
            };
            tokio::select! {
                told = next_time => if told == Err(RecvError::Closed) { return },
                () = stopping.begun() => return,
            }
            changes = changes.resubscribe(); // what came meanwhile is counted with it
        }
    });
}

/// Records a start or stop, and whose: this version's.
pub(super) async fn lifecycle(audit: &Audit, what: &'static str) {
    let version = concat!("keybearer ", env!("CARGO_PKG_VERSION"));
    let event = Event { detail: Some(version.into()), ..Event::of(Kind::System, what) };
    record(audit.clone(), event).await;
}

/// Stops: lets open requests finish within the limit, records that, writes the audit log out. Returns how many tasks
/// were still open when the time was up.
pub(super) async fn stop(drain: &Drain, audit: &Audit, limit: Duration, what: &'static str) -> usize {
    let open = drain.finish(limit).await;
    lifecycle(audit, what).await;
    if let Err(error) = audit.flush().await {
        tracing::error!(%error, "the last audit events could not be written");
    }
    open
}

async fn record(audit: Audit, event: Event) {
    if let Err(error) = audit.record(event).await {
        tracing::error!(%error, "an event could not be recorded");
    }
}
