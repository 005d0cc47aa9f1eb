//! Web sockets: an upgrade in HTTP/1.1, an extended CONNECT in HTTP/2 (RFC 8441).

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response};
use hyper::{body::Incoming, ext::Protocol};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::request;
use crate::support::{
    agent::{Body, Connection, absolute, identity},
    provider::Speaks,
    stage::{HOST, Stage, Staging},
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn upgrading(request: http::request::Builder) -> Request<Body> {
    let request = request
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", KEY);
    request.body(Body::default()).unwrap()
}

fn extended(uri: &str) -> Request<Body> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .extension(Protocol::from_static("websocket"))
        .header("agent-identity", identity("acme", "researcher"))
        .header("sec-websocket-version", "13")
        .body(Body::default())
        .unwrap()
}

/// Sends messages of several sizes and expects each back; then closes.
async fn converse(response: Response<Incoming>) {
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    for length in [0, 5, 125, 126, 65_536, 300_000] {
        let message = Message::binary(vec![b'w'; length]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
}

async fn is_recorded(stage: &Stage, id: &str) {
    let event = stage.action(id).await;
    assert_eq!((&event["status"], &event["operation"]), (&101.into(), &"events".into()));
    assert!(event["bytes_in"].as_u64().unwrap() > 365_000 && event["bytes_out"].as_u64().unwrap() > 365_000);
}

async fn over_h1(stage: &Stage, mut agent: Connection, asked: http::request::Builder) {
    let response = agent.send(upgrading(asked)).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], derive_accept_key(KEY.as_bytes()));
    assert_eq!(response.headers()["upgrade"], "websocket");
    let id = response.headers()["keybearer-action"].to_str().unwrap().to_owned();
    converse(response).await;
    is_recorded(stage, &id).await;
}

async fn over_h2(stage: &Stage, mut agent: Connection, uri: &str) {
    // By the first answer the agent has the proxy's SETTINGS, which permit an extended CONNECT.
    let first = request(&agent, "GET", "/echo").body(Body::default()).unwrap();
    assert_eq!(agent.call(first).await.status, 200);
    let response = agent.send(extended(uri)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let id = response.headers()["keybearer-action"].to_str().unwrap().to_owned();
    converse(response).await;
    is_recorded(stage, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_in_every_way_in() {
    for speaks in [Speaks::Http1, Speaks::Http1AndHttp2] {
        let stage = Stage::set(Staging { speaks, ..Staging::default() }).await;
        let direct = absolute("GET", "http://api.crm.test/ws")
            .header("agent-identity", identity("acme", "researcher"));
        over_h1(&stage, stage.direct().await, direct).await;
        let agent = stage.tunnel(HOST, "http/1.1").await;
        let asked = request(&agent, "GET", "/ws");
        over_h1(&stage, agent, asked).await;
        over_h2(&stage, stage.tunnel(HOST, "h2").await, "https://api.crm.test/ws").await;
        over_h2(&stage, super::forms::prior_knowledge(&stage).await, "http://api.crm.test/ws").await;
        let seen = stage.provider.requests();
        assert!(
            seen.iter().filter(|seen| seen.path == "/ws").all(|seen| seen.tenant.as_deref() == Some("acme"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_websocket_gets_the_refusal_and_no_switch() {
    let stage = Stage::open().await;
    let mut agent = stage.tunnel(HOST, "http/1.1").await;
    let answer = agent.call(upgrading(request(&agent, "GET", "/nowhere"))).await;
    assert_eq!(answer.error().as_deref(), Some("operation_unknown"));
    let mut agent = stage.tunnel(HOST, "h2").await;
    let first = request(&agent, "GET", "/nowhere").body(Body::default()).unwrap();
    assert_eq!(agent.call(first).await.status, 403);
    let answer = agent.call(extended("https://api.crm.test/nowhere")).await;
    assert_eq!(answer.error().as_deref(), Some("operation_unknown"));
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_switch_is_answered_from() {
    let stage = Stage::open().await;
    let mut agent = stage.tunnel(HOST, "http/1.1").await;
    let answer = agent.call(upgrading(request(&agent, "GET", "/echo"))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["path"]), (200, &"/echo".into()));
}
