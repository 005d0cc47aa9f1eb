//! The whole way, once in each form.

use crate::support::{
    agent::{Body, absolute, identity, inside},
    stage::{HOST, POLICY, SECRETS, Stage, Staging},
};

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_gets_its_own_credential_in_every_form() {
    let stage = Stage::open().await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-provider-tenant"], "acme");
    let mut ids = vec![answer.headers["keybearer-action"].to_str().unwrap().to_owned()];
    for alpn in ["http/1.1", "h2"] {
        for tenant in ["acme", "globex"] {
            let mut tunnel = stage.tunnel(HOST, alpn).await;
            let request = inside(&tunnel, "GET", HOST, "/echo")
                .header("agent-identity", identity(tenant, "researcher"));
            let answer = tunnel.call(request.body(Body::default()).unwrap()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.headers["x-provider-tenant"], tenant);
            ids.push(answer.headers["keybearer-action"].to_str().unwrap().to_owned());
        }
    }
    for id in ids {
        stage.action(&id).await;
    }
    assert_eq!(stage.actions().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_without_authentication_needs_no_account_and_still_strips() {
    let policy = POLICY
        .replace("auth: {type: static}", "auth: {type: none}")
        .replace("  inject: [{header: Authorization, value: \"Bearer {token}\"}]\n", "");
    let stage = Stage::set(Staging {
        policies: vec![("policy.yaml", policy)],
        accounts: vec![],
        ..Staging::default()
    })
    .await;
    let request = absolute("GET", "http://api.crm.test/echo")
        .header("agent-identity", identity("acme", "researcher"))
        .header("authorization", format!("Bearer {}", SECRETS[0].1));
    let answer = stage.direct().await.call(request.body(Body::default()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error()),
        (401, None),
        "the provider itself asks for a credential"
    );
    assert!(!stage.provider.requests()[0].headers.contains_key("authorization"));
    assert_eq!(stage.last_action().await["account"], serde_json::Value::Null);
}
