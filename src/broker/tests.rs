use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{body::Body, response::Response};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::broadcast, time::timeout};
use tower::ServiceExt as _;

use super::{Broker, Metrics, Parts};
use crate::{
    audit::{self, Audit},
    credential::Local,
    drain::Drain,
    id::{AccountKey, TenantId},
    identity::{Workloads, fixture::Signer},
    ruleset::{Excerpt, Feed, File, Outcome, Rules},
    secret::Secret,
    vault::{Change, Faults, Hold, Material, NewAccount, Source, Vault, Whole},
};

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: ["api.crm.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {contacts:read: [], contacts:write: []}
  operations:
    - {name: contact.list, request: "GET /contacts", scopes: [contacts:read]}
    - {name: contact.add, request: "POST /contacts", scopes: [contacts:write]}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: role, scopes: [contacts:read]}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: publisher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: user, scopes: [contacts:write]}, {connector: crm, as: tenant, scopes: [contacts:read]}]
---
apiVersion: keybearer.dev/v1
kind: Binding
metadata: {name: crew}
spec: {workloads: [{serviceAccount: agents/crew}], tenants: [acme], roles: [researcher, publisher], users: [alice]}
---
apiVersion: keybearer.dev/v1
kind: Binding
metadata: {name: others}
spec: {workloads: [{serviceAccount: agents/globex}], tenants: [globex], roles: ["*"]}
"#;

/// Every account holds a secret that says whose it is.
const ACCOUNTS: [&str; 7] = [
    "acme/crm/role:researcher",
    "acme/crm/role:publisher",
    "acme/crm/tenant",
    "acme/crm/user:alice/publisher",
    "acme/crm/user:bob/publisher",
    "globex/crm/role:researcher",
    "globex/crm/tenant",
];

struct World {
    broker: Broker,
    vault: Vault,
    faults: Faults,
    feed: Feed,
    replaced: broadcast::Sender<AccountKey>,
    key: Signer,
    dir: TempDir,
}

/// A policy of one file, which is its own revision.
fn excerpt(text: &str) -> Excerpt {
    Excerpt {
        revision: text.into(),
        files: vec![File { name: "policy.yaml".to_owned(), text: text.to_owned() }],
    }
}

fn secret_of(account: &str) -> String {
    format!("kb-canary-{}", account.replace(['/', ':'], "-"))
}

impl World {
    async fn new() -> Self {
        Self::with("{connect_url: 'https://keybearer.acme.test/'}", audit::Config::default()).await
    }

    async fn with(config: &str, audit: audit::Config) -> Self {
        let (drain, dir) = (Drain::default(), tempfile::tempdir().unwrap());
        let (vault, faults) = Vault::faulty(&drain).await;
        for name in ACCOUNTS {
            let token = Secret::new(secret_of(name).into());
            vault
                .add(NewAccount {
                    key: name.parse().unwrap(),
                    material: Material::Static { fields: [("token".to_owned(), token)].into() },
                    scopes: None,
                    metadata: [("instance".to_owned(), "na47".to_owned())].into(),
                    authorization: Some("consent-1".to_owned()),
                })
                .await
                .unwrap();
        }
        let write = |file: &str, text: &[u8]| {
            let path = dir.path().join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = Signer::new(Algorithm::EdDSA, "k1");
        let jwks = write("jwks.json", &key.jwks());
        let issuer =
            format!("{{issuer: 'https://api', kind: kubernetes, jwks: {{file: {}}}}}", jwks.display());
        let issuer = serde_saphyr::from_str(&issuer).unwrap();
        let fetch = Arc::new(|_| unreachable!("the keys are in a file"));
        let registry = prometheus::Registry::new();
        let (rules, mut feed) = Rules::fed("a test");
        feed.replace(excerpt(POLICY)).unwrap();
        let parts = Parts {
            workloads: Workloads::open(vec![(issuer, fetch)], "keybearer", &drain).unwrap(),
            rules,
            vault: vault.clone(),
            local: Local::new(Arc::new(vault.clone())),
            audit: Audit::open(&audit, dir.path(), &audit::Metrics::register(&registry).unwrap()).unwrap(),
            admin: ([127, 0, 0, 1], 7090).into(),
            metrics: Metrics::register(&registry).unwrap(),
            drain: drain.clone(),
        };
        let broker = Broker::new(serde_saphyr::from_str(config).unwrap(), parts);
        let replaced = broadcast::Sender::new(2);
        drain.spawn(broker.clone().follow(replaced.subscribe()));
        Self { broker, vault, faults, feed, replaced, key, dir }
    }

    fn token_until(&self, name: &str, exp: u64) -> String {
        let sub = format!("system:serviceaccount:agents:{name}");
        self.key.sign(&json!({"iss": "https://api", "aud": "keybearer", "sub": sub, "exp": exp}))
    }

    fn token(&self, name: &str) -> String {
        self.token_until(name, now() + 600)
    }

    async fn call(&self, method: &str, path: &str, token: &str, body: Body) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}")).body(body).unwrap();
        self.broker.clone().router().oneshot(request).await.unwrap()
    }

    async fn ask(&self, workload: &str, question: &Value) -> (StatusCode, Value) {
        let body = Body::from(question.to_string());
        read(self.call("POST", "/v1/credential", &self.token(workload), body).await).await
    }

    async fn watch(&self, token: &str) -> Watch {
        let response = self.call("GET", "/v1/watch", token, Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
        Watch { body: response.into_body(), lines: Vec::new() }
    }

    /// A watch of a workload's that has begun and was told that all is well.
    async fn begun(&self, workload: &str) -> Watch {
        let mut watch = self.watch(&self.token(workload)).await;
        let handed = self.policy(workload, "").await.1["revision"].clone();
        assert_eq!(watch.next().await, json!({"begin": {"policy_revision": handed}}));
        assert_eq!(watch.next().await, json!({"heard": true}));
        watch
    }

    /// The rules that a workload is handed, unless it knows them.
    async fn policy(&self, workload: &str, known: &str) -> (StatusCode, Value) {
        let request = Request::get("/v1/policy").header(header::IF_NONE_MATCH, known);
        let bearer = format!("Bearer {}", self.token(workload));
        let request = request.header(header::AUTHORIZATION, bearer).body(Body::empty()).unwrap();
        read(self.broker.clone().router().oneshot(request).await.unwrap()).await
    }

    /// Takes other rules into use.
    fn follow(&mut self, policy: &str) {
        let outcome = self.feed.replace(excerpt(policy)).unwrap();
        assert!(matches!(outcome, Outcome::Loaded(_)), "{outcome:?}");
        self.broker.rules_changed();
    }

    fn change(&self, account: &str) {
        self.broker.changed(&Change::Account(account.parse().unwrap()));
    }

    async fn events(&self) -> Vec<Value> {
        self.broker.parts().audit.flush().await.unwrap();
        let text = std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["kind"] == "account").collect()
    }
}

struct Watch {
    body: Body,
    lines: Vec<Value>,
}

impl Watch {
    /// The next line; `null` where the watch has ended.
    async fn next(&mut self) -> Value {
        if self.lines.is_empty()
            && let Some(frame) = self.body.frame().await
        {
            let bytes = frame.unwrap().into_data().unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            assert!(text.ends_with('\n'));
            self.lines = text.lines().rev().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        self.lines.pop().unwrap_or_default()
    }

    /// The next line that is not about all being well.
    async fn news(&mut self) -> Value {
        loop {
            let line = self.next().await;
            if line != json!({"heard": true}) {
                return line;
            }
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn question(account: &str, role: &str, user: Option<&str>, ask: &str) -> Value {
    let tenant = account.split('/').next().unwrap();
    let mut subject = json!({"tenant": tenant, "role": role});
    if let Some(user) = user {
        subject["user"] = json!(user);
    }
    json!({"account": account, "subject": subject, "ask": ask, "of_a_newer_version": 1})
}

fn told_secret(answer: &Value) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = answer["fields"]["token"].as_str().unwrap();
    String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn each_kind_of_account_is_given_to_whose_requests_go_with_it_and_each_hand_out_is_recorded() {
    let world = World::new().await;
    let table = [
        ("crew", "acme/crm/role:researcher", "researcher", None),
        ("crew", "acme/crm/role:researcher", "researcher", Some("alice")),
        ("crew", "acme/crm/user:alice/publisher", "publisher", Some("alice")),
        ("crew", "acme/crm/tenant", "publisher", None),
        ("globex", "globex/crm/role:researcher", "researcher", None),
    ];
    for (workload, account, role, user) in table {
        let (status, answer) = world.ask(workload, &question(account, role, user, "give")).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(told_secret(&answer), secret_of(account));
        assert_eq!(answer["account"], account);
        assert_eq!(answer["standing"], "live");
        assert_eq!(answer["generation"], 1);
        assert_eq!(answer["authorization"], "consent-1");
        assert_eq!(answer["metadata"], json!({"instance": "na47"}));
        let page = answer["reconnect_url"].as_str().unwrap();
        assert!(page.starts_with("https://keybearer.acme.test/connect/"), "{page}");
    }
    let events = world.events().await;
    assert_eq!(events.len(), table.len());
    for (event, (workload, account, role, user)) in events.iter().zip(table) {
        assert_eq!(event["event"], "credential.given");
        assert_eq!(event["decision"], "allow");
        assert_eq!(event["workload"], format!("serviceAccount:agents/{workload}"));
        assert_eq!(event["account"], account);
        assert_eq!(event["tenant"], account.split('/').next().unwrap());
        assert_eq!(event["role"], role);
        assert_eq!(event["user"], json!(user));
        assert_eq!(event["generation"], 1);
        assert_eq!(event["policy_revision"], *world.broker.parts().rules.current().revision);
    }
}

#[tokio::test]
async fn nobody_is_given_what_no_binding_and_no_grant_gives_and_each_refusal_is_recorded() {
    let world = World::new().await;
    let table = [
        // Of another tenant.
        ("crew", question("globex/crm/role:researcher", "researcher", None, "give")),
        ("globex", question("acme/crm/role:researcher", "researcher", None, "give")),
        // Speaks for a tenant that it has, and asks for another one's.
        (
            "crew",
            json!({"account": "globex/crm/tenant", "subject": {"tenant": "acme", "role": "publisher"}, "ask": "give"}),
        ),
        // Of a role that is not its own, or that no binding gives.
        ("crew", question("acme/crm/role:publisher", "researcher", None, "give")),
        ("crew", question("acme/crm/role:publisher", "publisher", None, "give")),
        ("crew", question("acme/crm/tenant", "researcher", None, "give")),
        ("crew", question("acme/crm/role:admin", "admin", None, "give")),
        // Of a user that it may not speak for, or did not.
        ("crew", question("acme/crm/user:bob/publisher", "publisher", Some("bob"), "give")),
        ("crew", question("acme/crm/user:bob/publisher", "publisher", Some("alice"), "give")),
        ("crew", question("acme/crm/user:alice/publisher", "publisher", None, "give")),
        ("globex", question("globex/crm/user:alice/publisher", "publisher", Some("alice"), "give")),
        // Of no connector, and of nobody.
        ("crew", question("acme/erp/role:researcher", "researcher", None, "give")),
        ("crew", question("acme/crm/developer", "researcher", None, "give")),
        // Whoever may not have it is not told how it stands either.
        ("crew", question("globex/crm/role:researcher", "researcher", None, "look")),
        ("crew", question("globex/crm/role:researcher", "researcher", None, "ahead")),
        ("crew", question("globex/crm/role:researcher", "researcher", None, "challenged")),
    ];
    for (workload, question) in &table {
        let (status, problem) = world.ask(workload, question).await;
        assert_eq!(status, 403, "{workload} {question}");
        assert_eq!(problem["error"], "identity_not_allowed", "{question}");
        assert_eq!(problem["fields"], Value::Null);
    }
    let events = world.events().await;
    assert_eq!(events.len(), table.len());
    for (event, (workload, question)) in events.iter().zip(&table) {
        assert_eq!(event["event"], "credential.withheld");
        assert_eq!(event["decision"], "deny");
        assert_eq!(event["error"], "identity_not_allowed");
        assert_eq!(event["account"], question["account"]);
        assert_eq!(event["workload"], format!("serviceAccount:agents/{workload}"));
    }
}

#[tokio::test]
async fn who_has_not_proved_itself_or_is_bound_to_nothing_is_told_so() {
    let world = World::new().await;
    let other_audience = json!({"iss": "https://api", "aud": "x", "sub": "system:serviceaccount:agents:crew",
        "exp": now() + 60});
    for (token, status, error) in [
        (String::new(), 401, "workload_invalid"),
        ("kb-canary-no-token".to_owned(), 401, "workload_invalid"),
        (world.token_until("crew", now() - 120), 401, "workload_invalid"),
        (world.key.sign(&other_audience), 401, "workload_invalid"),
        (Signer::new(Algorithm::EdDSA, "k1").sign(&other_audience), 401, "workload_invalid"),
        (world.token("stranger"), 403, "identity_not_allowed"),
    ] {
        for (method, path) in [("POST", "/v1/credential"), ("GET", "/v1/watch")] {
            let response = world.call(method, path, &token, Body::empty()).await;
            let challenged = response.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            let (told, problem) = read(response).await;
            assert_eq!((told.as_u16(), problem["error"].as_str()), (status, Some(error)));
            assert!(!problem.to_string().contains("canary"), "{problem}");
        }
    }
    let twice = Request::get("/v1/watch")
        .header(header::AUTHORIZATION, format!("Bearer {}", world.token("crew")))
        .header(header::AUTHORIZATION, format!("Bearer {}", world.token("crew")));
    let response = world.broker.clone().router().oneshot(twice.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(world.events().await, Vec::<Value>::new());
}

#[tokio::test]
async fn what_is_no_question_is_refused_and_there_is_nothing_else_here() {
    let world = World::new().await;
    let token = world.token("crew");
    let long = format!("{{\"account\": \"{}\"}}", "a".repeat(9000));
    for body in
        ["", "{}", "null", r#"{"account": "acme/crm"}"#, r#"{"account": "a/b/tenant", "ask": "take"}"#, &long]
    {
        let (status, problem) =
            read(world.call("POST", "/v1/credential", &token, Body::from(body.to_owned())).await).await;
        assert_eq!((status.as_u16(), problem["error"].as_str()), (400, Some("bad_request")), "{body}");
    }
    for (method, path) in
        [("GET", "/v1/credential"), ("POST", "/v1/watch"), ("GET", "/"), ("GET", "/metrics")]
    {
        let (status, _) = read(world.call(method, path, &token, Body::empty()).await).await;
        assert_eq!(status, 404, "{method} {path}");
    }
}

#[tokio::test]
async fn an_account_that_gives_nothing_says_why_and_only_a_refused_hand_out_is_recorded() {
    let world = World::new().await;
    let researcher = "acme/crm/role:researcher";
    let give = question(researcher, "researcher", None, "give");
    let look = question(researcher, "researcher", None, "look");
    let acme = Whole::of_tenant(TenantId::new("acme").unwrap());
    let hold = Hold { source: Source::Operator, by: "alice".to_owned(), since: jiff::Timestamp::now() };
    world.vault.hold(&acme, hold).await.unwrap();
    for ask in [&give, &look] {
        let (status, problem) = world.ask("crew", ask).await;
        assert_eq!(
            (status.as_u16(), &problem["error"], &problem["by"]),
            (403, &json!("account_frozen"), &json!("alice"))
        );
    }
    let other = question("globex/crm/role:researcher", "researcher", None, "give");
    assert_eq!(world.ask("globex", &other).await.0, 200, "another tenant's goes on");
    let (status, problem) =
        world.ask("globex", &question("globex/crm/role:publisher", "publisher", None, "give")).await;
    assert_eq!((status.as_u16(), &problem["error"]), (403, &json!("identity_not_allowed")));

    world.vault.remove(&"globex/crm/role:researcher".parse().unwrap()).await.unwrap();
    let (status, problem) = world.ask("globex", &other).await;
    assert_eq!((status.as_u16(), &problem["error"]), (404, &json!("account_missing")));
    let page = "https://keybearer.acme.test/connect/globex/crm?as=role:researcher";
    assert_eq!(problem["reconnect_url"], page);

    world.faults.be_away();
    let (status, problem) = world.ask("crew", &give).await;
    assert_eq!((status.as_u16(), &problem["error"]), (503, &json!("vault_unavailable")));
    let told: Vec<_> =
        world.events().await.iter().map(|event| format!("{} {}", event["event"], event["error"])).collect();
    assert_eq!(
        told,
        [
            r#""credential.withheld" "account_frozen""#,
            r#""credential.given" null"#,
            r#""credential.withheld" "identity_not_allowed""#,
            r#""credential.withheld" "account_missing""#,
            r#""credential.withheld" "vault_unavailable""#,
        ]
    );
}

#[tokio::test]
async fn who_only_looks_is_given_no_secret_and_leaves_no_event() {
    let world = World::new().await;
    for ask in ["look", "challenged", "ahead"] {
        let (status, answer) = world.ask("crew", &question("acme/crm/tenant", "publisher", None, ask)).await;
        assert_eq!((status.as_u16(), &answer["standing"]), (200, &json!("live")), "{ask}");
        assert_eq!(answer["fields"], Value::Null, "{ask}");
    }
    assert_eq!(world.events().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_hand_out_that_cannot_be_recorded_is_not_made() {
    let audit = audit::Config { room: 1, patience: Duration::from_millis(1), ..audit::Config::default() };
    let world = World::with("{}", audit).await;
    let give = question("acme/crm/tenant", "publisher", None, "give");
    assert_eq!(world.ask("crew", &give).await.0, 200);
    let _all_the_room = world.broker.parts().audit.reserve().await.unwrap();
    let (status, problem) = world.ask("crew", &give).await;
    assert_eq!((status.as_u16(), &problem["error"]), (503, &json!("audit_unavailable")));
    assert_eq!(problem["fields"], Value::Null);
}

#[tokio::test]
async fn a_workload_that_asks_too_often_is_told_to_come_again() {
    let world = World::with("{per_second: 2}", audit::Config::default()).await;
    let give = question("acme/crm/tenant", "publisher", None, "give");
    assert_eq!(world.ask("crew", &give).await.0, 200);
    assert_eq!(world.ask("crew", &give).await.0, 200);
    let body = Body::from(give.to_string());
    let response = world.call("POST", "/v1/credential", &world.token("crew"), body).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(read(response).await.1["error"], "overloaded");
    let other = question("globex/crm/tenant", "publisher", None, "give");
    assert_eq!(world.ask("globex", &other).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_of_its_own_tenants_only() {
    let world = World::new().await;
    let mut crew = world.begun("crew").await;
    let mut globex = world.begun("globex").await;
    world.change("globex/crm/tenant");
    world.change("acme/crm/tenant");
    let whole = |tenant: &str| Change::Whole(Whole::of_tenant(TenantId::new(tenant).unwrap()));
    world.broker.changed(&whole("globex"));
    world.broker.changed(&whole("acme"));
    world.broker.changed(&Change::Unknown);
    assert_eq!(crew.news().await, json!({"account": "acme/crm/tenant"}));
    assert_eq!(crew.news().await, json!({"whole": {"tenant": "acme"}}));
    assert_eq!(crew.news().await, json!({"unknown": true}));
    assert_eq!(globex.news().await, json!({"account": "globex/crm/tenant"}));
    assert_eq!(globex.news().await, json!({"whole": {"tenant": "globex"}}));
    assert_eq!(globex.news().await, json!({"unknown": true}));
}

#[tokio::test(start_paused = true)]
async fn a_watch_beats_every_second_and_only_while_the_store_is_heard() {
    let world = World::new().await;
    let mut watch = world.begun("crew").await;
    let begun = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(watch.next().await, json!({"heard": true}));
    }
    assert_eq!(begun.elapsed().as_secs(), 10);

    world.faults.fail(["is_heard"]);
    world.broker.changed(&Change::Unknown);
    let silent = timeout(Duration::from_secs(30), watch.next()).await;
    assert!(silent.is_err(), "{silent:?}: sidecars go on with what they have");
    let refused = world.call("GET", "/v1/watch", &world.token("crew"), Body::empty()).await;
    assert_eq!(read(refused).await.1["error"], "vault_unavailable");

    world.faults.heal();
    assert_eq!(watch.news().await, json!({"unknown": true}));
    assert_eq!(watch.next().await, json!({"heard": true}));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_silent_for_a_moment_is_told_nothing_it_need_not_know() {
    let world = World::new().await;
    let mut watch = world.begun("crew").await;
    world.faults.fail(["is_heard"]);
    assert!(timeout(Duration::from_secs(3), watch.next()).await.is_err());
    world.faults.heal();
    assert_eq!(watch.next().await, json!({"heard": true}));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_told_that_anything_may_have_changed() {
    let world = World::new().await;
    let mut watch = world.begun("crew").await;
    for n in 0..5000 {
        world.change(&format!("acme/crm/role:r{n}"));
    }
    assert_eq!(watch.next().await, json!({"unknown": true}));
    assert_eq!(watch.next().await, json!({"account": "acme/crm/role:r3976"}), "1024 are kept, for all alike");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_minted_anew_is_told_and_missed_ones_too() {
    let world = World::new().await;
    let mut watch = world.begun("crew").await;
    world.replaced.send("acme/crm/tenant".parse().unwrap()).unwrap();
    assert_eq!(watch.news().await, json!({"account": "acme/crm/tenant"}));
    for _ in 0..3 {
        world.replaced.send("acme/crm/tenant".parse().unwrap()).unwrap();
    }
    assert_eq!(watch.news().await, json!({"unknown": true}));
}

#[tokio::test(start_paused = true)]
async fn other_rules_are_told_to_whom_they_concern_with_that_anything_may_have_changed() {
    let mut world = World::new().await;
    let (mut crew, mut globex) = (world.begun("crew").await, world.begun("globex").await);
    let before = world.policy("crew", "").await.1["revision"].clone();
    world.follow(&POLICY.replace("users: [alice]", "users: [alice, bob]"));
    let told = crew.news().await;
    assert_ne!(told, json!({"policy_revision": before}));
    assert_eq!(told["policy_revision"], world.policy("crew", "").await.1["revision"]);
    assert_eq!(crew.next().await, json!({"unknown": true}));
    world.change("globex/crm/tenant");
    assert_eq!(globex.news().await, json!({"account": "globex/crm/tenant"}), "nothing is new for it");

    world.follow(&POLICY.replace("agents/crew", "agents/crew2"));
    assert_eq!(crew.news().await, Value::Null, "no binding names it any more");
    let question = question("acme/crm/tenant", "publisher", None, "give");
    assert_eq!(world.ask("crew", &question).await.0, 403);
    assert_eq!(world.policy("crew", "").await.0, 403);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_missed_other_rules_is_told_of_them_too() {
    let mut world = World::new().await;
    let mut watch = world.begun("crew").await;
    world.follow(&POLICY.replace("users: [alice]", "users: [bob]"));
    for _ in 0..2000 {
        world.change("acme/crm/tenant");
    }
    assert!(watch.next().await["policy_revision"].is_string());
    assert_eq!(watch.next().await, json!({"unknown": true}));
}

#[tokio::test]
async fn a_workload_is_handed_its_own_rules_once() {
    let world = World::new().await;
    let (status, policy) = world.policy("crew", "").await;
    assert_eq!(status, 200);
    let text = policy["files"][0]["text"].as_str().unwrap();
    assert!(text.contains("acme") && !text.contains("globex"), "{text}");
    let tag = format!("\"{}\"", policy["revision"].as_str().unwrap());
    for known in [tag.clone(), format!("\"x\", W/{tag}")] {
        assert_eq!(world.policy("crew", &known).await.0, StatusCode::NOT_MODIFIED);
        assert_eq!(world.policy("globex", &known).await.0, StatusCode::OK, "another one's is another");
    }
    assert_eq!(world.policy("crew", "\"x\"").await.0, StatusCode::OK);
    assert_eq!(world.policy("stranger", "").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_token() {
    let world = World::new().await;
    let begun = tokio::time::Instant::now();
    let mut watch = world.watch(&world.token_until("crew", now() + 30)).await;
    assert_ne!(watch.next().await, Value::Null);
    assert_eq!(watch.news().await, Value::Null);
    let after = begun.elapsed().as_secs();
    assert!((60..=90).contains(&after), "a minute after exp, as long as it is believed: {after}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_the_broker_stops() {
    let world = World::new().await;
    let mut watch = world.begun("crew").await;
    world.broker.parts().drain.finish(Duration::ZERO).await;
    assert_eq!(watch.news().await, Value::Null);
}
