//! What is refused for what it asks, in each way in.

use keybearer::drain::Drain;
use keybearer::{
    id::{AccountKey, ConnectorName, Principal, Scope, TenantId},
    vault::NewAccount,
};
use serde_json::{Value, json};

use super::{Asked, Refusal, Way, and};
use crate::support::stage::{HOST, Stage, Staging, account};

/// Tenants whose accounts are each in another state.
const STATES: [(&str, &str); 3] = [
    ("revoked", "kb-canary-revoked-51c0ffee"),
    ("frozen", "kb-canary-frozen-0badcafe1"),
    ("scanty", "kb-canary-scanty-99aabbcc2"),
];

fn key(tenant: &str) -> AccountKey {
    let connector = ConnectorName::new("crm").unwrap();
    AccountKey { tenant: TenantId::new(tenant).unwrap(), connector, principal: Principal::Tenant }
}

async fn stage() -> Stage {
    let mut staging =
        Staging { config: "limits: {inspect_body_bytes: 16}\n".to_owned(), ..Staging::default() };
    staging.accounts.extend(STATES.map(|(tenant, secret)| {
        let scopes = (tenant == "scanty").then(|| [Scope::new("accounts:read").unwrap()].into());
        NewAccount { scopes, ..account(tenant, "crm", Principal::Tenant, secret) }
    }));
    let stage = Stage::set(staging).await;
    stage.app().vault.revoke(&key("revoked")).await.unwrap();
    stage.app().vault.freeze(&key("frozen"), "on-call").await.unwrap();
    stage
}

/// Asks in each way, and checks each answer; the provider must not notice.
async fn refused(stage: &Stage, asked: &Asked<'_>, refusal: &Refusal<'_>) -> Vec<super::Answer> {
    let mut answers = Vec::new();
    for way in Way::ALL {
        let answer = way.ask(stage, asked).await;
        refusal.check(stage, &answer).await;
        answers.push(answer);
    }
    assert_eq!(stage.provider.requests().len(), 0);
    answers
}

fn denied(code: &str, members: Value) -> Refusal<'_> {
    Refusal { status: 403, code, proxy_error: "http_request_denied", members }
}

/// What is said where a person has to connect an account.
fn to_connect(stage: &Stage, tenant: &str) -> Value {
    let url = format!("http://{}/connect/{tenant}/crm?as=tenant", stage.app().admin);
    json!({"connector": "crm", "principal": "tenant", "reconnect_url": url})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_connector_is_refused_inside_tls_that_it_could_read() {
    let stage = stage().await;
    for host in ["unknown.test", "crm.test", "x.api.crm.test", "api.crm.test.evil.test", "8.8.8.8"] {
        let members = json!({"host": host, "why": "no_connector"});
        let refusal =
            Refusal { proxy_error: "destination_not_found", ..denied("destination_denied", members) };
        refused(&stage, &Asked::of("acme", "researcher", "GET", "/echo").at(host), &refusal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_must_not_be_dialled_is_refused_as_one() {
    let stage = stage().await;
    for host in ["169.254.169.254", "10.0.0.1", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"] {
        let refusal = Refusal {
            proxy_error: "destination_ip_prohibited",
            ..denied("destination_denied", json!({"host": host, "why": "address"}))
        };
        refused(&stage, &Asked::of("acme", "researcher", "GET", "/").at(host), &refusal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_the_connector_does_not_describe_is_unknown() {
    let stage = stage().await;
    for (method, path, canonical) in [
        ("GET", "/nowhere", "/nowhere"),
        ("DELETE", "/anything", "/anything"),
        ("GET", "/echo/", "/echo/"),
        ("GET", "/%65cho/x?q=s3cret", "/echo/x"),
    ] {
        let members = json!({"connector": "crm", "method": method, "path": canonical});
        let asked = Asked::of("acme", "publisher", method, path);
        refused(&stage, &asked, &denied("operation_unknown", members)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_operation_names_the_rule() {
    let stage = stage().await;
    for (role, rule) in [("publisher", "publisher/deny/0"), ("nobody", "default")] {
        let members = json!({"connector": "crm", "operation": "record.delete", "rule": rule});
        let asked = Asked::of("acme", role, "DELETE", "/echo");
        refused(&stage, &asked, &denied("policy_denied", members)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_the_role_lacks_is_named() {
    let stage = stage().await;
    let members = json!({
        "connector": "crm", "operation": "opportunity.update", "required": ["opportunities:write"],
        "granted": ["accounts:read"], "missing": ["opportunities:write"], "missing_in": "role",
    });
    let asked = Asked::of("acme", "researcher", "PATCH", "/echo");
    for answer in refused(&stage, &asked, &denied("insufficient_scope", members)).await {
        let challenge = "Bearer error=\"insufficient_scope\", scope=\"opportunities:write\"";
        assert_eq!(answer.headers["www-authenticate"], challenge);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("insufficient_scope: opportunities:write required"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_the_account_lacks_comes_with_where_to_reconnect_it() {
    let stage = stage().await;
    let scopes = json!({
        "required": ["opportunities:write"], "granted": ["accounts:read"],
        "missing": ["opportunities:write"], "missing_in": "account",
    });
    let members = and(&to_connect(&stage, "scanty"), &scopes);
    let asked = Asked::of("scanty", "publisher", "PATCH", "/echo");
    for answer in refused(&stage, &asked, &denied("insufficient_scope", members)).await {
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer error="));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("insufficient_scope: opportunities:write required"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_missing_or_revoked_comes_with_where_to_connect_it() {
    let stage = stage().await;
    for (tenant, code) in [("initech", "account_missing"), ("revoked", "auth_revoked")] {
        let refusal = Refusal { status: 401, ..denied(code, to_connect(&stage, tenant)) };
        let asked = Asked::of(tenant, "researcher", "GET", "/echo");
        for answer in refused(&stage, &asked, &refusal).await {
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"keybearer\"");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_account_says_who_froze_it() {
    let stage = stage().await;
    let refusal = denied("account_frozen", json!({"by": "on-call"}));
    refused(&stage, &Asked::of("frozen", "researcher", "GET", "/echo"), &refusal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_readings_says_which_part_of_it() {
    let stage = stage().await;
    let ask = |path| Asked::of("acme", "researcher", "GET", path);
    let table = [
        (ask("/a/../echo"), "the path has a . or .. segment"),
        (ask("/%2e%2e/echo"), "the path has a . or .. segment"),
        (ask("//echo"), "the path has an empty segment"),
        (ask("/echo%2fx"), "the path has an encoded slash"),
        (ask("/echo;v=1"), "the path has a path parameter (a ; in a segment)"),
        (
            ask("/echo").with("agent-identity", "tenant=globex"),
            "the Agent-Identity header is there twice: send it once",
        ),
        (Asked::of("acme", "researcher", "TRACE", "/echo"), "TRACE would send the credential back"),
    ];
    for (asked, why) in table {
        let members = json!({"why": why});
        let refusal =
            Refusal { status: 400, proxy_error: "http_request_error", ..denied("bad_request", members) };
        refused(&stage, &asked, &refusal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_must_be_read_may_only_be_so_large() {
    let stage = stage().await;
    let mut asked = Asked::of("acme", "publisher", "POST", "/echo")
        .with("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    asked.body = "text=longer+than+sixteen+bytes";
    let refusal = Refusal { status: 413, ..denied("body_too_large", json!({"limit": 16})) };
    refused(&stage, &asked, &refusal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn port_80_of_a_connector_is_refused_for_want_of_tls() {
    let stage = stage().await;
    let refusal = denied("destination_denied", json!({"host": HOST, "why": "cleartext"}));
    let answer = stage.get("acme", "researcher", "http://api.crm.test:80/echo").await;
    refusal.check(&stage, &answer).await;
    let stream = stage.connected("api.crm.test:80", "").await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    Drain::default().spawn(connection);
    let mut tunnel = super::Connection::One(sender);
    let request = super::inside(&tunnel, "GET", HOST, "/echo")
        .header("agent-identity", super::identity("acme", "researcher"));
    let answer = tunnel.call(request.body(super::Body::default()).unwrap()).await;
    refusal.check(&stage, &answer).await;
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_port_than_the_connectors_is_refused() {
    let stage = stage().await;
    let answer = stage.get("acme", "researcher", "https://api.crm.test:8443/echo").await;
    let members = json!({"host": HOST, "why": "no_connector"});
    let refusal = Refusal { proxy_error: "destination_not_found", ..denied("destination_denied", members) };
    refusal.check(&stage, &answer).await;
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_destinations_in_one_request_are_misdirected() {
    let stage = stage().await;
    let refusal =
        Refusal { status: 421, code: "misdirected", proxy_error: "http_request_error", members: json!({}) };
    for (way, uri) in [
        (Way::Absolute, "http://api.crm.test/echo"),
        (Way::Tunnel("http/1.1"), "/echo"),
        (Way::Tunnel("h2"), "https://api.crm.test/echo"),
    ] {
        let mut connection = way.open(&stage, HOST).await;
        let request = super::Request::get(uri)
            .header("host", "other.crm.test")
            .header("agent-identity", super::identity("acme", "researcher"));
        let answer = connection.call(request.body(super::Body::default()).unwrap()).await;
        refusal.check(&stage, &answer).await;
        let event = stage.last_action().await;
        assert_eq!((&event["tenant"], &event["method"]), (&"acme".into(), &"GET".into()), "{way:?}");
        assert_eq!(event["host"].as_str(), matches!(way, Way::Tunnel(_)).then_some(HOST), "{way:?}");
    }
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_long_is_refused_in_either_version() {
    let stage = stage().await;
    let why = "the request's head is longer than limits.header_bytes (65536), or has more than 100 fields in HTTP/1.1";
    let refusal = Refusal {
        status: 431,
        code: "bad_request",
        proxy_error: "http_request_error",
        members: json!({"why": why}),
    };
    for way in Way::ALL {
        let long = "x".repeat(70_000);
        let asked = Asked::of("acme", "researcher", "GET", "/echo").with("x-long", &long);
        refusal.check(&stage, &way.ask(&stage, &asked).await).await;
    }
    assert_eq!(stage.provider.requests().len(), 0);
}
