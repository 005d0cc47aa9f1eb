//! Connections on which nothing goes on are not kept (`limits.idle_timeout`).

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{empty, request, tunnel};
use crate::support::stage::{Stage, Staging};

const LIMITS: &str = "limits: {idle_timeout: 200ms, handshake_timeout: 200ms}\n";
/// The first letter of POST is the first of HTTP/2's preface, which an empty SETTINGS follows.
const BEGUN: [&[u8]; 4] =
    [b"P", b"PRI * HT", b"GET ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"];

async fn stage() -> Stage {
    Stage::set(Staging { config: LIMITS.to_owned(), ..Staging::default() }).await
}

/// Says this and nothing else, until the proxy ends the connection.
async fn said(mut agent: TcpStream, begun: &[u8]) {
    agent.write_all(begun).await.unwrap();
    let ended = timeout(Duration::from_mins(1), agent.read_to_end(&mut Vec::new())).await;
    assert!(matches!(ended, Ok(Ok(_))), "{}: {ended:?}", String::from_utf8_lossy(begun));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_begins_and_does_not_go_on_is_ended() {
    let stage = stage().await;
    for begun in BEGUN {
        said(TcpStream::connect(stage.proxy()).await.unwrap(), begun).await;
        said(stage.connected("api.crm.test:80", "").await, begun).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_with_an_open_answer_is_kept() {
    let stage = stage().await;
    let mut agent = tunnel(&stage, "h2").await;
    let events = agent.send(empty(request(&agent, "GET", "/stream/1/paced"))).await.unwrap();
    for _ in 0..2 {
        // Each takes the limit at least.
        said(TcpStream::connect(stage.proxy()).await.unwrap(), BEGUN[3]).await;
    }
    assert_eq!(agent.call(empty(request(&agent, "GET", "/echo"))).await.status, 200);
    stage.provider.pace().step();
    assert_eq!(events.into_body().collect().await.unwrap().to_bytes(), "data: event 0\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_letters_of_a_request_may_come_one_by_one() {
    let stage = Stage::open().await;
    let mut agent = TcpStream::connect(stage.proxy()).await.unwrap();
    agent.set_nodelay(true).unwrap();
    for letter in
        b"PRIVATE http://api.crm.test/echo HTTP/1.1\r\nHost: api.crm.test\r\nConnection: close\r\n\r\n"
    {
        agent.write_all(&[*letter]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    agent.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 407 "), "{answer}");
}
