//! Law 11. Nothing is collected on its way: events arrive one by one, uploads leave as they come, messages of a
//! WebSocket are neither altered nor kept.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, ext::Protocol, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::wire::{self, ACME, ALPNS, Wide, actions, asks, until};
use crate::support::{
    agent::{Answer, Body, Connection, absolute, identity, inside},
    provider::Speaks,
    stage::{HOST, Stage, Staging},
};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens a WebSocket through a tunnel: an upgrade in HTTP/1.1, an extended CONNECT in HTTP/2.
pub(super) async fn websocket(stage: &Stage, alpn: &str, fields: &[(&str, &str)]) -> Socket {
    let mut tunnel = stage.tunnel(HOST, alpn).await;
    let mut request =
        inside(&tunnel, "GET", HOST, "/ws").header("agent-identity", identity("acme", "researcher"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = request.header("sec-websocket-version", "13").body(Body::default()).unwrap();
    if let Connection::Two(_) = tunnel {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    } else {
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    let answer = tunnel.send(request).await.unwrap();
    let expected = if matches!(tunnel, Connection::Two(_)) { 200 } else { 101 };
    assert_eq!(answer.status(), expected, "{alpn}");
    if expected == 101 {
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

/// The ways in that a stream can take.
async fn streams(stage: &Stage) -> Vec<(&'static str, Connection, Request<Body>)> {
    let (one, two) = (stage.tunnel(HOST, ALPNS[0]).await, stage.tunnel(HOST, ALPNS[1]).await);
    let direct = absolute("GET", &format!("http://{HOST}/stream/4/paced"))
        .header("agent-identity", identity("acme", "researcher"));
    let (of_one, of_two) = (asks(&one, "GET", "/stream/4/paced"), asks(&two, "GET", "/stream/4/paced"));
    vec![
        ("absolute-form", stage.direct().await, direct.body(Body::default()).unwrap()),
        ("CONNECT, h1", one, of_one),
        ("CONNECT, h2", two, of_two),
    ]
}

async fn next(answer: &mut Response<Incoming>) -> Vec<u8> {
    answer.frame().await.unwrap().unwrap().into_data().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_before_the_next_is_sent() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let stage = Stage::set(Staging { speaks, ..Staging::default() }).await;
        for (way, mut connection, request) in streams(&stage).await {
            let mut answer = connection.send(request).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.headers()["content-type"].as_bytes()),
                (200, &b"text/event-stream"[..]),
                "{way}"
            );
            for number in 0..4 {
                stage.provider.pace().step();
                assert_eq!(
                    next(&mut answer).await,
                    format!("data: event {number}\n\n").into_bytes(),
                    "{way}"
                );
            }
            assert!(answer.collect().await.unwrap().to_bytes().is_empty(), "{way}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_arrives_before_the_first_byte_of_the_body() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let answer = tunnel.send(asks(&tunnel, "GET", "/stream/4/paced")).await.unwrap();
        assert_eq!(answer.status(), 200, "{alpn}: no event was sent yet");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_ends_like_a_secret_begins_is_not_kept_back() {
    for alpn in ALPNS {
        let script = wire::Script::bind().await;
        let stage =
            Stage::set(Staging { resolve: vec![(HOST.to_owned(), script.address())], ..Staging::default() })
                .await;
        let (tell, mut feeds) = tokio::sync::mpsc::unbounded_channel();
        script.serve(
            &stage.authority,
            (&[HOST], crate::support::provider::Validity::Current),
            alpn,
            move |_| {
                let (feed, body) = wire::fed();
                let _ = tell.send(feed);
                Response::new(body)
            },
        );
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let mut answer = tunnel.send(asks(&tunnel, "GET", "/echo")).await.unwrap();
        let feed = feeds.recv().await.unwrap();
        feed.data(format!("word {}", &ACME[..3]));
        let mut got = next(&mut answer).await;
        while got.len() < 8 {
            got.extend(next(&mut answer).await);
        }
        assert_eq!(got, format!("word {}", &ACME[..3]).into_bytes(), "{alpn}");
        feed.data("!");
        assert_eq!(next(&mut answer).await, b"!", "{alpn}: nothing was lost or doubled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_leaves_while_it_is_being_sent() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let stage = Stage::set(Staging { speaks, ..Staging::default() }).await;
        for alpn in ALPNS {
            let mut wide = Wide::open(&stage, alpn).await;
            let (feed, body) = wire::fed();
            let request = wide.request("POST", "/upload").body(body).unwrap();
            let asking = keybearer::drain::Drain::default()
                .spawn(async move { Answer::read(wide.send(request).await.unwrap()).await });
            let (piece, mut digest) = (vec![b'u'; 100_000], Sha256::new());
            let before = stage.provider.requests().len();
            for sent in 1..=10_u64 {
                digest.update(&piece);
                feed.data(piece.clone());
                until("the piece arrives", async || {
                    let seen = stage.provider.requests();
                    seen.get(before.max(1) - 1).map(|_| ())?;
                    seen.last().filter(|seen| seen.body.len == sent * 100_000).map(|_| ())
                })
                .await;
                assert!(!asking.is_finished());
            }
            drop(feed);
            let answer = asking.await.unwrap();
            let expected = wire::hex(&digest.finalize());
            assert_eq!(
                (answer.status.as_u16(), answer.json()["sha256"].as_str()),
                (200, Some(&*expected)),
                "{alpn}"
            );
        }
    }
}

/// Resident memory of this process, in bytes (proc(5), `VmRSS`).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_is_not_read_for() {
    const SIZE: usize = 512 << 20;
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let before = resident();
        let mut answer = tunnel.send(asks(&tunnel, "GET", &format!("/bytes/{SIZE}"))).await.unwrap();
        assert_eq!(answer.headers()["content-length"], SIZE.to_string());
        // Enough of it flows that whoever collected would have collected much more than is granted here.
        let mut read = 0;
        while read < SIZE / 8 {
            read += next(&mut answer).await.len();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < SIZE / 4, "{alpn}: {grown} bytes more after {read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_arrives_whole() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let answer = tunnel.call(asks(&tunnel, "GET", "/bytes/5000001")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 5_000_001), "{alpn}");
        assert!(answer.body.iter().all(|byte| *byte == b'k'), "{alpn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let mut request = asks(&tunnel, "GET", "/trailers");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = tunnel.call(request).await;
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "body\n"), "{alpn}");
        assert_eq!(answer.trailers.unwrap()["x-checksum"], "of-the-body", "{alpn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_messages_pass_one_by_one_and_unaltered() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut socket = websocket(&stage, alpn, &[]).await;
        let large: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for message in [
            Message::text("hello"),
            Message::text(""),
            Message::binary(vec![0, 255, 129, 126]),
            Message::text("ends like a secret: kb-"),
            Message::binary(large),
            Message::text("after"),
        ] {
            // Each is answered before the next is sent; a proxy that waited for more would wait for ever.
            socket.send(message.clone()).await.unwrap();
            let echo =
                tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("it is kept back");
            assert_eq!(echo.unwrap().unwrap(), message, "{alpn}");
        }
        socket.send(Message::Ping("p".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()), "{alpn}");
        socket.close(None).await.unwrap();
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_))) | None), "{alpn}");
    }
    let events = actions(&stage, 2).await;
    assert!(events.iter().all(|event| event["status"] == 101 && event["decision"] == "allow"), "{events:#?}");
}
