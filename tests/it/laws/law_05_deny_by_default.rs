//! Law 5. What nobody allowed is refused: unknown host, operation, role, tenant and method; an empty policy refuses
//! everything.

use super::wire::{self, ALPNS};
use crate::support::{
    agent::{Answer, Body, Tunnel, identity, inside},
    stage::{HOST, OTHER, POLICY, Stage, Staging},
};

fn refused(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.error().unwrap_or_else(|| panic!("no refusal: {}", answer.text())))
}

async fn with_policy(text: &str) -> Stage {
    let policies = if text.is_empty() { vec![] } else { vec![("policy.yaml", text.to_owned())] };
    Stage::set(Staging { policies, ..Staging::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_policy_refuses_everything() {
    let stage = with_policy("").await;
    for (method, url) in [
        ("GET", "http://api.crm.test/echo"),
        ("POST", "http://api.crm.test/echo"),
        ("GET", "http://api.crm.test:443/"),
        ("GET", "http://crm.connector.internal/echo"),
        ("GET", "https://other.crm.test/echo"),
    ] {
        let answer = stage.ask(method, "acme", "researcher", url).await;
        assert_eq!(refused(&answer), (403, "destination_denied".to_owned()), "{method} {url}");
        assert_eq!(answer.json()["why"], "no_connector", "{method} {url}");
    }
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let answer = tunnel.call(wire::asks(&tunnel, "GET", "/echo")).await;
        assert_eq!(refused(&answer), (403, "destination_denied".to_owned()), "{alpn}");
    }
    assert!(stage.provider.requests().is_empty());
    assert!(stage.actions().await.iter().all(|event| event["decision"] == "deny"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_without_any_role_refuses_everything() {
    let stage = with_policy(POLICY.split("\n---\n").next().unwrap()).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(refused(&answer), (403, "policy_denied".to_owned()));
    let answer = stage.get("acme", "researcher", "http://api.crm.test/unlisted").await;
    assert_eq!(refused(&answer).0, 403);
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_names_is_refused() {
    let only_acme = POLICY.replacen("tenants: [\"*\"]", "tenants: [acme]", 1);
    let stage = with_policy(&only_acme).await;
    for (tenant, role, method, path, code) in [
        ("globex", "researcher", "GET", "/echo", "policy_denied"),
        ("ACME", "researcher", "GET", "/echo", "policy_denied"),
        ("acme", "stranger", "GET", "/echo", "policy_denied"),
        ("acme", "Researcher", "GET", "/echo", "policy_denied"),
        ("acme", "researcher", "GET", "/", "operation_unknown"),
        ("acme", "researcher", "GET", "/echo/", "operation_unknown"),
        ("acme", "researcher", "GET", "/Echo", "operation_unknown"),
        ("acme", "researcher", "GET", "/echo/more", "operation_unknown"),
        ("acme", "researcher", "GET", "/bytes/1/2", "operation_unknown"),
        ("acme", "researcher", "POST", "/bytes/1", "operation_unknown"),
        ("acme", "researcher", "get", "/echo", "operation_unknown"),
        ("acme", "researcher", "PROPFIND", "/echo", "operation_unknown"),
        ("acme", "researcher", "HEAD", "/bytes/1", "operation_unknown"),
        ("acme", "researcher", "PUT", "/echo", "insufficient_scope"),
        ("acme", "researcher", "DELETE", "/echo", "insufficient_scope"),
        ("acme", "publisher", "DELETE", "/echo", "policy_denied"),
    ] {
        let mut tunnel = stage.tunnel(HOST, "http/1.1").await;
        let request = inside(&tunnel, method, HOST, path).header("agent-identity", identity(tenant, role));
        let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
        let event = stage.last_action().await;
        assert_eq!(
            (&event["decision"], &event["error"]),
            (&"deny".into(), &code.into()),
            "{tenant} {role} {method} {path}"
        );
        assert_eq!(answer.status, 403, "{tenant} {role} {method} {path}");
        if method != "HEAD" {
            assert_eq!(refused(&answer).1, code, "{tenant} {role} {method} {path}");
        }
    }
    assert!(stage.provider.requests().is_empty());
    assert_eq!(
        stage.get("acme", "researcher", "http://api.crm.test/echo").await.status,
        200,
        "the policy allows something"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_no_connector_names_is_refused_in_every_form() {
    let stage = Stage::open().await;
    for host in [
        OTHER,
        "crm.test",
        "api.crm.test.evil.test",
        "xapi.crm.test",
        "sub.api.crm.test",
        "desk.connector.internal",
    ] {
        let answer = stage.get("acme", "researcher", &format!("http://{host}/echo")).await;
        assert_eq!(refused(&answer), (403, "destination_denied".to_owned()), "{host}");
        let connect = format!("{host}:443");
        for alpn in ALPNS {
            let mut tunnel =
                stage.tunnel_with(Tunnel { connect: &connect, sni: host, alpn: &[alpn], headers: "" }).await;
            let request = inside(&tunnel, "GET", host, "/echo")
                .header("agent-identity", identity("acme", "researcher"));
            let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
            assert_eq!(refused(&answer), (403, "destination_denied".to_owned()), "{host} {alpn}");
            assert_eq!(
                (&answer.json()["why"], &answer.json()["host"]),
                (&"no_connector".into(), &host.into())
            );
        }
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_who_asks_is_refused() {
    let stage = Stage::open().await;
    let mut direct = stage.direct().await;
    let request =
        crate::support::agent::absolute("GET", "http://api.crm.test/echo").body(Body::default()).unwrap();
    let answer = direct.call(request).await;
    assert_eq!(refused(&answer), (407, "identity_required".to_owned()));
    assert!(answer.headers.contains_key("proxy-authenticate"));
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let answer = tunnel.call(inside(&tunnel, "GET", HOST, "/echo").body(Body::default()).unwrap()).await;
        assert_eq!(refused(&answer), (401, "identity_required".to_owned()), "{alpn}");
    }
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_no_binding_names_speaks_for_nobody() {
    let stage =
        Stage::set(Staging { config: "identity: {mode: bound}\n".to_owned(), ..Staging::default() }).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(refused(&answer), (403, "identity_not_allowed".to_owned()));
    assert_eq!((&answer.json()["tenant"], &answer.json()["role"]), (&"acme".into(), &"researcher".into()));
    assert!(stage.provider.requests().is_empty());
}
