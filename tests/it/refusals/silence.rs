//! Agents that begin and then go silent, and those that have too much under way.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Refusal, faults::unavailable};
use crate::support::{
    agent::{Answer, Body, absolute, identity},
    stage::{HOST, Stage, Staging},
};

async fn with(config: &str) -> Stage {
    Stage::set(Staging { config: config.to_owned(), ..Staging::default() }).await
}

/// The answer to a head whose body never comes. The connection ends with it.
async fn unfinished(stage: &Stage, line: &str, host: &str, fields: &str) -> Answer {
    let mut stream = TcpStream::connect(stage.proxy()).await.unwrap();
    let who = identity("acme", "publisher");
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {host}\r\nAgent-Identity: {who}\r\nConnection: close\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let headers = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Answer { status, headers, body: body.to_owned().into(), trailers: None }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let stage = with("limits: {idle_timeout: 50ms, upstream_timeout: 1s}\n").await;
    let form = format!("POST http://{HOST}/echo");
    let upload = format!("PUT http://{HOST}/upload");
    let get = format!("GET http://{HOST}/echo");
    for (line, host, fields, seconds, decision) in [
        (form.as_str(), HOST, FORM, "0.05", "deny"),
        (
            "POST http://keybearer.internal/v1/preflight",
            "keybearer.internal",
            "Content-Length: 10\r\n",
            "0.05",
            "deny",
        ),
        (&get, HOST, "Transfer-Encoding: chunked\r\n", "0.05", "deny"),
        (&upload, HOST, "Content-Length: 10\r\n", "1", "allow"), // what there was of it had left
    ] {
        let answer = unfinished(&stage, line, host, fields).await;
        let why = format!("nothing came of the body for {seconds} s");
        let refusal = Refusal {
            status: 400,
            code: "bad_request",
            proxy_error: "http_request_error",
            members: json!({"why": why}),
        };
        refusal.check(&stage, &answer).await;
        let event = stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
        assert_eq!(event["decision"], decision, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_a_quarter_of_the_audits_room_and_leaves_the_rest_to_others() {
    let stage = with("audit: {room: 8}\n").await;
    let request = |tenant, path| {
        let asked = absolute("GET", &format!("http://{HOST}{path}"));
        asked.header("agent-identity", identity(tenant, "researcher")).body(Body::default()).unwrap()
    };
    let (mut one, mut other) = (stage.direct().await, stage.direct().await);
    let first = one.send(request("acme", "/stream/1/paced")).await.unwrap();
    let second = other.send(request("acme", "/stream/1/paced")).await.unwrap();
    let answer = stage.direct().await.call(request("acme", "/echo")).await;
    let refusal = Refusal { proxy_error: "connection_limit_reached", ..unavailable("overloaded") };
    refusal.check(&stage, &answer).await;
    assert!(answer.text().contains("audit.room"));
    assert_eq!(stage.direct().await.call(request("globex", "/echo")).await.status, 200);
    assert_eq!(stage.provider.requests().len(), 3);
    drop((first, one));
    while stage.direct().await.call(request("acme", "/echo")).await.status != 200 {
        tokio::task::yield_now().await;
    }
    drop(second);
}
