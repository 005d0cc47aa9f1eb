//! A stop: what was accepted is finished, nothing new is taken, and what had to be cut off is counted.

use http_body_util::BodyExt as _;
use keybearer::drain::Drain;
use tokio::net::TcpStream;

use super::{empty, request, tunnel};
use crate::support::{
    agent::Answer,
    stage::{Stage, Staging},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_finished_and_nothing_new_is_taken() {
    let stage = Stage::open().await;
    let (proxy, pace) = (stage.proxy(), stage.provider.pace().clone());
    let mut slow = tunnel(&stage, "http/1.1").await;
    let asked = empty(request(&slow, "GET", "/slow-head"));
    let slow = Drain::default().spawn(async move { Answer::read(slow.send(asked).await.unwrap()).await });
    let mut streaming = tunnel(&stage, "h2").await;
    let events = streaming.send(empty(request(&streaming, "GET", "/stream/2/paced"))).await.unwrap();
    while stage.provider.requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    let stopping = Drain::default().spawn(stage.stop());
    while TcpStream::connect(proxy).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // What an agent sends before it hears of the stop is accepted, too (GOAWAY, RFC 9113 §6.8).
    while let Ok(late) = streaming.send(empty(request(&streaming, "GET", "/echo"))).await {
        assert_eq!(late.status(), 200);
    }
    assert!(!stopping.is_finished());
    for _ in 0..3 {
        pace.step();
    }
    let slow = slow.await.unwrap();
    assert_eq!((slow.text().as_str(), &slow.headers["connection"]), ("at last\n", &"close".parse().unwrap()));
    let events = events.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(events, "data: event 0\n\ndata: event 1\n\n");
    assert_eq!(stopping.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_counted() {
    let config = "limits: {drain: 50ms}\n".to_owned();
    let stage = Stage::set(Staging { config, ..Staging::default() }).await;
    let mut idle = tunnel(&stage, "h2").await;
    assert_eq!(idle.call(empty(request(&idle, "GET", "/echo"))).await.status, 200);
    let mut streaming = tunnel(&stage, "h2").await;
    let _events = streaming.send(empty(request(&streaming, "GET", "/stream/1/paced"))).await.unwrap();
    assert_eq!(stage.stop().await, 1);
}
