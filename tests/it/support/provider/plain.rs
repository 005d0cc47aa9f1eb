//! The plain endpoints: echo, upload, bytes, trailers, slow-head.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Extension, Path, Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Shared, access::Tenant, seen::hex};

/// Tells the request as it was received, credential and all, so that a test can see whether the proxy scrubs it.
pub(super) async fn echo(Extension(Tenant(tenant)): Extension<Tenant>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let headers: Vec<Value> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let path = head.uri.path_and_query().map(ToString::to_string);
    Json(json!({
        "tenant": tenant,
        "method": head.method.as_str(),
        "path": path,
        "authority": head.uri.authority().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
    }))
    .into_response()
}

/// Hashes a body of any length. Asked with `Expect: 100-continue`, hyper sends the 100 when the body is first polled.
pub(super) async fn upload(body: Body) -> Response {
    let mut chunks = body.into_data_stream();
    let (mut digest, mut len) = (Sha256::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return StatusCode::BAD_REQUEST.into_response() };
        digest.update(&chunk);
        len += chunk.len();
    }
    Json(json!({"sha256": hex(&digest.finalize()), "len": len})).into_response()
}

const CHUNK: usize = 64 * 1024;

/// That many bytes with their length declared, made as they are sent.
pub(super) async fn bytes(Path(count): Path<usize>) -> Response {
    static PATTERN: [u8; CHUNK] = [b'k'; CHUNK];
    let whole = stream::iter(0..count / CHUNK).map(|_| Bytes::from_static(&PATTERN));
    let rest = stream::iter([Bytes::from_static(&PATTERN[..count % CHUNK])]);
    let body = Body::from_stream(whole.chain(rest).map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_LENGTH, count)], body).into_response()
}

/// A body followed by the trailer `x-checksum`.
pub(super) async fn trailers() -> Response {
    let trailers = HeaderMap::from_iter([(
        header::HeaderName::from_static("x-checksum"),
        HeaderValue::from_static("of-the-body"),
    )]);
    let frames = stream::iter([Frame::data(Bytes::from_static(b"body\n")), Frame::trailers(trailers)]);
    let body = StreamBody::new(frames.map(Ok::<_, std::convert::Infallible>));
    ([(header::TRAILER, "x-checksum")], Body::new(body)).into_response()
}

/// Answers only when the test takes a step.
pub(super) async fn slow_head(State(shared): State<Shared>) -> &'static str {
    shared.pace.wait().await;
    "at last\n"
}
