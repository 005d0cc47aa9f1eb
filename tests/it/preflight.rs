//! What agents ask the proxy itself: `/v1/operations` and `/v1/preflight`, against what requests are really told.

mod property;

use http::Request;
use keybearer::{
    id::{AccountKey, ConnectorName, Principal, Scope, TenantId},
    vault::NewAccount,
};
use serde_json::{Map, Value, json};

use crate::support::{
    agent::{Answer, Body, absolute, identity, inside},
    stage::{POLICY, Stage, Staging, account},
};

/// Two more connectors, whose hosts are the account's or a whole domain, one that needs no account, and a role
/// that is only observed.
const MORE: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: fleet}
spec:
  hosts: ["{instance}.fleet.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {ships:read: []}
  operations: [{name: ship.read, request: "GET /echo", scopes: [ships:read]}]
---
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: wild}
spec:
  hosts: ["*.wild.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {beasts:read: []}
  operations: [{name: beast.read, request: "GET /echo", scopes: [beasts:read]}]
---
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: open}
spec:
  hosts: ["open.crm.test"]
  auth: {type: none}
  operations: [{name: page.read, request: "GET /echo"}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: sailor}
spec:
  tenants: ["*"]
  grants:
    - {connector: fleet, as: tenant, scopes: [ships:read]}
    - {connector: wild, as: tenant, scopes: [beasts:read]}
    - {connector: open, as: tenant}
    - {connector: crm, as: user, scopes: [accounts:read]}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: watched}
spec:
  tenants: ["*"]
  mode: observe
  grants: [{connector: crm, as: tenant, scopes: [accounts:read]}]
"#;

/// Tenants whose accounts are each in another state.
const STATES: [(&str, &str); 3] = [
    ("revoked", "kb-canary-revoked-51c0ffee"),
    ("frozen", "kb-canary-frozen-0badcafe1"),
    ("scanty", "kb-canary-scanty-99aabbcc2"),
];

async fn stage() -> Stage {
    let mut staging = Staging::default();
    staging.policies.push(("more.yaml", MORE.to_owned()));
    staging.config = "limits: {inspect_body_bytes: 4096}\n".to_owned();
    staging.names.extend(["na47.fleet.test", "open.crm.test"].map(str::to_owned));
    staging.accounts.extend(STATES.map(|(tenant, secret)| {
        let scopes = (tenant == "scanty").then(|| [Scope::new("accounts:read").unwrap()].into());
        NewAccount { scopes, ..account(tenant, "crm", Principal::Tenant, secret) }
    }));
    for (tenant, connector, instance) in
        [("acme", "fleet", Some("na47")), ("globex", "fleet", None), ("acme", "wild", None)]
    {
        let secret = format!("kb-canary-{connector}-of-{tenant}-0a1b2c");
        let mut account = account(tenant, connector, Principal::Tenant, &secret);
        account.metadata =
            instance.map(|name| ("instance".to_owned(), name.to_owned())).into_iter().collect();
        staging.accounts.push(account);
    }
    let stage = Stage::set(staging).await;
    stage.app().vault.revoke(&key("revoked")).await.unwrap();
    stage.app().vault.freeze(&key("frozen"), "on-call").await.unwrap();
    stage
}

fn key(tenant: &str) -> AccountKey {
    let connector = ConnectorName::new("crm").unwrap();
    AccountKey { tenant: TenantId::new(tenant).unwrap(), connector, principal: Principal::Tenant }
}

async fn operations(stage: &Stage, tenant: &str, role: &str, query: &str) -> Value {
    let url = format!("http://keybearer.internal/v1/operations{query}");
    let answer = stage.get(tenant, role, &url).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()
}

async fn post(stage: &Stage, identity: &str, body: impl Into<Body>) -> Answer {
    let request =
        absolute("POST", "http://keybearer.internal/v1/preflight").header("agent-identity", identity);
    stage.direct().await.call(request.body(body.into()).unwrap()).await
}

async fn preflight(stage: &Stage, identity: &str, items: &Value) -> Value {
    let answer = post(stage, identity, items.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// What an answer says of why it is none: nothing where the provider answered, and nothing of this action's own.
fn told(answer: &Answer) -> Map<String, Value> {
    let refused = answer.error().map(|_| answer.json());
    let mut told = refused.and_then(|json| json.as_object().cloned()).unwrap_or_default();
    told.remove("action_id");
    told
}

/// What a preflight says of one of its items, in the same form.
fn foretold(mut item: Value, asked: &Value) -> Map<String, Value> {
    let item = item.as_object_mut().unwrap();
    let ready = item.remove("ready").unwrap();
    assert_eq!(ready, json!(!item.contains_key("error")), "{item:?}");
    let mut item = std::mem::take(item);
    for (name, value) in asked.as_object().unwrap() {
        assert_eq!(&item[name], value);
    }
    // A refusal names its connector, operation and method itself; what it does not name was only repeated.
    item.retain(|name, value| asked.get(name) != Some(value));
    item
}

/// The same, of what a request was told.
fn without(mut told: Map<String, Value>, asked: &Value) -> Map<String, Value> {
    told.retain(|name, value| asked.get(name) != Some(value));
    told
}

/// Tenant, role, method, URL: one at least for each refusal that is decided before a request leaves.
const REQUESTS: [(&str, &str, &str, &str); 27] = [
    ("acme", "researcher", "GET", "http://api.crm.test/echo"),
    ("acme", "researcher", "GET", "http://crm.connector.internal/echo?q=1"),
    ("acme", "sailor", "GET", "http://na47.fleet.test/echo"),
    ("acme", "sailor", "GET", "http://open.crm.test/echo"),
    ("acme", "watched", "PATCH", "http://api.crm.test/echo"),
    ("acme", "watched", "GET", "http://api.crm.test/nowhere"),
    ("acme", "researcher", "GET", "http://keybearer.internal/ca.pem"),
    ("acme", "researcher", "GET", "http://keybearer.internal/ca.key"),
    ("acme", "researcher", "PATCH", "http://api.crm.test/echo"),
    ("acme", "publisher", "DELETE", "http://api.crm.test/echo"),
    ("acme", "publisher", "GET", "http://api.crm.test/nowhere"),
    ("acme", "stranger", "GET", "http://api.crm.test/echo"),
    ("acme", "researcher", "GET", "http://na47.fleet.test/echo"),
    ("acme", "sailor", "GET", "http://api.crm.test/echo"),
    ("acme", "sailor", "GET", "http://eu1.fleet.test/echo"),
    ("globex", "sailor", "GET", "http://na47.fleet.test/echo"),
    ("globex", "sailor", "GET", "http://fleet.connector.internal/echo"),
    ("initech", "researcher", "GET", "http://api.crm.test/echo"),
    ("revoked", "researcher", "GET", "http://api.crm.test/echo"),
    ("frozen", "researcher", "GET", "http://api.crm.test/echo"),
    ("scanty", "publisher", "PATCH", "http://api.crm.test/echo"),
    ("acme", "researcher", "GET", "http://unknown.test/echo"),
    ("acme", "researcher", "GET", "http://169.254.169.254/latest"),
    ("acme", "researcher", "GET", "http://api.crm.test:80/echo"),
    ("acme", "researcher", "GET", "http://api.crm.test:8443/echo"),
    ("acme", "researcher", "GET", "http://api.crm.test/a/../echo"),
    ("acme", "researcher", "TRACE", "http://api.crm.test/echo"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_beforehand_what_it_will_be_told() {
    let stage = stage().await;
    let mut codes = std::collections::BTreeSet::new();
    for (tenant, role, method, url) in REQUESTS {
        let asked = json!({"method": method, "url": url});
        let answer = preflight(&stage, &identity(tenant, role), &json!([asked])).await;
        let real = stage.ask(method, tenant, role, url).await;
        let item = answer["operations"][0].clone();
        assert_eq!(answer["ready"], item["ready"]);
        codes.insert(real.error().unwrap_or_default());
        assert_eq!(foretold(item, &asked), without(told(&real), &asked), "{tenant}/{role} {method} {url}");
    }
    let expected = [
        "",
        "account_frozen",
        "account_missing",
        "auth_revoked",
        "bad_request",
        "destination_denied",
        "insufficient_scope",
        "operation_unknown",
        "policy_denied",
    ];
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_url_is_one_inside_a_tunnel() {
    let stage = stage().await;
    for (host, path) in [
        ("api.crm.test", "/echo"),
        ("api.crm.test", "/nowhere"),
        ("crm.connector.internal", "/echo"),
        ("eu1.fleet.test", "/echo"),
        ("unknown.test", "/"),
    ] {
        let asked = json!({"method": "GET", "url": format!("https://{host}{path}")});
        let answer = preflight(&stage, &identity("acme", "researcher"), &json!([asked])).await;
        let mut tunnel = stage.tunnel(host, "http/1.1").await;
        let request =
            inside(&tunnel, "GET", host, path).header("agent-identity", identity("acme", "researcher"));
        let real = tunnel.call(request.body(Body::default()).unwrap()).await;
        let item = answer["operations"][0].clone();
        assert_eq!(foretold(item, &asked), without(told(&real), &asked), "{host}{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_passes_through_is_ready_in_a_tunnel_only() {
    let config = "  tunnel: [\"pypi.test\"]\n".to_owned();
    let stage = Stage::set(Staging { config, ..Staging::default() }).await;
    let items = json!([
        {"method": "GET", "url": "https://pypi.test/simple"},
        {"method": "GET", "url": "https://pypi.test:8443/simple"},
        {"method": "GET", "url": "http://pypi.test/simple"},
    ]);
    let answer = preflight(&stage, &identity("acme", "researcher"), &items).await;
    let errors = answer["operations"].as_array().unwrap().iter().map(|item| item["error"].clone());
    let denied = json!("destination_denied");
    assert_eq!(errors.collect::<Vec<_>>(), [Value::Null, denied.clone(), denied]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_told_beforehand_what_a_request_to_its_connector_will_be_told() {
    let stage = stage().await;
    for (tenant, role, connector, operation, method, path) in [
        ("acme", "researcher", "crm", "account.read", "GET", "/echo"),
        ("acme", "researcher", "crm", "opportunity.update", "PATCH", "/echo"),
        ("acme", "publisher", "crm", "record.delete", "DELETE", "/echo"),
        ("acme", "watched", "crm", "record.delete", "DELETE", "/echo"),
        ("acme", "stranger", "crm", "account.read", "GET", "/echo"),
        ("initech", "researcher", "crm", "account.read", "GET", "/echo"),
        ("revoked", "researcher", "crm", "account.read", "GET", "/echo"),
        ("frozen", "researcher", "crm", "account.read", "GET", "/echo"),
        ("scanty", "publisher", "crm", "opportunity.update", "PATCH", "/echo"),
        ("acme", "sailor", "fleet", "ship.read", "GET", "/echo"),
        ("globex", "sailor", "fleet", "ship.read", "GET", "/echo"),
        ("acme", "sailor", "open", "page.read", "GET", "/echo"),
        ("acme", "researcher", "nothing", "item.read", "GET", "/"),
    ] {
        let asked = json!({"connector": connector, "operation": operation});
        let answer = preflight(&stage, &identity(tenant, role), &json!([asked])).await;
        let real =
            stage.ask(method, tenant, role, &format!("http://{connector}.connector.internal{path}")).await;
        let item = answer["operations"][0].clone();
        assert_eq!(
            foretold(item, &asked),
            without(told(&real), &asked),
            "{tenant}/{role} {connector} {operation}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_does_not_exist_is_unknown_also_to_a_role_that_is_observed() {
    let stage = stage().await;
    for role in ["researcher", "watched"] {
        let items = json!([{"connector": "crm", "operation": "acount.read"}]);
        let answer = preflight(&stage, &identity("acme", role), &items).await;
        let item = &answer["operations"][0];
        assert_eq!((&item["error"], &item["ready"]), (&json!("operation_unknown"), &json!(false)), "{role}");
        assert_eq!(item["operation"], "acount.read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connectors_name_cannot_stand_for_another_destination() {
    let stage = stage().await;
    for name in ["x@crm", "crm:80", "crm.connector.internal:443"] {
        let items = json!([{"connector": name, "operation": "account.read"}]);
        let answer = preflight(&stage, &identity("acme", "researcher"), &items).await;
        assert_eq!(answer["operations"][0]["error"], "bad_request", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_of_a_whole_domain_is_ready_whichever_of_its_hosts_is_meant() {
    let stage = stage().await;
    let items = json!([{"connector": "wild", "operation": "beast.read"}]);
    let answer = preflight(&stage, &identity("acme", "sailor"), &items).await;
    assert_eq!(answer["ready"], true, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_ready_when_all_of_it_is() {
    let stage = stage().await;
    let read = json!({"connector": "crm", "operation": "account.read"});
    let write = json!({"connector": "crm", "operation": "opportunity.update"});
    for (role, items, ready) in [
        ("researcher", json!([read]), true),
        ("researcher", json!([read, write, read]), false),
        ("publisher", json!([read, write, read]), true),
        ("researcher", json!([]), true),
    ] {
        for body in [items.clone(), json!({"operations": items})] {
            let answer = preflight(&stage, &identity("acme", role), &body).await;
            assert_eq!(answer["ready"], ready, "{role} {body}");
            let asked: Vec<&Value> = items.as_array().unwrap().iter().collect();
            let told = answer["operations"].as_array().unwrap();
            assert!(told.iter().zip(&asked).all(|(told, asked)| told["operation"] == asked["operation"]));
            assert_eq!(told.len(), asked.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_the_identitys_own_in_a_stable_order() {
    let stage = stage().await;
    let told = operations(&stage, "acme", "publisher", "").await;
    assert_eq!(told["identity"], json!({"tenant": "acme", "role": "publisher"}));
    let names: Vec<&str> =
        told["operations"].as_array().unwrap().iter().map(|o| o["operation"].as_str().unwrap()).collect();
    let in_file = ["account.read", "opportunity.update", "file.upload", "file.read", "events", "call"];
    assert_eq!(names, in_file, "record.delete is denied, and the other connectors are not granted");
    let expected = json!({
        "connector": "crm", "operation": "opportunity.update", "effect": "write",
        "scopes": ["opportunities:write"], "principal": "tenant", "account_status": "ready",
        "requests": ["PATCH /echo", "POST /echo", "PUT /echo", "POST /anything"],
    });
    assert_eq!(told["operations"][1], expected);
    assert_eq!(operations(&stage, "acme", "publisher", "").await, told);
    let connectors = operations(&stage, "acme", "sailor", "").await;
    let connectors: Vec<Value> =
        connectors["operations"].as_array().unwrap().iter().map(|o| o["connector"].clone()).collect();
    assert_eq!(connectors, ["fleet", "open", "wild"], "a user's account needs a user");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_say_how_their_accounts_stand_and_where_a_person_mends_it() {
    let stage = stage().await;
    let url = |tenant: &str| format!("http://{}/connect/{tenant}/crm?as=tenant", stage.app().admin);
    for (tenant, status, members) in [
        ("acme", "ready", json!({})),
        ("initech", "missing", json!({"error": "account_missing", "reconnect_url": url("initech")})),
        ("revoked", "revoked", json!({"error": "auth_revoked", "reconnect_url": url("revoked")})),
        ("frozen", "frozen", json!({"error": "account_frozen", "by": "on-call"})),
        (
            "scanty",
            "insufficient_scope",
            json!({"error": "insufficient_scope", "reconnect_url": url("scanty"), "missing": ["opportunities:write"]}),
        ),
    ] {
        let told = operations(&stage, tenant, "publisher", "").await;
        let mut update = told["operations"][1].as_object().unwrap().clone();
        assert_eq!(update.remove("account_status").unwrap(), status);
        let detail = update.remove("detail");
        assert_eq!(detail.is_some(), status != "ready");
        update.retain(|name, _| ["error", "reconnect_url", "missing", "by"].contains(&name.as_str()));
        assert_eq!(Value::Object(update), members, "{tenant}");
    }
    let told = operations(&stage, "scanty", "publisher", "").await;
    let standing: Vec<&Value> =
        told["operations"].as_array().unwrap().iter().map(|o| &o["account_status"]).collect();
    assert_eq!(standing, ["ready", "insufficient_scope", "ready", "ready", "ready", "ready"]);
    let told = operations(&stage, "globex", "sailor", "?connector=fleet").await;
    assert_eq!(told["operations"][0]["account_status"], "no_host");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_observed_is_listed_as_such() {
    let stage = stage().await;
    let told = operations(&stage, "acme", "watched", "").await;
    let would_deny: Vec<(Value, Value)> = told["operations"].as_array().unwrap()[..3]
        .iter()
        .map(|o| (o["operation"].clone(), o["would_deny"].clone()))
        .collect();
    let expected = [
        (json!("account.read"), Value::Null),
        (json!("opportunity.update"), json!("insufficient_scope")),
        (json!("record.delete"), json!("insufficient_scope")),
    ];
    assert_eq!(would_deny, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_of_one_connector_are_had_by_its_name() {
    let stage = stage().await;
    for (query, connectors) in [
        ("?connector=fleet", vec!["fleet"]),
        ("?x=y&connector=wild", vec!["wild"]),
        ("?connector=nothing", vec![]),
        ("?connector=", vec![]),
        ("?connectors=fleet", vec!["fleet", "open", "wild"]),
    ] {
        let told = operations(&stage, "acme", "sailor", query).await;
        let found: Vec<&str> =
            told["operations"].as_array().unwrap().iter().map(|o| o["connector"].as_str().unwrap()).collect();
        assert_eq!(found, connectors, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_leaves_no_trace_but_on_record() {
    let stage = stage().await;
    operations(&stage, "acme", "publisher", "").await;
    let items = json!([{"connector": "crm", "operation": "account.read"}]);
    let asked = post(&stage, &identity("acme", "researcher"), items.to_string()).await;
    assert_eq!(stage.provider.requests().len(), 0);
    let event = stage.action(asked.headers["keybearer-action"].to_str().unwrap()).await;
    for (member, value) in [
        ("tenant", json!("acme")),
        ("role", json!("researcher")),
        ("method", json!("POST")),
        ("host", json!("keybearer.internal")),
        ("decision", json!("allow")),
        ("rule", json!("keybearer.internal")),
        ("status", json!(200)),
        ("bytes_in", json!(items.to_string().len())),
        ("bytes_out", json!(asked.body.len())),
        ("account", Value::Null),
    ] {
        assert_eq!(event[member], value, "{member}: {event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_at_the_next_asking() {
    let stage = stage().await;
    let items = json!([{"connector": "crm", "operation": "account.read"}]);
    let researcher = identity("acme", "researcher");
    assert_eq!(preflight(&stage, &researcher, &items).await["ready"], true);
    stage.app().vault.freeze(&key("acme"), "on-call").await.unwrap();
    let frozen = async {
        loop {
            let answer = preflight(&stage, &researcher, &items).await;
            if answer["operations"][0]["error"] == "account_frozen" {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), frozen).await.unwrap();
    stage.app().vault.unfreeze(&key("acme")).await.unwrap();
    assert_eq!(preflight(&stage, &researcher, &items).await["ready"], true, "a refusal is never remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_who_does_not_say_who_asks() {
    let stage = stage().await;
    for (method, path) in [("GET", "/v1/operations"), ("POST", "/v1/preflight")] {
        let url = format!("http://keybearer.internal{path}");
        let request: Request<Body> = absolute(method, &url).body(Body::from("[]")).unwrap();
        let answer = stage.direct().await.call(request).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (407, Some("identity_required")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_asks_for_those_it_may_speak_for() {
    let binding = "apiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {name: local}\n\
                   spec: {workloads: [{local: true}], tenants: [acme], roles: [researcher]}\n";
    let policies = vec![("policy.yaml", POLICY.to_owned()), ("binding.yaml", binding.to_owned())];
    let config = "identity: {mode: bound}\n".to_owned();
    let stage = Stage::set(Staging { policies, config, ..Staging::default() }).await;
    assert_eq!(preflight(&stage, &identity("acme", "researcher"), &json!([])).await["ready"], true);
    for (tenant, role) in [("globex", "researcher"), ("acme", "publisher")] {
        let answer = stage.get(tenant, role, "http://keybearer.internal/v1/operations").await;
        assert_eq!(answer.error().as_deref(), Some("identity_not_allowed"), "{tenant}/{role}");
        let answer = post(&stage, &identity(tenant, role), "[]").await;
        assert_eq!(answer.error().as_deref(), Some("identity_not_allowed"), "{tenant}/{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_plan_is_refused_whole() {
    let stage = stage().await;
    let long = format!("[{}]", vec!["{}"; 1001].join(","));
    for (body, says) in [
        ("", "line 1, column 0"),
        ("{", "line 1, column 1"),
        ("\"crm\"", "line 1"),
        ("{\"operation\": []}", "line 1, column 12"),
        ("[{\"connector\": \"crm\", \"operation\": \"account.read\", \"header\": \"x\"}]", "line 1"),
        ("[{\"connector\": \"a/b\", \"operation\": \"account.read\"}]", "line 1"),
        ("[{\"connector\": \"crm\"}]", "operations[0]"),
        ("[{\"connector\": \"crm\", \"operation\": \"x\"}, {\"method\": \"GET\"}]", "operations[1]"),
        ("[{\"connector\": \"crm\", \"operation\": \"x\", \"url\": \"http://a/\"}]", "operations[0]"),
        (&long, "longer than 1000"),
    ] {
        let answer = post(&stage, &identity("acme", "researcher"), body.to_owned()).await;
        assert_eq!(answer.error().as_deref(), Some("bad_request"), "{body}");
        let why = answer.json()["why"].as_str().unwrap().to_owned();
        assert!(why.contains(says), "{body}: {why}");
    }
    let answer = post(&stage, &identity("acme", "researcher"), vec![b' '; 4097]).await;
    assert_eq!((answer.error().as_deref(), &answer.json()["limit"]), (Some("body_too_large"), &json!(4096)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_could_not_be_made_is_refused_in_its_place() {
    let stage = stage().await;
    let read = json!({"connector": "crm", "operation": "account.read"});
    for (method, url) in [
        ("GET", "api.crm.test/echo"),
        ("GET", "/echo"),
        ("GET", "ftp://api.crm.test/echo"),
        ("GET", "http://api .crm.test/echo"),
        ("GE T", "http://api.crm.test/echo"),
        ("", "http://api.crm.test/echo"),
        ("CONNECT", "http://api.crm.test/"),
    ] {
        let items = json!([read, {"method": method, "url": url}, read]);
        let answer = preflight(&stage, &identity("acme", "researcher"), &items).await;
        let items = answer["operations"].as_array().unwrap();
        let ready: Vec<&Value> = items.iter().map(|item| &item["ready"]).collect();
        assert_eq!(ready, [true, false, true], "{method} {url}");
        assert_eq!(items[1]["error"], "bad_request", "{method} {url}");
    }
}
