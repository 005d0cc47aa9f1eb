//! gRPC by hand: five bytes of prefix, opaque messages, the outcome in trailers.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

static STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Answers the message it was sent.
pub(super) async fn unary(request: Request) -> Response {
    repeat(request, 1).await
}

/// Answers the message it was sent three times.
pub(super) async fn streaming(request: Request) -> Response {
    repeat(request, 3).await
}

async fn repeat(request: Request, times: usize) -> Response {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let Ok(body) = request.into_body().collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // Sent back as framed as it came; the prefix is checked, for a proxy that cuts a message must be noticed.
    let message = body.to_bytes();
    let status = if is_one_message(&message) { "0" } else { "13" };
    let trailers = HeaderMap::from_iter([(STATUS.clone(), HeaderValue::from_static(status))]);
    let messages = stream::iter(vec![message; times]).map(Frame::data);
    let frames = messages.chain(stream::iter([Frame::trailers(trailers)])).then(|frame| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(frame)
    });
    ([(header::CONTENT_TYPE, "application/grpc")], Body::new(StreamBody::new(frames))).into_response()
}

fn is_one_message(bytes: &Bytes) -> bool {
    let Some((prefix, message)) = bytes.split_first_chunk::<5>() else { return false };
    let [compressed, length @ ..] = *prefix;
    compressed == 0 && u32::from_be_bytes(length) as usize == message.len()
}
