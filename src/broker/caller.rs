//! Who asks: the workload that a request's token proves, with room for the request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::{Broker, refusal::Refusal, room::Peer};
use crate::{
    credential::wire::{Code, LONGEST_TOKEN},
    identity::{Proven, Unproven, Workload, bearer},
};

/// A workload that has proved itself, is bound to something, and has room for this request.
pub(super) struct Caller {
    pub(super) proven: Proven,
    pub(super) peer: Arc<Peer>,
}

impl Caller {
    pub(super) const fn workload(&self) -> &Workload {
        &self.proven.workload
    }
}

impl FromRequestParts<Broker> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, broker: &Broker) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers).filter(|token| token.len() <= LONGEST_TOKEN).ok_or_else(|| {
            Refusal::new(Code::WorkloadInvalid, "send the workload's token: Authorization: Bearer, once")
        })?;
        let proven = broker.parts().workloads.verify(token).await.map_err(|unproven| {
            if let Unproven::Invalid(why) = &unproven {
                tracing::info!(%why, "a workload's token is not believed");
            }
            Refusal::from(unproven)
        })?;
        let peer = parts.extensions.get::<Arc<Peer>>().cloned().unwrap_or_default();
        peer.enter(&proven.workload, &broker.0.rooms)?;
        if !broker.is_bound(&proven.workload) {
            let detail = format!("no binding names the workload {}", proven.workload);
            return Err(Refusal::new(Code::IdentityNotAllowed, detail));
        }
        Ok(Self { proven, peer })
    }
}

impl Broker {
    /// Whether any binding names the workload, by the rules in use.
    pub(super) fn is_bound(&self, workload: &Workload) -> bool {
        self.parts().rules.current().bindings.binds(workload)
    }
}
