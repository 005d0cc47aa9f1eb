//! `http://keybearer.internal/`: what an agent may ask the proxy itself.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};

use super::{
    Proxy,
    answer::Answer,
    arrival::Arrival,
    record::Record,
    refusal::{Code, Refusal},
};
use crate::host::Host;

const NAME: &str = "keybearer.internal";

/// Whether a host is the proxy's own.
#[must_use]
pub(super) fn is_ours(host: &Host) -> bool {
    host.name() == Some(NAME)
}

/// Answers `GET /ca.pem`, which needs no identity: it is what an agent needs before it can speak TLS.
///
/// # Errors
/// `operation_unknown` for everything else.
pub(super) fn answer(
    proxy: &Proxy,
    arrival: &Arrival,
    record: &mut Record,
) -> Result<Response<Answer>, Refusal> {
    match (&arrival.method, arrival.path.as_str()) {
        (&Method::GET | &Method::HEAD, "/ca.pem") => {
            record.allowed_by(NAME);
            record.answered_by_us(200);
            let pem = Bytes::from(proxy.ca_pem.clone());
            record.sent(pem.len());
            let mut response = Response::new(Answer::ours(pem));
            let mime = HeaderValue::from_static("application/x-pem-file");
            response.headers_mut().insert(header::CONTENT_TYPE, mime);
            Ok(response)
        }
        (method, path) => Err(Refusal::new(
            Code::OperationUnknown,
            format!("operation_unknown: http://{NAME}/ answers GET /ca.pem, not {method} {path}"),
        )
        .with("connector", NAME)
        .with("method", method.as_str())
        .with("path", path)),
    }
}
