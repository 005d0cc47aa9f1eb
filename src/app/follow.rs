//! What goes on beside the requests: policy files and accounts that change.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;

use crate::{
    audit::{Audit, Event, Kind},
    credential::Resolver,
    drain::Drain,
    ruleset::{self, Outcome, Rules},
    vault::{self, Change, Vault},
};

/// Follows the policy files: counts, logs and records what became of each change.
pub(super) fn policy(rules: &Rules, audit: &Audit, metrics: ruleset::Metrics, drain: &Drain) {
    metrics.in_use(&rules.current().revision);
    let (audit, spawner) = (audit.clone(), drain.clone());
    rules.watch(drain, move |outcome| {
        metrics.count(&outcome);
        spawner.spawn(record(audit.clone(), event(&outcome)));
    });
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

/// Follows the vault: a changed account is read anew at its next request, and one that may no longer be used
/// ends its open streams.
pub(super) fn accounts(vault: &Vault, resolver: Resolver, metrics: vault::Metrics, drain: &Drain) {
    let mut changes = vault.changes();
    let (vault, stopping) = (vault.clone(), drain.clone());
    drain.spawn(async move {
        loop {
            match vault.status().await {
                Ok(overview) => metrics.show(&overview),
                Err(error) => tracing::warn!(%error, "the accounts could not be counted"),
            }
            let told = tokio::select! {
                told = changes.recv() => told,
                () = stopping.begun() => return,
            };
            match told {
                Ok(Change::Account(key)) => resolver.changed(&key).await,
                Ok(Change::Whole(whose)) => resolver.whole_changed(&whose).await,
                Ok(Change::Unknown) | Err(RecvError::Lagged(_)) => resolver.all_changed().await,
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Records a start or stop.
pub(super) async fn lifecycle(audit: &Audit, what: &'static str, version: &str) {
    let event =
        Event { detail: Some(format!("keybearer {version}").into()), ..Event::of(Kind::System, what) };
    record(audit.clone(), event).await;
}

async fn record(audit: Audit, event: Event) {
    if let Err(error) = audit.record(event).await {
        tracing::error!(%error, "an event could not be recorded");
    }
}
