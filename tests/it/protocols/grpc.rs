//! gRPC: HTTP/2 on both sides, messages opaque, the outcome in trailers.

use super::{pieces, request, tunnel};
use crate::support::{
    provider::Speaks,
    stage::{Stage, Staging},
};

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_status_pass_as_they_are() {
    for speaks in [Speaks::Http2, Speaks::Http1AndHttp2] {
        let stage = Stage::set(Staging { speaks, ..Staging::default() }).await;
        let mut agent = tunnel(&stage, "h2").await;
        for (path, message, times, status) in [
            ("/echo.Echo/Unary", "\0\0\0\0\x02ab", 1, "0"),
            ("/echo.Echo/Stream", "\0\0\0\0\x02ab", 3, "0"),
            ("/echo.Echo/Unary", "\0\0\0\0\x03ab", 1, "13"),
        ] {
            let asked = request(&agent, "POST", path)
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let (first, rest) = message.split_at(3);
            let answer = agent.call(asked.body(pieces(&[first, rest], &[])).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, message.repeat(times)));
            assert_eq!(answer.headers["content-type"], "application/grpc");
            assert_eq!(answer.trailers.unwrap()["grpc-status"], status);
        }
        assert!(stage.provider.requests().iter().all(|seen| seen.headers["te"] == "trailers"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_as_http_and_sends_nothing() {
    let stage = Stage::open().await;
    let mut agent = tunnel(&stage, "h2").await;
    let asked = request(&agent, "POST", "/echo.Echo/Unknown").header("content-type", "application/grpc");
    let answer = agent.call(asked.body(pieces(&["\0\0\0\0\0"], &[])).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (403, Some("operation_unknown")));
    assert_eq!(stage.provider.requests().len(), 0);
}
