//! Law 8. Every action has exactly one event, whatever becomes of it; what cannot be recorded is not sent.

use std::{collections::BTreeMap, fs, path::Path};

use http::Request;
use http_body_util::BodyExt as _;
use keybearer::{
    audit::{self, Audit},
    drain::Drain,
    proxy::Proxy,
    ruleset::Rules,
};
use prometheus::Registry;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::wire::{self, ALPNS, Wide, actions, asks, until};
use crate::support::{
    agent::{Answer, Body, Connection, absolute, identity},
    apart,
    stage::{HOST, POLICY, SECRETS, Stage, Staging},
};

/// One event for each of the ids, in any order, and none besides. Returns the events by id.
async fn recorded(stage: &Stage, ids: &[String]) -> BTreeMap<String, Value> {
    let events = actions(stage, ids.len()).await;
    let by_id: BTreeMap<String, Value> =
        events.iter().map(|event| (event["id"].as_str().unwrap().to_owned(), event.clone())).collect();
    assert_eq!(by_id.len(), events.len(), "an id stands twice");
    assert_eq!(by_id.len(), ids.len(), "{events:#?}");
    for id in ids {
        assert!(by_id.contains_key(id), "{id} was not recorded");
    }
    by_id
}

fn id(answer: &Answer) -> String {
    wire::id(answer).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_one_event_with_its_id() {
    let stage = Stage::open().await;
    let mut ids = Vec::new();
    let mut expected = Vec::new();
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        for (method, path, role, host, decision, error, status) in [
            ("GET", "/echo", "researcher", HOST, "allow", None, 200),
            ("GET", "/bytes/1000", "researcher", HOST, "allow", None, 200),
            ("GET", "/nowhere", "researcher", HOST, "deny", Some("operation_unknown"), 403),
            ("PATCH", "/echo", "researcher", HOST, "deny", Some("insufficient_scope"), 403),
            ("DELETE", "/echo", "publisher", HOST, "deny", Some("policy_denied"), 403),
            ("GET", "/echo", "stranger", HOST, "deny", Some("policy_denied"), 403),
            ("GET", "/a//b", "researcher", HOST, "deny", Some("bad_request"), 400),
            ("GET", "/echo", "researcher", "other.crm.test", "deny", Some("misdirected"), 421),
            ("TRACE", "/echo", "researcher", HOST, "deny", Some("bad_request"), 400),
        ] {
            let mut request = crate::support::agent::inside(&tunnel, method, HOST, path)
                .header("agent-identity", identity("acme", role))
                .body(Body::default())
                .unwrap();
            request.headers_mut().insert("host", host.parse().unwrap());
            let answer = tunnel.call(request).await;
            assert_eq!(answer.status, status, "{alpn} {method} {path}");
            ids.push(id(&answer));
            expected.push((decision, error, status, answer.body.len()));
        }
    }
    let events = recorded(&stage, &ids).await;
    for (id, (decision, error, status, bytes)) in ids.iter().zip(expected) {
        let event = &events[id];
        assert_eq!(
            (&event["decision"], event["error"].as_str(), &event["status"]),
            (&decision.into(), error, &status.into()),
            "{event}"
        );
        assert_eq!(event["bytes_out"], bytes, "{event}");
        assert!(event["ms"]["total"].is_number(), "{event}");
        assert_eq!(event["account"].is_string(), decision == "allow", "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_it_is_a_request_is_recorded_too() {
    let stage = Stage::open().await;
    for (number, bytes) in [
        "CONNECT api.crm.test HTTP/1.1\r\nHost: api.crm.test\r\nConnection: close\r\n\r\n".to_owned(),
        "CONNECT api.crm.test:443 HTTP/1.1\r\nHost: other.test:443\r\nConnection: close\r\n\r\n".to_owned(),
        "CONNECT api.crm.test:443 HTTP/1.1\r\nHost: api.crm.test:443\r\nAgent-Identity: nonsense=1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nHost: api.crm.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET http://api.crm.test/echo HTTP/1.1\r\nHost: api.crm.test\r\nConnection: close\r\n\r\n".to_owned(),
        "NOT HTTP AT ALL\r\n\r\n".to_owned(),
        format!("GET http://api.crm.test/echo HTTP/1.1\r\nHost: api.crm.test\r\nX-Large: {}\r\n\r\n", "x".repeat(100_000)),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = wire::by_hand(&stage, &bytes).await;
        let events = actions(&stage, number + 1).await;
        assert_eq!(events.len(), number + 1, "{answer}");
        let event = events.last().unwrap();
        assert_eq!(event["decision"], "deny", "{answer}");
        assert!(event["error"].is_string());
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_up_within_a_stream_is_recorded_with_what_it_got() {
    let stage = Stage::open().await;
    for (number, alpn) in ALPNS.into_iter().enumerate() {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let mut answer = tunnel.send(asks(&tunnel, "GET", "/stream/3/paced")).await.unwrap();
        stage.provider.pace().step();
        let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&first[..], b"data: event 0\n\n");
        assert_eq!(stage.actions().await.len(), number, "an open stream is not yet an event");
        drop((answer, tunnel));
        let event = actions(&stage, number + 1).await.pop().unwrap();
        assert_eq!(
            (&event["decision"], &event["status"], &event["bytes_out"]),
            (&"allow".into(), &200.into(), &15.into()),
            "{event}"
        );
        assert_eq!(event["operation"], "events");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_up_before_the_answer_is_recorded_as_interrupted() {
    let stage = Stage::open().await;
    for (number, alpn) in ALPNS.into_iter().enumerate() {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let request = asks(&tunnel, "GET", "/slow-head");
        let asking = Drain::default().spawn(async move { tunnel.send(request).await });
        until("the provider is asked", async || (stage.provider.requests().len() > number).then_some(()))
            .await;
        assert_eq!(stage.actions().await.len(), number);
        asking.abort();
        let event = actions(&stage, number + 1).await.pop().unwrap();
        assert_eq!(
            (&event["decision"], &event["error"]),
            (&"allow".into(), &"interrupted".into()),
            "{event}"
        );
        assert_eq!(event["account"], "acme/crm/tenant");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_breaks_off_is_recorded() {
    let script = wire::Script::bind().await;
    let stage =
        Stage::set(Staging { resolve: vec![(HOST.to_owned(), script.address())], ..Staging::default() })
            .await;
    let certificate = (&[HOST][..], crate::support::provider::Validity::Current);
    script.serve(&stage.authority, certificate, "http/1.1", |_| {
        let promised = http::Response::builder().header("content-length", "100");
        promised.body(wire::pieces([b"only this".to_vec()])).unwrap()
    });
    let mut direct = stage.direct().await;
    let request =
        absolute("GET", "http://api.crm.test/echo").header("agent-identity", identity("acme", "researcher"));
    let answer = direct.send(request.body(Body::default()).unwrap()).await;
    // The provider's head may or may not have come through before it broke off; either way the agent is told.
    if let Ok(answer) = answer {
        let refused = answer.status() == 502;
        assert!(answer.collect().await.is_err() || refused);
    }
    let event = actions(&stage, 1).await.pop().unwrap();
    assert_eq!(event["decision"], "allow", "{event}");
    assert!(event["error"].is_string(), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_each_recorded_once_and_the_chain_holds() {
    let stage = Stage::open().await;
    let h2 = stage.tunnel(HOST, "h2").await;
    let Connection::Two(sender) = &h2 else { panic!("no h2") };
    let asked = (0..120).map(|number| {
        let (mut connection, tenant) = (Connection::Two(sender.clone()), SECRETS[number % 2].0);
        let role = if number % 3 == 0 { "stranger" } else { "researcher" };
        async move {
            let request =
                Request::get(format!("https://{HOST}/echo")).header("agent-identity", identity(tenant, role));
            (tenant, connection.call(request.body(Body::default()).unwrap()).await)
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    let ids: Vec<String> = answers.iter().map(|(_, answer)| id(answer)).collect();
    let events = recorded(&stage, &ids).await;
    for (tenant, answer) in &answers {
        let event = &events[&id(answer)];
        assert_eq!((&event["tenant"], &event["status"]), (&(*tenant).into(), &answer.status.as_u16().into()));
    }
    let report = audit::verify_log(&stage.dir().join("data/audit.jsonl")).unwrap();
    assert!(report.is_intact(), "{:?}", report.faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_its_answer_are_counted() {
    let stage = Stage::open().await;
    for alpn in ALPNS {
        let mut wide = Wide::open(&stage, alpn).await;
        let request =
            wide.request("POST", "/upload").body(wire::pieces([vec![7; 1000], vec![8; 500]])).unwrap();
        let answer = Answer::read(wide.send(request).await.unwrap()).await;
        let event = wire::event(&stage, wire::id(&answer)).await;
        assert_eq!(
            (&event["bytes_in"], &event["bytes_out"]),
            (&1500.into(), &answer.body.len().into()),
            "{alpn}"
        );
    }
}

/// What a crash at this moment would leave of the audit log.
fn crashed(data: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("audit.") && entry.path().is_file() {
            fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_durability_an_action_under_way_survives_a_crash() {
    let stage =
        Stage::set(Staging { config: "audit: {durability: sync}\n".to_owned(), ..Staging::default() }).await;
    assert_eq!(stage.get("globex", "researcher", "http://api.crm.test/echo").await.status, 200);
    stage.app().flush().await.unwrap();
    let mut tunnel = stage.tunnel(HOST, "h2").await;
    let request = asks(&tunnel, "GET", "/slow-head");
    let asking =
        Drain::default().spawn(async move { Answer::read(tunnel.send(request).await.unwrap()).await });
    until("the provider is asked", async || (stage.provider.requests().len() == 2).then_some(())).await;

    let copy = crashed(&stage.dir().join("data"));
    let metrics = audit::Metrics::register(&Registry::new()).unwrap();
    drop(Audit::open(&audit::Config::default(), copy.path(), &metrics).unwrap());
    let text = fs::read_to_string(copy.path().join("audit.jsonl")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let interrupted: Vec<&Value> = events.iter().filter(|event| event["error"] == "interrupted").collect();
    assert_eq!(interrupted.len(), 1, "{text}");

    stage.provider.pace().step();
    let answer = asking.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        (&interrupted[0]["id"], &interrupted[0]["account"]),
        (&id(&answer).into(), &"acme/crm/tenant".into())
    );
    assert!(audit::verify_log(&copy.path().join("audit.jsonl")).unwrap().is_intact());
    let finished = wire::event(&stage, wire::id(&answer)).await;
    assert_eq!((finished["id"].as_str(), &finished["error"]), (Some(&*id(&answer)), &Value::Null));
}

/// A data path before an upstream that panics: the app has no such thing, so its parts are put together here.
async fn panicking(dir: &Path) -> (Drain, Audit, std::net::SocketAddr) {
    fs::create_dir(dir.join("policies")).unwrap();
    fs::write(dir.join("policies/policy.yaml"), POLICY).unwrap();
    let parts = apart::parts(dir, Rules::load(&[dir.join("policies")]).unwrap()).await;
    let (drain, audit) = (parts.drain.clone(), parts.audit.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drain.spawn(Proxy::new(parts).run(listener, Vec::new()));
    (drain, audit, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_panics_is_recorded_and_the_proxy_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_drain, audit, address) = panicking(dir.path()).await;
    for number in 1..=3 {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        Drain::default().spawn(connection);
        let request = absolute("GET", "http://api.crm.test/echo")
            .header("agent-identity", identity("acme", "researcher"));
        assert!(sender.send_request(request.body(Body::default()).unwrap()).await.is_err());
        let events = until("the panic is recorded", async || {
            audit.flush().await.unwrap();
            let found = audit::query(
                audit.path(),
                &audit::Filter { kind: Some(audit::Kind::Action), ..audit::Filter::default() },
                99,
            );
            found.ok().map(|found| found.events).filter(|events| events.len() >= number)
        })
        .await;
        assert_eq!(events.len(), number);
        for recorded in events {
            assert_eq!(recorded.event.decision, Some(audit::Decision::Allow));
            assert_eq!(recorded.event.error.as_deref(), Some("interrupted"));
        }
    }
}
