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
use crate::id::AccountKey;

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

pub(super) fn router(desk: Desk) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(desk)
}

async fn readiness(State(desk): State<Desk>) -> Response {
    let parts = [("vault", vault(&desk).await), ("audit", audit(&desk)), ("policy", policy(&desk))];
    let not_ready: Vec<_> =
        parts.into_iter().filter_map(|(what, why)| Some(NotReady { what, why: why? })).collect();
    let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: not_ready.is_empty(), not_ready })).into_response()
}

async fn vault(desk: &Desk) -> Option<String> {
    let probe: AccountKey = PROBE.parse().ok()?;
    let error = desk.vault().account(&probe).await.err()?;
    tracing::warn!(%error, "the vault is not ready");
    Some("it cannot be read: see the log".to_owned())
}

fn audit(desk: &Desk) -> Option<String> {
    desk.audit().trouble().map(|why| format!("it cannot be written: {why}"))
}

fn policy(desk: &Desk) -> Option<String> {
    desk.rules().trouble()
}
