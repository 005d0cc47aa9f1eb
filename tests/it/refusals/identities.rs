//! What is refused for who asks: 407 where the request addresses the proxy, 401 where it does not.

use serde_json::json;

use super::{Asked, Refusal, Way, answer_to_connect};
use crate::support::stage::{POLICY, Stage, Staging};

fn at_status(status: u16, code: &str) -> Refusal<'_> {
    Refusal { status, code, proxy_error: "http_request_denied", members: json!({}) }
}

const BASIC: &str = "Basic realm=\"keybearer: tenant/role as user name\"";

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_the_proxy_asks_for_one_and_a_tunnel_does_not() {
    let stage = Stage::open().await;
    for (way, status) in Way::ALL.into_iter().zip([407, 401, 401]) {
        let answer = way.ask(&stage, &Asked::of("-", "-", "GET", "/echo").anonymous()).await;
        at_status(status, "identity_required").check(&stage, &answer).await;
        let asks = answer.headers.get("proxy-authenticate").map(|value| value.to_str().unwrap());
        assert_eq!(asks, (status == 407).then_some(BASIC));
        let asks = answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
        assert_eq!(asks, (status == 401).then_some("Bearer realm=\"keybearer\""));
    }
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_cannot_be_read_is_refused_whatever_else_the_request_carries() {
    let stage = Stage::open().await;
    for text in [
        "tenant=\"acme\"",
        "role=\"researcher\"",
        "tenant=\"acme\", role=\"researcher\", tenant=\"globex\"",
        "tenant=\"acme\", role=\"researcher\", admin",
        "tenant=\"ac/me\", role=\"researcher\"",
        "tenant=\"acme\" role=\"researcher\"",
        "eyJhbGciOiJub25lIn0.e30.",
        "",
    ] {
        for (way, status) in Way::ALL.into_iter().zip([407, 401, 401]) {
            let asked = Asked::of("-", "-", "GET", "/echo")
                .anonymous()
                .with("agent-identity", text)
                .with("proxy-authorization", "Basic YWNtZS9yZXNlYXJjaGVyOng=");
            let answer = way.ask(&stage, &asked).await;
            at_status(status, "identity_invalid").check(&stage, &answer).await;
        }
    }
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_that_names_an_unreadable_identity_is_asked_for_another() {
    let stage = Stage::open().await;
    for headers in [
        "Proxy-Authorization: Basic YWNtZQ==\r\n",
        "Proxy-Authorization: Basic !\r\n",
        "Proxy-Authorization: Bearer eyJh.e30.x\r\n",
        "Agent-Identity: tenant=\r\n",
    ] {
        let answer = answer_to_connect(&stage, "api.crm.test:443", headers).await;
        at_status(407, "identity_invalid").check(&stage, &answer).await;
        assert_eq!(answer.headers["proxy-authenticate"], BASIC);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_is_refused_for_what_it_names_before_there_is_a_tunnel() {
    let stage = Stage::open().await;
    let twice = "Proxy-Authorization: Basic YQ==\r\nProxy-Authorization: Basic YQ==\r\n";
    for (authority, headers, why) in [
        ("api.crm.test:443", twice, "the Proxy-Authorization header is there twice: send it once"),
        ("api.crm.test:0", "", "the port is not a number from 1 to 65535"),
        ("127.1:443", "", "the host reads as a number; write an IPv4 address as four decimal numbers"),
        ("a..b:443", "", "the host has an empty or malformed label"),
        ("user@api.crm.test:443", "", "the authority carries a user name"),
    ] {
        let answer = answer_to_connect(&stage, authority, headers).await;
        let refusal = Refusal {
            status: 400,
            code: "bad_request",
            proxy_error: "http_request_error",
            members: json!({"why": why}),
        };
        refusal.check(&stage, &answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_speaks_only_for_those_that_a_binding_names() {
    let binding = "\n---\napiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {name: here}\nspec:\n  workloads: [{local: true}]\n  tenants: [acme]\n  roles: [researcher]\n  users: [\"*\"]\n";
    let staging = Staging {
        policies: vec![("policy.yaml", format!("{POLICY}{binding}"))],
        config: "identity: {mode: bound}\n".to_owned(),
        ..Staging::default()
    };
    let stage = Stage::set(staging).await;
    for way in Way::ALL {
        let allowed = way.ask(&stage, &Asked::of("acme", "researcher", "GET", "/echo")).await;
        assert_eq!(allowed.status, 200, "{}", allowed.text());
        for (tenant, role) in [("acme", "publisher"), ("globex", "researcher")] {
            let members = json!({"tenant": tenant, "role": role});
            let refusal = Refusal { members, ..at_status(403, "identity_not_allowed") };
            let answer = way.ask(&stage, &Asked::of(tenant, role, "GET", "/echo")).await;
            refusal.check(&stage, &answer).await;
        }
    }
    assert_eq!(stage.provider.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_stays_with_its_tenant_and_user_and_may_change_its_role() {
    let stage = Stage::open().await;
    let ask = |text: &str| Asked::of("-", "-", "GET", "/echo").anonymous().with("agent-identity", text);
    let begin = ask("tenant=acme, role=researcher, user=alice, chain=run-42");
    assert_eq!(Way::Absolute.ask(&stage, &begin).await.status, 200);
    let hop = ask("tenant=acme, role=publisher, user=alice, chain=run-42");
    assert_eq!(Way::Tunnel("h2").ask(&stage, &hop).await.status, 200);
    for way in Way::ALL {
        for other in [
            "tenant=globex, role=researcher, user=alice",
            "tenant=acme, role=researcher, user=bob",
            "tenant=acme, role=researcher",
        ] {
            let pinned = json!({"tenant": "acme", "user": "alice"});
            let members = json!({"chain": "run-42", "pinned": pinned});
            let refusal = Refusal { members, ..at_status(409, "identity_drift") };
            let answer = way.ask(&stage, &ask(&format!("{other}, chain=run-42"))).await;
            refusal.check(&stage, &answer).await;
        }
    }
    assert_eq!(stage.provider.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_cannot_be_checked_now_is_no_fault_of_the_agent() {
    let closed = super::upstreams::closed_port().await;
    let staging = Staging {
        config: format!("identity: {{mode: signed, jwks: {{url: \"http://{closed}/keys\"}}}}\n"),
        ..Staging::default()
    };
    let stage = Stage::set(staging).await;
    // {"alg":"EdDSA","kid":"k1"}, no claims and no signature.
    let token = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsxIn0.e30.AAAA";
    for way in Way::ALL {
        let asked = Asked::of("-", "-", "GET", "/echo").anonymous().with("agent-identity", token);
        let answer = way.ask(&stage, &asked).await;
        let refusal =
            Refusal { proxy_error: "proxy_configuration_error", ..at_status(503, "policy_unavailable") };
        refusal.check(&stage, &answer).await;
    }
    assert_eq!(stage.provider.requests().len(), 0);
}
