//! Security events (Shared Signals Framework), pushed as RFC 8935 has it: an identity provider says that a user's
//! sessions were ended, that a credential changed, that an account was disabled or enabled.
//!
//! A token is believed when a key of its transmitter signed it for us, not long ago, and for the first time. What
//! cannot be acted upon is answered with 503, so that it is sent again; what was, is answered with 202, also when it is
//! sent again.

mod config;
mod error;
mod receiver;
mod set;
mod subject;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    routing::post,
};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use tokio::time::timeout;

pub use self::{
    config::{Config, Naming},
    set::EventType,
};
use self::{error::Refused, receiver::Receiver};
use super::{Error, lifecycle::Refusals, scim::Directory};
use crate::{drain::Drain, identity::FetchJwks, secret::Secret};

/// More than any event.
const LARGEST_BODY: usize = 64 << 10;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

struct Served {
    receiver: Receiver,
    refusals: Refusals,
}

/// `POST /ssf/events`.
///
/// # Errors
/// Where keys or tokens cannot be read, or an entry makes no sense.
pub(super) fn router(
    configs: &[Config],
    directory: Directory,
    fetch: &FetchJwks,
    drain: &Drain,
) -> Result<Router, Error> {
    let receiver = Receiver::open(configs, directory, fetch, drain)?;
    let served = Arc::new(Served { receiver, refusals: Refusals::new("ssf.refused") });
    Ok(Router::new().route("/ssf/events", post(events)).with_state(served))
}

async fn events(State(served): State<Arc<Served>>, request: Request) -> Result<StatusCode, Refused> {
    match receive(&served, request).await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(refused) => {
            if let Some(code) = refused.code() {
                served.refusals.record(served.receiver.desk(), code).await;
            }
            Err(refused)
        }
    }
}

async fn receive(served: &Served, request: Request) -> Result<(), Refused> {
    if !is_event(request.headers()) {
        return Err(Refused::Request("the Content-Type is not application/secevent+jwt"));
    }
    let (parts, body) = request.into_parts();
    let collected = timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await;
    let Ok(Ok(body)) = collected else {
        return Err(Refused::Request("the body did not arrive, or is longer than 64 KiB"));
    };
    let token = Secret::new(body.to_bytes().trim_ascii().to_vec());
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    served.receiver.receive(&parts.headers, token, now).await
}

/// RFC 8935 §2.1. Parameters are not looked at.
fn is_event(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/secevent+jwt")
}
