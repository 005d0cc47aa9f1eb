//! What is refused because of this proxy: it fails closed, says so, and goes on when it can again.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Answer, Asked, Body, Refusal, Way};
use crate::support::{
    agent::{absolute, identity},
    stage::{Stage, Staging},
};

pub(super) fn unavailable(code: &str) -> Refusal<'_> {
    Refusal { status: 503, code, proxy_error: "proxy_internal_error", members: json!({}) }
}

async fn with(config: &str) -> Stage {
    Stage::set(Staging { config: config.to_owned(), ..Staging::default() }).await
}

/// Changes the last byte of every sealed account.
fn tamper(vault: &std::path::Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let db = loop {
        match sled::open(vault) {
            Ok(db) => break db,
            // sled's threads give its lock up a moment after it was closed.
            Err(_) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let rows: Vec<_> = db.scan_prefix(b"a").map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    for (key, value) in rows {
        let mut value = value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        db.insert(key, value).unwrap();
    }
    db.flush().unwrap();
}

fn vault_folder(dir: &std::path::Path) -> std::path::PathBuf {
    let data = dir.join("data");
    let is_vault = |path: &std::path::PathBuf| path.join("acknowledged").exists();
    std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).find(is_vault).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_open_is_never_replaced_by_nothing() {
    let mut stage = Stage::open().await;
    stage.restart(|dir| tamper(&vault_folder(dir))).await;
    for way in Way::ALL {
        let answer = way.ask(&stage, &Asked::of("acme", "researcher", "GET", "/echo")).await;
        unavailable("vault_unavailable").check(&stage, &answer).await;
    }
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_in_the_audit_nothing_is_sent_until_there_is_room_again() {
    let stage = with("audit: {room: 1, patience: 20ms}\n").await;
    let mut slow = stage.direct().await;
    let request = absolute("GET", "http://api.crm.test/stream/1/paced")
        .header("agent-identity", identity("acme", "researcher"));
    let streaming = slow.send(request.body(Body::default()).unwrap()).await.unwrap();
    for way in Way::ALL {
        let answer = way.ask(&stage, &Asked::of("acme", "researcher", "GET", "/echo")).await;
        unavailable("audit_unavailable").check_answer(&answer);
    }
    assert_eq!(stage.provider.requests().len(), 1);
    stage.provider.pace().step();
    let streamed = Answer::read(streaming).await;
    stage.action(streamed.headers["keybearer-action"].to_str().unwrap()).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_moved_away_stops_everything_until_it_is_back() {
    let stage = with("audit: {durability: sync}\n").await;
    let (log, aside) = (stage.dir().join("data/audit.jsonl"), stage.dir().join("data/aside.jsonl"));
    let mut slow = stage.direct().await;
    let request = absolute("GET", "http://api.crm.test/stream/1/paced")
        .header("agent-identity", identity("acme", "researcher"));
    let streaming = slow.send(request.body(Body::default()).unwrap()).await.unwrap();
    std::fs::rename(&log, &aside).unwrap();
    for way in Way::ALL {
        let answer = way.ask(&stage, &Asked::of("acme", "researcher", "GET", "/echo")).await;
        unavailable("audit_unavailable").check_answer(&answer);
    }
    assert_eq!(stage.provider.requests().len(), 1);
    // The intent of this one is on the disk, in a file of its own; what became of it can only wait.
    stage.provider.pace().step();
    let streamed = Answer::read(streaming).await;
    assert!(stage.app().flush().await.is_err());
    std::fs::rename(&aside, &log).unwrap();
    while stage.app().flush().await.is_err() {
        tokio::task::yield_now().await;
    }
    stage.action(streamed.headers["keybearer-action"].to_str().unwrap()).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_beyond_the_last_place_is_told_so() {
    let stage = with("limits: {connections: 1}\n").await;
    let mut first = stage.direct().await;
    let request = |path| absolute("GET", path).header("agent-identity", identity("acme", "researcher"));
    let echo = "http://api.crm.test/echo";
    assert_eq!(first.call(request(echo).body(Body::default()).unwrap()).await.status, 200);
    let mut second = stage.direct().await;
    let answer = second.call(request(echo).body(Body::default()).unwrap()).await;
    let refusal = Refusal { proxy_error: "connection_limit_reached", ..unavailable("overloaded") };
    refusal.check(&stage, &answer).await;
    assert_eq!(answer.headers["connection"], "close");
    let (status, _, mut third) = stage.connect("api.crm.test:443", "").await;
    assert_eq!(status, 503);
    third.write_all(b"\x16\x03\x01").await.unwrap();
    let mut rest = Vec::new();
    let _reset_or_end = third.read_to_end(&mut rest).await;
    assert!(String::from_utf8_lossy(&rest).contains("limits.connections"));
    assert_eq!(stage.provider.requests().len(), 1);
    assert_eq!(first.call(request(echo).body(Body::default()).unwrap()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_keeps_its_place() {
    let stage = with("limits: {connections: 2}\n").await;
    let opened = [
        stage.connected("api.crm.test:443", "").await,
        stage
            .tls(stage.connected("api.crm.test:443", "").await, "api.crm.test", &["h2"])
            .await
            .into_inner()
            .0,
    ];
    let (status, head, _) = stage.connect("api.crm.test:443", "").await;
    assert!(status == 503 && head.contains("details=\"overloaded\""), "{head}");
    drop(opened);
    while stage.connect("api.crm.test:443", "").await.0 == 503 {
        tokio::task::yield_now().await;
    }
}
