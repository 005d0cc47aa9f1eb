//! `http://keybearer.internal/`: what an agent may ask the proxy itself.
//!
//! `/ca.pem` is for everyone: it is what an agent needs before it can speak TLS. The rest is answered for the
//! identity that asks and says nothing of any other.

mod inquiry;
mod operations;
mod preflight;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::Incoming;
use serde_json::Value;

use self::inquiry::Inquiry;
use super::{
    Proxy,
    answer::Answer,
    arrival::{Arrival, Entry},
    record::Record,
    refusal::{Code, Refusal},
};
use crate::{host::Host, ruleset::OwnPage};

const NAME: &str = OwnPage::HOST;

/// Whether a host is the proxy's own.
#[must_use]
pub(super) fn is_ours(host: &Host) -> bool {
    host.name() == Some(NAME)
}

/// A request to the proxy itself.
pub(super) struct Asked<'a> {
    /// How it came.
    pub(super) entry: &'a Entry,
    /// What it asks for.
    pub(super) arrival: &'a Arrival,
    /// Its head, which may say who asks.
    pub(super) headers: &'a HeaderMap,
    /// Its body.
    pub(super) body: Incoming,
}

fn page(arrival: &Arrival) -> Result<OwnPage, Refusal> {
    let (method, path) = (&arrival.method, &arrival.path);
    OwnPage::of(method, path).ok_or_else(|| {
        let says = format!("operation_unknown: http://{NAME}/ answers {}, not {method} {path}", OwnPage::ALL);
        Refusal::new(Code::OperationUnknown, says)
            .with("connector", NAME)
            .with("method", method.as_str())
            .with("path", path.as_str())
    })
}

/// Answers what is asked of the proxy itself. Nothing leaves for it.
///
/// # Errors
/// `operation_unknown` where there is no such page, what the identity is refused with, and what is wrong with the body.
pub(super) async fn answer(
    proxy: &Proxy,
    asked: Asked<'_>,
    record: &mut Record,
) -> Result<Response<Answer>, Refusal> {
    let page = page(asked.arrival)?;
    if matches!(page, OwnPage::Authority) {
        return Ok(respond("application/x-pem-file", Bytes::from(proxy.ca_pem.clone()), record));
    }
    let rules = proxy.ruleset()?;
    let identity = proxy.identify(asked.entry, asked.headers, &rules.bindings, record).await?;
    let mut inquiry = Inquiry::new(proxy, &rules, &identity);
    let told = match page {
        OwnPage::Preflight => {
            let gathering = proxy.gathering(&identity.subject.tenant);
            let items = preflight::read(asked.body, &gathering, record).await?;
            preflight::answer(&mut inquiry, items).await
        }
        OwnPage::Authority | OwnPage::Operations => operations::answer(&mut inquiry, asked.arrival).await,
    };
    Ok(respond("application/json", json(&told), record))
}

fn json(told: &Value) -> Bytes {
    let mut bytes = serde_json::to_vec_pretty(told).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

fn respond(mime: &'static str, body: Bytes, record: &mut Record) -> Response<Answer> {
    record.allowed_by(NAME);
    record.answered_by_us(200);
    record.sent(body.len());
    let mut response = Response::new(Answer::ours(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
