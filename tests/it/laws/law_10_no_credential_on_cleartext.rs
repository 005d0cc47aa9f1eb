//! Law 10. No credential goes out without TLS, unless the connector says `cleartext: true`.

use super::wire;
use crate::support::{
    agent::{Answer, identity},
    provider::Speaks,
    stage::{HOST, POLICY, Stage, Staging},
};

fn assert_refused(answer: &Answer, why: &str) {
    let problem = answer.json();
    assert_eq!(
        (answer.status.as_u16(), answer.error().as_deref()),
        (403, Some("destination_denied")),
        "{problem}"
    );
    assert_eq!((&problem["why"], &problem["host"]), (&why.into(), &HOST.into()));
    assert!(problem["detail"].as_str().unwrap().starts_with("destination_denied: "));
}

fn cleartext_connector() -> String {
    POLICY.replacen("hosts: [\"api.crm.test\"]", "hosts: [\"api.crm.test\"]\n  cleartext: true", 1)
}

async fn stage(policy: &str, speaks: Speaks) -> Stage {
    Stage::set(Staging { policies: vec![("policy.yaml", policy.to_owned())], speaks, ..Staging::default() })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn port_80_is_refused_and_says_why() {
    for speaks in [Speaks::Http1AndHttp2, Speaks::Cleartext] {
        let stage = stage(POLICY, speaks).await;
        assert_refused(&stage.get("acme", "researcher", "http://api.crm.test:80/echo").await, "cleartext");
        let plain = stage.connected("api.crm.test:80", "").await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(plain)).await.unwrap();
        keybearer::drain::Drain::default().spawn(connection);
        let request = http::Request::get("/echo")
            .header("host", "api.crm.test:80")
            .header("agent-identity", identity("acme", "researcher"));
        let answer =
            sender.send_request(request.body(crate::support::agent::Body::default()).unwrap()).await.unwrap();
        assert_refused(&Answer::read(answer).await, "cleartext");
        assert!(stage.provider.requests().is_empty());
        assert!(
            stage
                .actions()
                .await
                .iter()
                .all(|event| event["error"] == "destination_denied" && event["account"].is_null())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_leads_to_tls() {
    let stage = stage(POLICY, Speaks::Http1AndHttp2).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(answer.status, 200);
    let seen = stage.provider.requests().pop().unwrap();
    assert_eq!(seen.peer.sni.as_deref(), Some(HOST));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_without_tls_gets_nothing() {
    let stage = stage(POLICY, Speaks::Cleartext).await;
    for _ in 0..2 {
        let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (502, Some("upstream_tls")));
    }
    let mut tunnel = stage.tunnel(HOST, "h2").await;
    let answer = tunnel.call(wire::asks(&tunnel, "GET", "/echo")).await;
    assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (502, Some("upstream_tls")));
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_says_so_is_reached_without_tls() {
    let stage = stage(&cleartext_connector(), Speaks::Cleartext).await;
    for url in ["http://api.crm.test/echo", "http://api.crm.test:80/echo"] {
        let answer = stage.get("acme", "researcher", url).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["x-provider-tenant"], "acme");
    }
    assert!(stage.provider.requests().iter().all(|seen| seen.peer.sni.is_none() && seen.peer.alpn.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleartext_connector_has_only_its_own_port() {
    let stage = stage(&cleartext_connector(), Speaks::Cleartext).await;
    assert_refused(&stage.get("acme", "researcher", "http://api.crm.test:443/echo").await, "no_connector");
    let mut tunnel = stage.tunnel(HOST, "http/1.1").await;
    let answer = tunnel.call(wire::asks(&tunnel, "GET", "/echo")).await;
    assert_refused(&answer, "no_connector");
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scheme_is_no_way_out() {
    let stage = stage(POLICY, Speaks::Http1AndHttp2).await;
    for scheme in ["ftp", "ws", "file", "httpx"] {
        let head = format!(
            "GET {scheme}://{HOST}/echo HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: {}\r\nConnection: close\r\n\r\n",
            identity("acme", "researcher")
        );
        let answer = wire::by_hand(&stage, head).await;
        assert_eq!(
            (wire::status(&answer), wire::error(&answer).as_deref()),
            (400, Some("bad_request")),
            "{scheme}"
        );
    }
    assert!(stage.provider.requests().is_empty());
}
