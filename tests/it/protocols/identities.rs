//! Who asks: which of several statements counts, and signed ones end to end.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::support::{
    agent::{Answer, Body, Tunnel, absolute, identity, inside},
    signer::Signer,
    stage::{HOST, POLICY, Stage, Staging},
};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

async fn ask(stage: &Stage, fields: &[(&str, &str)]) -> Answer {
    let asked = fields.iter().fold(absolute("GET", "http://api.crm.test/echo"), |asked, (name, value)| {
        asked.header(*name, *value)
    });
    stage.direct().await.call(asked.body(Body::default()).unwrap()).await
}

async fn ask_inside(stage: &Stage, tunnel: &str, fields: &[(&str, &str)]) -> Answer {
    let tunnel = Tunnel { connect: "api.crm.test:443", sni: HOST, alpn: &["h2"], headers: tunnel };
    let mut agent = stage.tunnel_with(tunnel).await;
    let asked = fields
        .iter()
        .fold(inside(&agent, "GET", HOST, "/echo"), |asked, (name, value)| asked.header(*name, *value));
    agent.call(asked.body(Body::default()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_own_header_wins_over_its_tunnels_and_over_the_default() {
    let config = "identity: {default: {tenant: acme, role: researcher}}\n".to_owned();
    let stage = Stage::set(Staging { config, ..Staging::default() }).await;
    let globex = identity("globex", "researcher");
    let globex_basic = basic("globex/researcher", "x");
    let tunnel = format!("Proxy-Authorization: {globex_basic}\r\n");
    let acme = identity("acme", "researcher");
    for (answer, tenant) in [
        (ask(&stage, &[]).await, "acme"),
        (ask(&stage, &[("agent-identity", &globex)]).await, "globex"),
        (ask(&stage, &[("proxy-authorization", &globex_basic)]).await, "globex"),
        (ask(&stage, &[("proxy-authorization", &globex_basic), ("agent-identity", &acme)]).await, "acme"),
        (ask_inside(&stage, "", &[]).await, "acme"),
        (ask_inside(&stage, &tunnel, &[]).await, "globex"),
        (ask_inside(&stage, &tunnel, &[("agent-identity", &acme)]).await, "acme"),
        (ask_inside(&stage, "Agent-Identity: tenant=globex, role=researcher\r\n", &[]).await, "globex"),
    ] {
        assert_eq!(answer.headers["x-provider-tenant"], tenant, "{}", answer.text());
    }
    for seen in stage.provider.requests() {
        assert!(
            !seen.headers.contains_key("agent-identity") && !seen.headers.contains_key("proxy-authorization")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_user_name_is_tenant_role_and_perhaps_user() {
    let stage = Stage::open().await;
    for (user, recorded) in [
        ("acme/researcher", json!(["acme", "researcher", null])),
        ("acme/researcher/alice", json!(["acme", "researcher", "alice"])),
        ("acme/publisher/alice@acme.test", json!(["acme", "publisher", "alice@acme.test"])),
    ] {
        let answer = ask(&stage, &[("proxy-authorization", &basic(user, "x"))]).await;
        assert_eq!(answer.status, 200, "{user}: {}", answer.text());
        let event = stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
        assert_eq!(json!([event["tenant"], event["role"], event["user"]]), recorded);
    }
    for user in ["", "acme", "acme/", "/researcher", "acme//alice", "acme/researcher/"] {
        let answer = ask(&stage, &[("proxy-authorization", &basic(user, "x"))]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().as_deref()),
            (407, Some("identity_invalid")),
            "{user}"
        );
    }
}

fn claims(seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({
        "tenant": "acme", "role": "researcher", "user": "alice", "sub": "planner", "chain": "run-42", "aud": "keybearer",
        "exp": now.checked_add_signed(seconds).unwrap(), "act": {"sub": "writer", "act": {"sub": "editor"}},
    })
}

async fn signed_mode(signer: &Signer) -> Stage {
    let config =
        "identity: {mode: signed, audience: keybearer, jwks: {file: ./policies/jwks.json}}\n".to_owned();
    let policies = vec![("policy.yaml", POLICY.to_owned()), ("jwks.json", signer.keys().to_string())];
    Stage::set(Staging { policies, config, ..Staging::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_identity_is_believed_wherever_it_stands() {
    let signer = Signer::new("k1");
    let stage = signed_mode(&signer).await;
    let token = signer.token(&claims(300));
    let (bearer, password) = (format!("Bearer {token}"), basic("any", &token));
    for answer in [
        ask(&stage, &[("agent-identity", &token)]).await,
        ask(&stage, &[("proxy-authorization", &bearer)]).await,
        ask(&stage, &[("proxy-authorization", &password)]).await,
        ask_inside(&stage, &format!("Proxy-Authorization: {bearer}\r\n"), &[]).await,
        ask_inside(&stage, &format!("Proxy-Authorization: {password}\r\n"), &[]).await,
        ask_inside(&stage, "", &[("agent-identity", &token)]).await,
    ] {
        assert_eq!(answer.headers["x-provider-tenant"], "acme", "{}", answer.text());
        let event = stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
        assert_eq!(
            (&event["agent"], &event["user"], &event["chain"]),
            (&json!("planner"), &json!("alice"), &json!("run-42"))
        );
        assert_eq!(event["delegation"], json!(["writer", "editor"]));
    }
    assert!(stage.provider.requests().iter().all(|seen| !seen.head_contains(&token)));
    let log = std::fs::read_to_string(stage.dir().join("data/audit.jsonl")).unwrap();
    assert!(!log.contains(token.rsplit('.').next().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_rightly_is_not_believed() {
    let [signer, other] = [(); 2].map(|()| Signer::new("k1"));
    let stage = signed_mode(&signer).await;
    let good = signer.token(&claims(300));
    let changed = |member: &str, value: Value| {
        let mut claims = claims(300);
        claims[member] = value;
        signer.token(&claims)
    };
    let cut = good.rsplit_once('.').unwrap().0;
    for token in [
        other.token(&claims(300)),
        signer.token(&claims(-300)),
        changed("aud", json!("someone-else")),
        changed("tenant", json!(null)),
        changed("act", json!({"act": {"sub": "nobody-in-between"}})),
        format!("{cut}."),
        cut.to_owned(),
        format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}"),
            good.split_once('.').unwrap().1
        ),
        identity("acme", "researcher"),
    ] {
        let answer = ask(&stage, &[("agent-identity", &token)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().as_deref()),
            (407, Some("identity_invalid")),
            "{token}"
        );
        assert!(!answer.text().contains(&token));
    }
    assert_eq!(stage.provider.requests().len(), 0);
}
