//! Law 2. Only a permit obtains a credential and only a credential is injected, by type; every way in goes
//! through the same function.

use http::Request;
use serde_json::Value;

use super::wire::{self, ALPNS};
use crate::support::{
    agent::{Body, Connection, inside},
    stage::{HOST, Stage},
};

#[test]
fn no_credential_permit_or_outbound_without_a_decision() {
    trybuild::TestCases::new().compile_fail("tests/it/laws/compile_fail/*.rs");
}

/// Identity, method, path → status and code.
const REFUSED: [(&str, &str, &str, u16, &str); 9] = [
    ("tenant=\"acme\", role=\"stranger\"", "GET", "/echo", 403, "policy_denied"),
    ("tenant=\"acme\", role=\"researcher\"", "PATCH", "/echo", 403, "insufficient_scope"),
    ("tenant=\"acme\", role=\"researcher\"", "GET", "/nowhere", 403, "operation_unknown"),
    ("tenant=\"acme\", role=\"researcher\"", "TRACK", "/echo", 400, "bad_request"),
    ("tenant=\"acme\", role=\"publisher\"", "DELETE", "/echo", 403, "policy_denied"),
    ("tenant=\"initech\", role=\"researcher\"", "GET", "/echo", 401, "account_missing"),
    ("tenant=\"acme\", role=\"researcher\"", "GET", "/echo/../bytes/1", 400, "bad_request"),
    ("tenant=\"acme\", role=\"researcher\"", "GET", "/a%2fb", 400, "bad_request"),
    ("tenant=\"acme\", role=\"researcher\", colour=\"red\"", "GET", "/echo", 401, "identity_invalid"),
];

/// The refusal without what is this request's own.
fn comparable(mut problem: Value) -> Value {
    let members = problem.as_object_mut().unwrap();
    members.remove("action_id");
    problem
}

/// Every way in, as a connection and the host that is named there.
async fn ways(stage: &Stage) -> Vec<(&'static str, Connection, &'static str)> {
    let plain = stage.connected(&format!("{HOST}:443"), "").await;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(plain)).await.unwrap();
    keybearer::drain::Drain::default().spawn(connection);
    vec![
        ("CONNECT, h1", stage.tunnel(HOST, ALPNS[0]).await, HOST),
        ("CONNECT, h2", stage.tunnel(HOST, ALPNS[1]).await, HOST),
        ("CONNECT, without TLS", Connection::One(sender), HOST),
        ("absolute-form", stage.direct().await, HOST),
        ("connector name", stage.direct().await, "crm.connector.internal"),
    ]
}

fn request(
    way: &str,
    connection: &Connection,
    method: &str,
    host: &str,
    path: &str,
) -> http::request::Builder {
    if way.starts_with("CONNECT") {
        return inside(connection, method, host, path);
    }
    Request::builder().method(method).uri(format!("http://{host}{path}")).header("host", host)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_refuses_the_same_request_alike() {
    let stage = Stage::open().await;
    for (identity, method, path, status, code) in REFUSED {
        let mut first: Option<Value> = None;
        for (way, mut connection, host) in ways(&stage).await {
            let request = request(way, &connection, method, host, path).header("agent-identity", identity);
            let answer = connection.call(request.body(Body::default()).unwrap()).await;
            assert_eq!(answer.error().as_deref(), Some(code), "{way}: {method} {path}: {}", answer.text());
            // Addressed to the proxy itself, a missing identity is asked for with 407 (contract §5).
            let asked_by_proxy = code == "identity_invalid" && !way.starts_with("CONNECT");
            assert_eq!(
                answer.status.as_u16(),
                if asked_by_proxy { 407 } else { status },
                "{way}: {method} {path}"
            );
            let mut problem = comparable(answer.json());
            problem["status"] = status.into();
            assert_eq!(first.get_or_insert_with(|| problem.clone()), &problem, "{way}: {method} {path}");
            let event = stage.last_action().await;
            assert_eq!(
                (&event["decision"], &event["error"]),
                (&"deny".into(), &code.into()),
                "{way}: {method} {path}"
            );
        }
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_gets_the_same_credential_for_the_same_request() {
    let stage = Stage::open().await;
    for (way, mut connection, host) in ways(&stage).await {
        let request = request(way, &connection, "GET", host, "/echo")
            .header("agent-identity", "tenant=\"globex\", role=\"researcher\"");
        let answer = connection.call(request.body(Body::default()).unwrap()).await;
        assert_eq!(answer.status, 200, "{way}: {}", answer.text());
        assert_eq!(answer.headers["x-provider-tenant"], "globex", "{way}");
        let event = wire::event(&stage, wire::id(&answer)).await;
        assert_eq!(
            (&event["account"], &event["operation"]),
            (&"globex/crm/tenant".into(), &"account.read".into()),
            "{way}"
        );
    }
    let rules: std::collections::BTreeSet<String> =
        stage.actions().await.iter().map(|event| event["rule"].to_string()).collect();
    assert_eq!(rules.len(), 1, "one rule decided them all: {rules:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_opens_no_tunnel_is_not_served_as_one() {
    let stage = Stage::open().await;
    let mut tunnel = stage.tunnel(HOST, "http/1.1").await;
    let request =
        Request::builder().method("CONNECT").uri("api.crm.test:443").header("host", "api.crm.test:443");
    let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    assert!(stage.provider.requests().is_empty());
    wire::actions(&stage, 1).await;
}
