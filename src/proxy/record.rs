//! The audit record of one request: opened before anything is decided, emitted by `Drop`, so that an early
//! return, a panic and an agent that hangs up are all recorded, with final byte counts (law 8).

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;

use super::{
    arrival::Arrival,
    body::{ByteCount, Late},
    metrics::Metrics,
    refusal::{Code, Refusal},
    strip::Stripped,
    visit::Exchange,
};
use crate::{
    audit::{Decision, Event, Kind, RequestPath, Slot, Took},
    catalog::Route,
    credential::Credential,
    drain::Share,
    host::Target,
    id::{ActionId, ConnectorName, TenantId},
    identity::{Identity, Workload},
    policy::{Denial, Permit},
};

/// One action, from its first line to the last byte of its answer.
pub(super) struct Record {
    id: ActionId,
    slot: Option<Slot>,
    share: Option<Share<Option<TenantId>>>,
    event: Event,
    metrics: Arc<Metrics>,
    started: Instant,
    waited: Option<Duration>,
    begun: bool,
    bytes_in: ByteCount,
    late: Late,
    bytes_out: u64,
    admitted: bool,
    /// Ends with it.
    exchange: Option<Exchange>,
}

impl Record {
    /// Opens the record of a request.
    #[must_use]
    pub(super) fn open(slot: Option<Slot>, metrics: &Arc<Metrics>) -> Box<Self> {
        let id = ActionId::now();
        Box::new(Self {
            id,
            slot,
            share: None,
            event: Event { id: Some(id), kind: Kind::Action, ..Event::default() },
            metrics: Arc::clone(metrics),
            started: Instant::now(),
            waited: None,
            begun: false,
            bytes_in: ByteCount::default(),
            late: Late::default(),
            bytes_out: 0,
            admitted: false,
            exchange: None,
        })
    }

    /// The action's id.
    #[must_use]
    pub(super) const fn id(&self) -> ActionId {
        self.id
    }

    /// How long ago the request began.
    #[must_use]
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the body from the agent is counted with.
    #[must_use]
    pub(super) fn bytes_in(&self) -> ByteCount {
        self.bytes_in.clone()
    }

    /// Where what is taken out of the request's trailers is told.
    #[must_use]
    pub(super) fn late(&self) -> Late {
        self.late.clone()
    }

    /// Keeps a tenant's share of the room for as long as the action lasts.
    pub(super) fn hold(&mut self, share: Share<Option<TenantId>>) {
        self.share = Some(share);
    }

    /// Counts bytes that go to the agent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The exchange that goes on until the record ends.
    pub(super) fn during(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }

    /// What was tried, where it has no single reading.
    pub(super) fn attempted(&mut self, method: &Method, target: Option<&Target>) {
        self.event.method = Some(method.clone());
        self.led_to(target);
    }

    /// Where its connection leads, where that is all there is.
    pub(super) fn led_to(&mut self, target: Option<&Target>) {
        self.event.host = target.cloned();
    }

    /// What was asked, in its one reading.
    pub(super) fn arrived(&mut self, arrival: &Arrival) {
        self.event.method = Some(arrival.method.clone());
        let port = arrival.port.unwrap_or(443);
        self.event.host = Some(Target { host: arrival.host.clone(), port });
        self.event.path = Some(RequestPath { template: None, canonical: Some(arrival.path.as_str().into()) });
    }

    /// A tunnel that is passed through.
    pub(super) fn tunnelled(&mut self, target: &Target, revision: &Arc<str>) {
        self.attempted(&Method::CONNECT, Some(target));
        self.event.policy_revision = Some(Arc::clone(revision));
    }

    /// Who asked.
    pub(super) fn identified(&mut self, identity: &Identity, workload: &Workload) {
        let subject = &identity.subject;
        self.event.tenant = Some(subject.tenant.clone());
        self.event.role = Some(subject.role.clone());
        self.event.user.clone_from(&subject.user);
        self.event.agent.clone_from(&identity.agent);
        self.event.chain.clone_from(&identity.chain);
        self.event.delegation.clone_from(&identity.delegation);
        self.event.workload = Some(super::workload_text(workload));
    }

    /// They may speak for whom they name.
    pub(super) const fn admitted(&mut self) {
        self.admitted = true;
    }

    /// What of, and by which policy it will be decided.
    pub(super) fn classified(&mut self, target: &Target, connector: &ConnectorName, revision: &Arc<str>) {
        self.event.host = Some(target.clone());
        self.event.connector = Some(connector.clone());
        self.event.policy_revision = Some(Arc::clone(revision));
    }

    /// Which operation it is, and by which of its templates.
    pub(super) fn matched(&mut self, route: &Route) {
        self.event.operation = Some(route.operation.name.clone());
        self.event.effect = Some(route.operation.effect);
        self.event.scopes_required = Some(route.operation.scopes.to_vec());
        if let Some(path) = &mut self.event.path {
            path.template = Some(Arc::clone(&route.template));
        }
    }

    /// The policy said yes.
    pub(super) fn permitted(&mut self, permit: &Permit) {
        self.event.decision =
            Some(if permit.would_deny().is_some() { Decision::WouldDeny } else { Decision::Allow });
        self.event.error = permit.would_deny().map(|denial| denial.code().into());
        self.event.rule = Some(permit.would_deny().map_or_else(|| permit.rule(), Denial::rule).to_shared());
        self.event.principal = Some(permit.account().principal.clone());
        self.event.scopes_granted = Some(permit.granted().to_vec());
    }

    /// An operator's rule outside the policy said yes.
    pub(super) fn allowed_by(&mut self, rule: &'static str) {
        self.event.decision = Some(Decision::Allow);
        self.event.rule = Some(rule.into());
    }

    /// The policy said no.
    pub(super) fn denied(&mut self, denial: &Denial) {
        self.event.rule = Some(denial.rule().to_shared());
        self.event.scopes_granted = denial.shortfall().map(|shortfall| shortfall.granted.clone());
    }

    /// Whose credential it will carry.
    pub(super) fn resolved(&mut self, credential: &Credential) {
        self.event.account = credential.label().cloned();
        self.event.authorization = credential.authorization().cloned();
        self.event.generation = credential.generation();
    }

    /// What was taken out of it.
    pub(super) fn stripped(&mut self, stripped: Stripped) {
        self.event.stripped = stripped;
    }

    /// Makes sure that the action is on record before it leaves (in `sync` durability; else the room that is
    /// reserved has to do).
    ///
    /// # Errors
    /// `audit_unavailable`.
    pub(super) async fn begin(&mut self) -> Result<(), Refusal> {
        let Some(slot) = &mut self.slot else { return Err(unrecordable()) };
        slot.begin(&self.event).await.map_err(|error| {
            tracing::error!(action = %self.id, %error, "an action could not be recorded and is not sent");
            unrecordable()
        })?;
        self.begun = true;
        Ok(())
    }

    /// The provider answered.
    pub(super) fn answered(&mut self, status: u16, waited: Duration) {
        self.event.status = Some(status);
        self.waited = Some(waited);
    }

    /// An answer of our own that is no refusal.
    pub(super) fn answered_by_us(&mut self, status: u16) {
        self.event.status = Some(status);
    }

    /// How long the provider took to begin its answer.
    #[must_use]
    pub(super) const fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// Whether there is room in the audit for it. Without, the request must be refused.
    #[must_use]
    pub(super) const fn is_recordable(&self) -> bool {
        self.slot.is_some()
    }

    /// Something cut the exchange short after it was allowed.
    pub(super) fn broke_off(&mut self, error: &'static str) {
        self.event.error = Some(Cow::Borrowed(error));
    }

    /// The proxy refused.
    pub(super) fn refused(&mut self, refusal: &Refusal, status: u16) {
        // What an agent broke off half way was allowed, and the provider may have heard the first half.
        let cut = self.begun && refusal.code() == Code::BadRequest;
        if refusal.code().fault() != super::refusal::Fault::Upstream && !cut {
            self.event.decision = Some(Decision::Deny);
        }
        self.event.error = Some(Cow::Borrowed(refusal.code().as_str()));
        self.event.status = Some(status);
        tracing::debug!(action = %self.id, error = refusal.code().as_str(), detail = refusal.detail(), "refused");
    }
}

/// The refusal of what cannot be recorded.
#[must_use]
pub(super) fn unrecordable() -> Refusal {
    Refusal::new(
        Code::AuditUnavailable,
        "audit_unavailable: the action cannot be recorded, so it was not sent; try again when the audit log can be written",
    )
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.elapsed();
        self.event.ms = Some(Took { total, upstream: self.waited });
        self.event.bytes_in = Some(self.bytes_in.total());
        self.event.bytes_out = Some(self.bytes_out);
        self.event.stripped.extend(self.late.take());
        if self.event.decision.is_none() {
            self.event.decision = Some(Decision::Deny);
        }
        if self.event.status.is_none() && self.event.method.as_ref() != Some(&Method::CONNECT) {
            // Nothing was answered: an agent that hung up, or a panic.
            self.event.error.get_or_insert(Cow::Borrowed("interrupted"));
        }
        self.metrics.finished(&self.event, self.admitted, total, self.waited);
        if let Some(slot) = self.slot.take() {
            slot.emit(std::mem::take(&mut self.event));
        }
    }
}
