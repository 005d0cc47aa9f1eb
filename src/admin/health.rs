//! Whether the process is up, and whether it can do its work.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde::Serialize;

use super::Desk;
use crate::{audit::Audit, credential::Remote, id::AccountKey, ruleset::Rules, vault::Vault};

/// An account that is looked up to see whether the vault answers. It need not exist.
const PROBE: &str = "readyz/readyz/developer";

/// What `/readyz` answers.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_ready: Vec<NotReady>,
}

/// One thing that is not ready.
#[derive(Debug, Serialize)]
struct NotReady {
    what: &'static str,
    why: String,
}

/// What has to be well.
#[derive(Clone)]
pub(super) struct Health {
    accounts: Accounts,
    audit: Audit,
    rules: Rules,
}

/// Where accounts come from.
#[derive(Clone)]
enum Accounts {
    Vault(Vault),
    Broker(Remote),
}

impl Health {
    pub(super) fn of(desk: &Desk) -> Self {
        let accounts = Accounts::Vault(desk.vault().clone());
        Self { accounts, audit: desk.audit().clone(), rules: desk.rules().clone() }
    }

    /// Of a process that has its accounts from a broker.
    pub(super) const fn at_broker(broker: Remote, audit: Audit, rules: Rules) -> Self {
        Self { accounts: Accounts::Broker(broker), audit, rules }
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readiness))
            .with_state(self)
    }
}

async fn readiness(State(health): State<Health>) -> Response {
    let accounts = match &health.accounts {
        Accounts::Vault(vault) => self::vault(vault).await,
        Accounts::Broker(broker) => broker.trouble(),
    };
    let audit = health.audit.trouble().map(|why| format!("it cannot be written: {why}"));
    let parts = [("vault", accounts), ("audit", audit), ("policy", health.rules.trouble())];
    let not_ready: Vec<_> =
        parts.into_iter().filter_map(|(what, why)| Some(NotReady { what, why: why? })).collect();
    let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: not_ready.is_empty(), not_ready })).into_response()
}

async fn vault(vault: &Vault) -> Option<String> {
    let probe: AccountKey = PROBE.parse().ok()?;
    let error = vault.account(&probe).await.err()?;
    tracing::warn!(%error, "the vault is not ready");
    Some("it cannot be read: see the log".to_owned())
}
