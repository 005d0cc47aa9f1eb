//! Which requests there are.

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use http::StatusCode;

use super::{Broker, credential, policy, refusal::Refusal, watch};
use crate::credential::wire::{CREDENTIAL, Code, POLICY, WATCH};

impl Broker {
    pub(super) fn router(self) -> Router {
        Router::new()
            .route(CREDENTIAL, post(credential::answer))
            .route(WATCH, get(watch::watch))
            .route(POLICY, get(policy::policy))
            .method_not_allowed_fallback(nothing_here)
            .layer(middleware::from_fn_with_state(self.clone(), count))
            .fallback(nothing_here)
            .with_state(self)
    }
}

async fn nothing_here() -> Refusal {
    let mut refusal = Refusal::new(
        Code::BadRequest,
        "there is POST /v1/credential, GET /v1/watch and GET /v1/policy, and nothing else",
    );
    refusal.0.status = StatusCode::NOT_FOUND.as_u16();
    refusal
}

/// Counts what came of it. A refusal is known by its code, which [`Refusal`] leaves with the answer.
async fn count(State(broker): State<Broker>, request: Request, next: Next) -> Response {
    let route = match request.uri().path() {
        WATCH => "watch",
        POLICY => "policy",
        _ => "credential",
    };
    let response = next.run(request).await;
    let outcome = response.extensions().get::<Code>().map_or("ok", |code| code.as_str());
    broker.parts().metrics.requests.with_label_values(&[route, outcome]).inc();
    response
}
