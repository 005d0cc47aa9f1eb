//! Out to the provider and back: send, wait within the limit, hand the answer on as it comes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Response, StatusCode, Version};
use tower::ServiceExt;

use super::{
    answer::Answer,
    body::ByteCount,
    gather, place,
    record::Record,
    refusal::{Code, Refusal},
    scrub, strip,
    upstream::{self, Outbound, Upstream},
};
use crate::{credential::Credential, host::Host};

/// Sends the request and waits for the head of the answer.
///
/// # Errors
/// `upstream_unreachable`, `upstream_tls`, `upstream_timeout`, `destination_denied` for the address, or
/// `bad_request` where it was the agent's body that broke off or did not come.
pub(super) async fn send(
    upstream: &Upstream,
    outbound: Outbound,
    limit: Duration,
    record: &mut Record,
) -> Result<Response<upstream::Body>, Refusal> {
    let started = Instant::now();
    let host = outbound.host().clone();
    let switches = outbound.is_upgrade();
    let answered = within(limit, &record.bytes_in(), upstream.clone().oneshot(outbound)).await;
    let response = answered.and_then(|response| response).map_err(|error| {
        if record.bytes_in().was_cut() {
            return Refusal::bad_request("the body broke off, or its chunks cannot be read");
        }
        if matches!(error, upstream::Error::Timeout) && record.bytes_in().is_awaited() {
            return gather::silent(limit);
        }
        tracing::warn!(action = %record.id(), %host, error = error_chain(&error), "no answer from the provider");
        refusal(&error, &host, limit)
    })?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !switches {
        // What follows would be no HTTP, neither from the provider nor to the agent. Dropped, the connection is closed.
        return Err(refusal(&upstream::Error::Unasked, &host, limit));
    }
    record.answered(response.status().as_u16(), started.elapsed());
    Ok(response)
}

/// Waits for the answer's head, but not longer than `limit` after the last byte that the agent sent: a long
/// upload is not a slow answer.
async fn within<F>(limit: Duration, sent: &ByteCount, answer: F) -> Result<F::Output, upstream::Error>
where
    F: Future,
{
    let mut answer = std::pin::pin!(answer);
    let mut before = sent.total();
    loop {
        match tokio::time::timeout(limit, &mut answer).await {
            Ok(output) => return Ok(output),
            Err(_) if sent.total() > before => before = sent.total(),
            Err(_) => return Err(upstream::Error::Timeout),
        }
    }
}

/// Hands the provider's answer to the agent: its status and body, its head without what belongs to this hop.
#[must_use]
pub(super) fn answer(
    response: Response<upstream::Body>,
    credential: Arc<Credential>,
    record: Box<Record>,
) -> Response<Answer> {
    let (mut parts, body) = response.into_parts();
    strip::answer_head(&mut parts.headers);
    scrub::headers(&mut parts.headers, credential.needles());
    // Ours, not the provider's (RFC 9110 §2.5). By its 1.0 an agent could not tell a stream's end from its being cut off.
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Response::from_parts(parts, Answer::theirs(body, credential, record))
}

/// What the agent is told of an error on the way to the provider.
pub(super) fn refusal(error: &upstream::Error, host: &Host, limit: Duration) -> Refusal {
    use upstream::Error;
    let (code, detail) = match error {
        Error::Address(refused) => return place::address_refused(host, refused),
        Error::Resolve(_) => (Code::UpstreamUnreachable, format!("the name {host} could not be resolved")),
        Error::Connect(_) => (Code::UpstreamUnreachable, format!("{host} did not accept the connection")),
        Error::Unreadable(why) => {
            (Code::UpstreamUnreachable, format!("{host} answered what cannot be used: {why}"))
        }
        Error::Unasked => (
            Code::UpstreamUnreachable,
            format!("{host} switched to another protocol, which nobody asked for"),
        ),
        Error::Http(_) => (Code::UpstreamUnreachable, format!("{host} broke off before it answered")),
        Error::Tls(_) => (
            Code::UpstreamTls,
            format!(
                "the certificate of {host} was not accepted or TLS failed; an operator finds the reason in the log, and sets egress.roots if the provider has its own CA"
            ),
        ),
        Error::Timeout => {
            (Code::UpstreamTimeout, format!("{host} did not answer within {} s", limit.as_secs_f32()))
        }
    };
    Refusal::new(code, format!("{}: {detail}", code.as_str())).with("host", host.to_string())
}

/// An error and its causes, for the log.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
