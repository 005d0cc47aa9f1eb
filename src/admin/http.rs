//! The TCP listener, and the admin API that it shares with the socket.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use prometheus::Registry;
use tokio::{net::TcpListener, time::timeout};
use zeroize::Zeroizing;

use super::{Command, Config, Desk, Error, Fault, Lifecycle, Reply, health::Health, page, server, token};
use crate::{
    audit::Audit,
    credential::Remote,
    drain::{Drain, Fair},
    host::{Authority, Host},
    identity::bearer,
    ruleset::Rules,
    secret::Secret,
    telemetry, vault,
};

/// More than the largest account: 32 fields of 64 KiB, with room for escapes.
const LARGEST_BODY: usize = 4 << 20;
/// How long a command may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the TCP listener serves.
pub struct Site(Router);

impl Site {
    /// Reads the token, where one is configured.
    ///
    /// # Errors
    /// [`Error::Token`], [`Error::TokenText`].
    pub fn new(desk: Desk, registry: Registry, config: &Config, lifecycle: Lifecycle) -> Result<Self, Error> {
        // A provider sends people back to a public name. What they bring nobody can guess.
        let callback = page::callback(desk.clone());
        let mut router = seen(registry, Health::of(&desk)).merge(page::router(desk.clone()));
        if let Some(token) = &config.token_file {
            let token = Arc::new(token::read(token)?);
            router = router.merge(api(desk).route_layer(middleware::from_fn_with_state(token, authorised)));
        }
        Ok(Self(ours(router).merge(callback).merge(lifecycle.into_router())))
    }

    /// Metrics and health and nothing else: where a broker has the accounts.
    #[must_use]
    pub fn at_broker(broker: Remote, audit: Audit, rules: Rules, registry: Registry) -> Self {
        Self(ours(seen(registry, Health::at_broker(broker, audit, rules))))
    }

    /// Serves until the drain begins.
    pub fn serve(self, listener: TcpListener, drain: &Drain) {
        let router = self.0.layer(middleware::map_response(quiet));
        drain.spawn(server::serve(Fair::new(listener, server::CONNECTIONS), router, drain.clone()));
    }
}

/// Metrics and health.
fn seen(registry: Registry, health: Health) -> Router {
    Router::new().route("/metrics", get(telemetry::metrics)).with_state(registry).merge(health.router())
}

/// What is served under names that are ours.
fn ours(router: Router) -> Router {
    router.fallback(nothing_here).layer(middleware::from_fn(known_host))
}

/// Serves the callback of consents and nothing else, until the drain begins.
pub fn serve_callback(desk: Desk, listener: TcpListener, drain: &Drain) {
    let router = page::callback(desk).fallback(nothing_here).layer(middleware::map_response(quiet));
    drain.spawn(server::serve(Fair::new(listener, server::CONNECTIONS), router, drain.clone()));
}

/// The admin API: `POST /v1/accounts` with a [`Command`], answered with a [`Reply`] or a [`Fault`].
pub(super) fn api(desk: Desk) -> Router {
    Router::new().route("/v1/accounts", post(execute)).with_state(desk)
}

/// The admin API where a broker has the accounts.
pub(super) fn elsewhere(broker: &str) -> Router {
    let detail = vault::Error::AtBroker(broker.to_owned()).to_string();
    let told = Fault { error: "accounts_elsewhere".to_owned(), detail };
    Router::new().route("/v1/accounts", post(async move || fault(StatusCode::MISDIRECTED_REQUEST, told)))
}

/// Whatever was asked, it is not here.
pub(super) async fn nothing_here() -> Response {
    let detail = "there is nothing here: see /metrics, /healthz and /readyz".to_owned();
    fault(StatusCode::NOT_FOUND, Fault { error: "not_found".to_owned(), detail })
}

async fn execute(State(desk): State<Desk>, request: Request) -> Response {
    let command = match read(request.into_body()).await {
        Ok(command) => command,
        Err(refused) => return refused,
    };
    match desk.execute(command).await {
        Ok(reply) => Json::<Reply>(reply).into_response(),
        Err(error) => {
            let told = Fault { error: error.code().to_owned(), detail: error.to_string() };
            fault(error.status(), told)
        }
    }
}

/// Reads a command into memory that is wiped. What is wrong with it is told by place only: the parser quotes.
async fn read(body: Body) -> Result<Command, Response> {
    let bad =
        |detail: String| fault(StatusCode::BAD_REQUEST, Fault { error: "bad_request".to_owned(), detail });
    let collected = timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await;
    let Ok(Ok(body)) = collected else {
        return Err(bad(format!("the body did not arrive, or is longer than {LARGEST_BODY} bytes")));
    };
    let text = Zeroizing::new(Vec::from(body.to_bytes()));
    serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        bad(format!("the body is no command from line {line}, column {column} on: see docs/admin-api.md"))
    })
}

async fn authorised(State(wanted): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    if bearer(request.headers()).is_some_and(|given| given == *wanted) {
        return next.run(request).await;
    }
    let detail = "send `Authorization: Bearer` with the token of admin.token_file".to_owned();
    let mut refused = fault(StatusCode::UNAUTHORIZED, Fault { error: "unauthorized".to_owned(), detail });
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// Against DNS rebinding: a page of another site, loaded into an operator's browser under a name that resolves
/// to us, sends that name. Names that only a cluster's or this machine's resolver gives out are ours.
async fn known_host(request: Request, next: Next) -> Response {
    let named = request.uri().host().map(str::as_bytes);
    let headers = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    if named.into_iter().chain(headers).all(is_known) {
        return next.run(request).await;
    }
    let detail = "use an address, localhost or a cluster's name for this listener".to_owned();
    fault(StatusCode::MISDIRECTED_REQUEST, Fault { error: "misdirected".to_owned(), detail })
}

fn is_known(host: &[u8]) -> bool {
    let authority = str::from_utf8(host).ok().and_then(|text| Authority::parse(text).ok());
    authority.is_some_and(|authority| is_ours(&authority.host))
}

/// Addresses; names without a dot, which no public resolver gives out; and those of loopback and Kubernetes.
fn is_ours(host: &Host) -> bool {
    host.name().is_none_or(|name| {
        !name.contains('.') || [".localhost", ".svc", ".cluster.local"].iter().any(|end| name.ends_with(end))
    })
}

/// No answer is for a cache, a frame or a guess at its type.
async fn quiet(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn fault(status: StatusCode, fault: Fault) -> Response {
    (status, Json(fault)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_anyone_can_register_is_not_ours() {
        for ours in [
            "127.0.0.1:7090",
            "[::1]:7090",
            "10.1.2.3",
            "localhost:7090",
            "keybearer",
            "kb.agents.svc",
            "kb.agents.svc.cluster.local:80",
        ] {
            assert!(is_known(ours.as_bytes()), "{ours}");
        }
        for other in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7090", "svc.evil", "", "a b"]
        {
            assert!(!is_known(other.as_bytes()), "{other}");
        }
    }
}
