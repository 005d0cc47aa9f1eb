//! The request's way. Every way in comes here, before the first line of policy.
//!
//! Each step takes what the step before made, so the order cannot be changed without the compiler saying so:
//! no credential without a permit, no permit without an identity and a classified operation.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    ACTION, Proxy, TIMING,
    again::Again,
    answer::Answer,
    arrival::{Arrival, Entry},
    forward, internal,
    outbound::Departure,
    place::Place,
    record::{self, Record},
    refusal::{Code, Refusal},
    upstream::{self, Endpoint},
    visit::Exchange,
    websocket,
};
use crate::{
    credential::Credential,
    id::ActionId,
    identity::{Bindings, Identity},
    policy::Permit,
    ruleset::Ruleset,
};

impl Proxy {
    /// Answers one request: with the provider's answer, or with a refusal that says what to do.
    pub(super) async fn serve(&self, request: Request<Incoming>, exchange: Exchange) -> Response<Answer> {
        let entry = exchange.entry();
        let mut record = self.record().await;
        let (mut parts, body) = request.into_parts();
        let back = Back::read(&mut parts);
        match self.way(entry, parts, body, &mut record).await {
            Ok(passage) => {
                record.during(exchange);
                back.respond(self, passage, record)
            }
            Err(refusal) => refuse(record, &refusal, entry),
        }
    }

    /// Opens the record of an action, with room in the audit for it if there is any to be had.
    pub(super) async fn record(&self) -> Box<Record> {
        let slot = self.audit.reserve().await;
        if let Err(error) = &slot {
            tracing::error!(%error, "the audit takes no events");
        }
        Record::open(slot.ok(), &self.metrics)
    }

    /// normalize → identify → classify → decide → resolve → inject → forward.
    async fn way(
        &self,
        entry: &Entry,
        parts: Parts,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Passage, Refusal> {
        if !record.is_recordable() {
            return Err(record::unrecordable());
        }
        let read = check_length(&parts, self.limits.header_bytes).and_then(|()| Arrival::read(entry, &parts));
        let arrival = match read {
            Ok(arrival) => arrival,
            Err(refusal) => {
                self.attempted(entry, &parts, record).await;
                return Err(refusal);
            }
        };
        record.arrived(&arrival);
        if internal::is_ours(&arrival.host) {
            let asked = internal::Asked { entry, arrival: &arrival, headers: &parts.headers, body };
            return Box::pin(internal::answer(self, asked, record)).await.map(Passage::Ours);
        }
        let rules = self.ruleset()?;
        let identity = self.identify(entry, &parts.headers, &rules.bindings, record).await?;
        let place = Place::find(&rules, &arrival, &self.dialer)?;
        place.record(record);
        let permit = place.decide(&identity, record)?;
        let (credential, endpoint) = self.resolve(&permit, &place, record).await?;
        let departure =
            Departure { arrival: &arrival, connector: place.connector(), endpoint, credential: &credential };
        let outbound = departure.prepare(&permit, parts, body, self, record).await?;
        record.begin().await?;
        let again = Again::of(&permit, &place, &outbound, &credential);
        let response = forward::send(&self.upstream, outbound, self.limits.upstream_timeout, record).await?;
        let (response, credential) = if response.status() == StatusCode::UNAUTHORIZED {
            Box::pin(self.once_more(again, response, credential, record)).await
        } else {
            (response, credential)
        };
        Ok(Passage::Theirs { response, credential, websocket: arrival.websocket })
    }

    /// The rules that this request is decided by.
    ///
    /// # Errors
    /// `policy_unavailable` before any have come.
    pub(super) fn ruleset(&self) -> Result<Arc<Ruleset>, Refusal> {
        self.rules.in_use().ok_or_else(|| {
            let detail = "policy_unavailable: the proxy has not been given its policy yet, so nothing was decided and nothing was sent; try again";
            Refusal::new(Code::PolicyUnavailable, detail)
        })
    }

    /// Who asks, as far as the gate and the bindings believe it.
    ///
    /// # Errors
    /// What [`crate::identity::Error`] becomes.
    pub(super) async fn identify(
        &self,
        entry: &Entry,
        headers: &HeaderMap,
        bindings: &Bindings,
        record: &mut Record,
    ) -> Result<Arc<Identity>, Refusal> {
        let own = crate::identity::claimed(headers)?;
        let identity = self.gate.identify(own.as_ref().or_else(|| entry.claim())).await?;
        self.admit(&identity, bindings, record)?;
        Ok(identity)
    }

    /// Holds whoever asks to what it names: the bindings, its chain, and its tenant's share of the room.
    ///
    /// # Errors
    /// What [`crate::identity::Error`] becomes, and `overloaded`.
    pub(super) fn admit(
        &self,
        identity: &Identity,
        bindings: &Bindings,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        record.identified(identity, &self.workload);
        self.gate.admit(identity, &self.workload, bindings)?;
        record.admitted();
        self.gate.pin(identity, &self.workload)?;
        self.share(Some(&identity.subject.tenant), record)
    }

    /// Records what can be told of a request that has no single reading: who sent it, by what, and where its
    /// connection leads.
    async fn attempted(&self, entry: &Entry, parts: &Parts, record: &mut Record) {
        record.attempted(&parts.method, entry.target());
        let own = crate::identity::claimed(&parts.headers).ok().flatten();
        if let Ok(identity) = self.gate.identify(own.as_ref().or_else(|| entry.claim())).await {
            record.identified(&identity, &self.workload);
        }
    }

    async fn resolve(
        &self,
        permit: &Permit,
        place: &Place<'_>,
        record: &mut Record,
    ) -> Result<(Arc<Credential>, Endpoint), Refusal> {
        let refused = |error| self.credential_refusal(&error, permit, place.host());
        let connector = place.connector();
        let resolved = self.resolver.resolve(permit, connector, place.captured()).await;
        let credential = resolved.map_err(refused)?;
        record.resolved(&credential);
        let endpoint = place.endpoint(&credential)?;
        Ok((credential, endpoint))
    }
}

/// Holds heads to their limit: those of HTTP/2 counted as its `SETTINGS_MAX_HEADER_LIST_SIZE` is (RFC 9113 §6.5.2), those of
/// HTTP/1 as they are written, where the parser may take more that comes at once.
fn check_length(parts: &Parts, limit: usize) -> Result<(), Refusal> {
    let around = if parts.version == Version::HTTP_2 { 32 } else { ": \r\n".len() };
    let of_field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + around;
    let length = parts.headers.iter().map(of_field).sum::<usize>();
    if length <= limit { Ok(()) } else { Err(Refusal::long_head(limit)) }
}

/// What a request that was not refused is answered with.
enum Passage {
    Ours(Response<Answer>),
    Theirs { response: Response<upstream::Body>, credential: Arc<Credential>, websocket: bool },
}

/// What the way back needs of the request.
struct Back {
    version: Version,
    upgrade: Option<OnUpgrade>,
    timing: bool,
}

impl Back {
    fn read(parts: &mut Parts) -> Self {
        Self {
            version: parts.version,
            upgrade: parts.extensions.remove(),
            timing: parts.headers.get(TIMING).is_some_and(|value| value == "?1"),
        }
    }

    fn respond(self, proxy: &Proxy, passage: Passage, record: Box<Record>) -> Response<Answer> {
        let id = record.id();
        let waited = record.waited().unwrap_or_default();
        let own = record.elapsed().saturating_sub(waited);
        let mut response = match passage {
            Passage::Ours(response) => response,
            Passage::Theirs { response, credential, websocket } => {
                proxy.metrics.overhead(own);
                if websocket {
                    websocket::answer(proxy, response, (self.upgrade, self.version), credential, record)
                } else {
                    forward::answer(response, credential, record)
                }
            }
        };
        if self.timing {
            response.headers_mut().append("server-timing", server_timing(own, waited));
        }
        mark(response.headers_mut(), id);
        response
    }
}

/// The answer to a refused request; its record ends here.
pub(super) fn refuse(record: Box<Record>, refusal: &Refusal, entry: &Entry) -> Response<Answer> {
    refused(record, refusal, entry).map(Answer::ours)
}

/// The same, as it is sent.
pub(super) fn refused(mut record: Box<Record>, refusal: &Refusal, entry: &Entry) -> Response<Bytes> {
    let id = record.id();
    let mut response = refusal.clone().into_response(id, entry.addresses_proxy());
    record.refused(refusal, response.status().as_u16());
    record.sent(response.body().len());
    mark(response.headers_mut(), id);
    response
}

/// Names the action in an answer.
pub(super) fn mark(headers: &mut HeaderMap, id: ActionId) {
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert(ACTION, value);
    }
}

/// Durations in milliseconds (W3C Server Timing §2).
fn server_timing(own: Duration, upstream: Duration) -> HeaderValue {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let text = format!("keybearer;dur={:.3}, upstream;dur={:.3}", ms(own), ms(upstream));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
