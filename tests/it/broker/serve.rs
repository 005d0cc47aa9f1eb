//! `keybearer vault serve` from outside: a cluster's tokens, TLS, HTTP/1.1 and HTTP/2, and the command line beside it.

use std::{net::TcpListener, path::Path, process::Command};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::BodyExt as _;
use keybearer::{app::BrokerApp, config::Config, vault::Change};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::{
    cli::Desk,
    laws::wire::ALPNS,
    support::{
        broker::{Broker, Caller, folder},
        cluster::Cluster,
        evidence,
        issuer::{Issuer, Profile},
        provider::TestAuthority,
        records,
    },
};

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: crm}
spec:
  hosts: ["api.crm.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {accounts:read: []}
  operations: [{name: account.read, request: "GET /echo", scopes: [accounts:read]}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: role, scopes: [accounts:read]}]
"#;

const GUIDE: &str = include_str!("../../../docs/broker.md");

/// Every researcher's account holds its tenant's secret.
const SECRETS: [(&str, &str); 2] =
    [("acme", "kb-canary-broker-acme-91c7"), ("globex", "kb-canary-broker-globex-40aa")];
const ACME: &str = "acme/crm/role:researcher";
const GLOBEX: &str = "globex/crm/role:researcher";

/// Bindings, of each service account of the namespace `agents` and its tenants.
fn bound(bindings: &[(&str, &str)]) -> String {
    let document = |(name, tenants): &(&str, &str)| {
        format!(
            "---\napiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {{name: {name}}}\n\
             spec: {{workloads: [{{serviceAccount: agents/{name}}}], tenants: [{tenants}], roles: [researcher]}}\n"
        )
    };
    POLICY.to_owned() + &bindings.iter().map(document).collect::<String>()
}

/// A cluster, a broker in it, and two tenants' accounts.
struct Scene {
    desk: Desk,
    authority: TestAuthority,
    cluster: Cluster,
    broker: Broker,
}

impl Scene {
    async fn set(bindings: &[(&str, &str)]) -> Self {
        Self::configured(bindings, "").await
    }

    /// With these lines more in the configuration's `broker`.
    async fn configured(bindings: &[(&str, &str)], config: &str) -> Self {
        evidence::keep_logs();
        keybearer::tls::init_crypto();
        let (desk, authority) = (Desk::new(), TestAuthority::new());
        let cluster = Cluster::start(&authority).await;
        folder(&desk, &authority, &cluster, &bound(bindings), config);
        let broker = Broker::start(&desk).await;
        for (tenant, secret) in SECRETS {
            let account = format!("{tenant}/crm/role:researcher");
            desk.done(&["account", "add", &account, "--scopes", "accounts:read"], secret);
        }
        Self { desk, authority, cluster, broker }
    }

    async fn caller(&self, workload: &str, alpn: &str) -> Caller {
        let token = self.cluster.token(&format!("agents/{workload}"));
        Caller::connect(self.broker.address, &self.authority, alpn, token).await
    }

    fn write_policy(&self, bindings: &[(&str, &str)]) {
        let aside = self.desk.dir.path().join("aside.yaml");
        std::fs::write(&aside, bound(bindings)).unwrap();
        std::fs::rename(aside, self.desk.dir.path().join("policies/policy.yaml")).unwrap();
    }

    /// The audit log's events of this name so far.
    fn events(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.desk.dir.path().join("data/audit.jsonl")).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == name).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let log = self.desk.dir.path().join("data/audit.jsonl");
        evidence::keep("audit", &std::fs::read(log).unwrap_or_default());
    }
}

fn told_secret(answer: &Value) -> String {
    String::from_utf8(BASE64_STANDARD.decode(answer["fields"]["token"].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_workload_gets_its_own_tenants_accounts_and_no_others() {
    let scene = Scene::set(&[("crew", "acme"), ("other", "globex")]).await;
    for alpn in ALPNS {
        let mut crew = scene.caller("crew", alpn).await;
        let mut other = scene.caller("other", alpn).await;
        let (status, answer) = crew.ask(ACME, "researcher", "give").await;
        assert_eq!((status.as_u16(), told_secret(&answer)), (200, SECRETS[0].1.to_owned()), "{alpn}");
        let (status, answer) = other.ask(GLOBEX, "researcher", "give").await;
        assert_eq!((status.as_u16(), told_secret(&answer)), (200, SECRETS[1].1.to_owned()), "{alpn}");
        for (caller, account) in [(&mut crew, GLOBEX), (&mut other, ACME)] {
            let (status, problem) = caller.ask(account, "researcher", "give").await;
            assert_eq!((status.as_u16(), &problem["error"]), (403, &json!("identity_not_allowed")));
        }
        let mut stranger = scene.caller("stranger", alpn).await;
        assert_eq!(stranger.ask(ACME, "researcher", "give").await.0, 403, "{alpn}");
    }
    assert_eq!(scene.events("credential.given").len(), 4);
    let withheld = scene.events("credential.withheld");
    let workloads: Vec<_> = withheld.iter().map(|event| event["workload"].as_str().unwrap()).collect();
    assert_eq!(workloads, ["serviceAccount:agents/crew", "serviceAccount:agents/other"].repeat(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_keys_are_fetched_as_whom_it_knows_and_followed_when_they_rotate() {
    let scene = Scene::set(&[("crew", "acme")]).await;
    let mut crew = scene.caller("crew", "h2").await;
    assert_eq!(scene.cluster.asked(), [""; 0], "not before a token comes");
    assert_eq!(crew.ask(ACME, "researcher", "look").await.0, 200);
    assert_eq!(crew.ask(ACME, "researcher", "look").await.0, 200);
    assert_eq!(scene.cluster.asked(), ["document", "keys"]);
    scene.cluster.rotate();
    crew.becomes(scene.cluster.token("agents/crew"));
    assert_eq!(crew.ask(ACME, "researcher", "give").await.0, 200);
    assert_eq!(scene.cluster.asked(), ["document", "keys"]);

    for (claim, value) in [
        ("aud", json!(["https://kubernetes.default.svc"])),
        ("exp", json!(1_700_000_000)),
        ("exp", Value::Null),
        ("iss", json!("https://127.0.0.1:1")),
        ("sub", json!("system:serviceaccount:agents:admin")),
        ("sub", json!("spiffe://acme.test/agents/crew")),
    ] {
        let mut claims = scene.cluster.claims("agents/crew");
        claims[claim] = value.clone();
        crew.becomes(scene.cluster.sign(&claims));
        let (status, problem) = crew.ask(ACME, "researcher", "give").await;
        assert_eq!(
            (status.as_u16(), &problem["error"]),
            (401, &json!("workload_invalid")),
            "{claim} {value}"
        );
    }
    assert_eq!(scene.events("credential.given").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_the_command_line_is_told_to_whom_it_concerns() {
    let scene = Scene::set(&[("crew", "acme"), ("other", "globex")]).await;
    let mut crew = scene.caller("crew", "h2").await;
    let mut other = scene.caller("other", "http/1.1").await;
    let (mut watch, mut others) = (crew.watch().await, other.watch().await);
    assert_eq!(watch.next().await, json!({"heard": true}));

    scene.desk.done(&["account", "freeze", ACME, "--by", "alice"], "");
    assert_eq!(watch.news().await, json!({"account": ACME}));
    let (status, problem) = crew.ask(ACME, "researcher", "give").await;
    assert_eq!(
        (status.as_u16(), &problem["error"], &problem["by"]),
        (403, &json!("account_frozen"), &json!("alice"))
    );
    scene.desk.done(&["account", "unfreeze", ACME], "");
    assert_eq!(watch.news().await, json!({"account": ACME}));
    assert_eq!(crew.ask(ACME, "researcher", "give").await.0, 200);

    scene.desk.done(&["account", "freeze", "--all", "--tenant", "acme", "--by", "alice"], "");
    assert_eq!(watch.news().await, json!({"whole": {"tenant": "acme"}}));
    assert_eq!(crew.ask(ACME, "researcher", "give").await.1["error"], "account_frozen");
    scene.desk.done(&["account", "freeze", GLOBEX, "--by", "bob"], "");
    assert_eq!(others.news().await, json!({"account": GLOBEX}), "nothing of acme was told before");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bindings_hold_at_once_and_a_watch_of_a_workload_without_any_ends() {
    let scene = Scene::set(&[("crew", "acme"), ("other", "globex")]).await;
    let mut crew = scene.caller("crew", "h2").await;
    let mut watch = crew.watch().await;
    scene.write_policy(&[("crew", "acme, globex"), ("other", "globex")]);
    let revision = watch.news().await["policy_revision"].clone();
    assert!(revision.is_string());
    assert_eq!(watch.news().await, json!({"unknown": true}));
    assert_eq!(told_secret(&crew.ask(GLOBEX, "researcher", "give").await.1), SECRETS[1].1);
    scene.desk.done(&["account", "freeze", GLOBEX, "--by", "bob"], "");
    assert_eq!(watch.news().await, json!({"account": GLOBEX}));

    scene.write_policy(&[("other", "globex")]);
    assert_eq!(watch.news().await, Value::Null);
    assert_eq!(crew.ask(ACME, "researcher", "give").await.1["error"], "identity_not_allowed");
    let again = crew.send("GET", "/v1/watch", "", String::new()).await.unwrap();
    assert_eq!(again.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_told_to_stop_ends_its_watches_and_then_itself() {
    let mut scene = Scene::set(&[("crew", "acme")]).await;
    let mut watches = Vec::new();
    for alpn in ALPNS {
        watches.push(scene.caller("crew", alpn).await.watch().await);
    }
    scene.broker.stop();
    for watch in &mut watches {
        assert_eq!(watch.news().await, Value::Null);
    }
    assert!(scene.broker.ended().await.success());
    assert_eq!(scene.events("broker.stopped").len(), 1);
    scene.desk.done(&["audit", "verify"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_and_the_next_request_is_served() {
    let scene = Scene::set(&[("crew", "acme")]).await;
    for alpn in ALPNS {
        let mut crew = scene.caller("crew", alpn).await;
        let long = crew.send("POST", "/v1/credential", "", "x".repeat(100_000)).await;
        assert!(long.is_err() || long.is_ok_and(|answer| answer.status() == 400), "{alpn}");
        let mut crew = scene.caller("crew", alpn).await;
        let head = crew.send("GET", "/v1/watch", &"x".repeat(40_000), String::new()).await;
        assert!(head.is_err() || head.is_ok_and(|answer| answer.status() == 431), "{alpn}");
        let mut crew = scene.caller("crew", alpn).await;
        assert_eq!(crew.ask(ACME, "researcher", "look").await.0, 200, "{alpn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_holds_a_quarter_of_the_room_until_its_workloads_have_proved_themselves() {
    let scene = Scene::configured(&[("crew", "acme"), ("other", "globex")], "  connections: 8\n").await;
    let mut served = Vec::new();
    for (workload, account) in [("crew", ACME), ("crew", ACME), ("other", GLOBEX), ("other", GLOBEX)] {
        let mut caller = scene.caller(workload, "h2").await;
        assert_eq!(caller.ask(account, "researcher", "look").await.0, 200, "{workload}");
        served.push((caller, account));
    }
    let silent = async || TcpStream::connect(scene.broker.address).await.unwrap();
    let held = [silent().await, silent().await];
    assert!(matches!(silent().await.read(&mut [0]).await, Ok(0) | Err(_)), "it is closed");
    assert!(held.iter().all(|open| open.try_read(&mut [0]).is_err()), "and not because all are");
    for (caller, account) in &mut served {
        assert_eq!(caller.ask(account, "researcher", "look").await.0, 200, "{account}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_measures_what_it_did_and_says_whether_it_is_ready() {
    let scene = Scene::set(&[("crew", "acme")]).await;
    let mut crew = scene.caller("crew", "h2").await;
    let _watch = crew.watch().await;
    crew.ask(ACME, "researcher", "give").await;
    crew.ask(GLOBEX, "researcher", "give").await;
    let metrics = get(&scene, "/metrics").await;
    evidence::keep("metrics", metrics.as_bytes());
    for line in [
        r#"keybearer_broker_requests_total{outcome="ok",route="credential"} 1"#,
        r#"keybearer_broker_requests_total{outcome="identity_not_allowed",route="credential"} 1"#,
        r#"keybearer_broker_requests_total{outcome="ok",route="watch"} 1"#,
        "keybearer_broker_watches 1",
        "keybearer_broker_connections 1",
        "keybearer_broker_tls_handshakes_failed_total 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(get(&scene, "/readyz").await.contains("\"ready\":true"));
}

/// What the admin listener says.
async fn get(scene: &Scene, path: &str) -> String {
    let url = format!("http://{}{path}", scene.broker.admin);
    let roots = std::sync::Arc::new(rustls::RootCertStore::empty());
    let tls = std::sync::Arc::new(keybearer::tls::upstream_config(&roots, keybearer::tls::Alpn::H1));
    let limit = std::time::Duration::from_mins(1);
    String::from_utf8(keybearer::fetch::get(&url, &tls, 1 << 20, limit).await.unwrap()).unwrap()
}

/// The shell blocks of the guide as one script.
fn script() -> String {
    let guide =
        GUIDE.split("<!-- broker:begin").nth(1).and_then(|rest| rest.split("<!-- broker:end -->").next());
    let blocks = guide.expect("docs/broker.md has a guide").split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn the_guide_leads_from_nothing_to_a_broker_that_answers() {
    let home = tempfile::tempdir().unwrap();
    let (broker, admin) = (free_port(), free_port());
    let script = script().replace(":7443", &format!(":{broker}"));
    let program = Path::new(env!("CARGO_BIN_EXE_keybearer")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var_os("PATH").unwrap().display());
    let output = Command::new("sh")
        .args(["-euc", &format!("trap 'kill $! 2>/dev/null || true' EXIT\n{script}")])
        .current_dir(home.path())
        .env("PATH", path)
        .env("HOME", home.path())
        .env("KEYBEARER_BROKER__LISTEN", format!("127.0.0.1:{broker}"))
        .env("KEYBEARER_LISTEN__ADMIN", format!("127.0.0.1:{admin}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let all = format!("{said}\n--- standard error ---\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    for told in
        ["\"standing\":\"live\"", "\"error\":\"identity_not_allowed\"", "{\"begin\":{", "{\"heard\":true}"]
    {
        assert!(said.contains(told), "{told:?} is not in\n{all}");
    }
    assert!(!all.contains("a-made-up-token"), "{all}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn without_an_issuer_it_does_not_start_and_says_why() {
    let desk = Desk::new();
    let ran = desk.run(&["vault", "serve"], "");
    assert_ne!(ran.status, 0);
    assert!(ran.err.contains("broker.issuers is empty"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_ended_is_refreshed_by_the_broker_and_its_refresh_token_stays_there() {
    evidence::keep_logs();
    keybearer::tls::init_crypto();
    let (desk, authority) = (Desk::new(), TestAuthority::new());
    let cluster = Cluster::start(&authority).await;
    let issuer = Issuer::start(&authority, Profile::default()).await;
    let policy = records::POLICY.to_owned() + bound(&[("crew", "acme")]).strip_prefix(POLICY).unwrap();
    let address = issuer.address();
    let config = format!(
        "egress:\n  roots: {{file: roots.pem}}\n  allow_addresses: [127.0.0.0/8]\n  resolve: \
         {{auth.provider.test: '{address}', api.provider.test: '{address}'}}\n{}",
        records::oauth()
    );
    folder(&desk, &authority, &cluster, &policy, &config);
    std::fs::write(desk.dir.path().join(records::APP.0), records::APP.1).unwrap();
    let app = BrokerApp::start(Config::load(Some(&desk.dir.path().join("keybearer.yaml"))).unwrap());
    let app = Box::pin(app).await.unwrap();
    let sold = issuer.consent("acme", &["read"]);
    let refresh = sold.refresh.clone().unwrap();
    let before = sold.access.clone();
    app.vault.add(records::expired("acme", sold)).await.unwrap();

    let token = cluster.token("agents/crew");
    let mut crew = Caller::connect(app.broker, &authority, "h2", token).await;
    let mut watch = crew.watch().await;
    let mut changes = app.vault.changes();
    let (status, looked) = crew.ask("acme/records/tenant", "researcher", "look").await;
    assert_eq!((status.as_u16(), &looked["standing"]), (200, &json!("over")));
    assert_eq!(issuer.presented("acme"), [0; 0], "who looks makes no provider be asked");
    let (status, answer) = crew.ask("acme/records/tenant", "researcher", "give").await;
    assert_eq!((status.as_u16(), &answer["standing"]), (200, &json!("live")), "{}", answer["trouble"]);
    assert_eq!(issuer.presented("acme"), [1]);
    assert!(told_secret(&answer).starts_with("kb-canary-") && told_secret(&answer) != before);
    assert!(answer["until"].is_string() && answer["due"].is_string() && answer["obtained"].is_string());
    let whole = answer.to_string();
    assert!(!whole.contains(&refresh) && !whole.contains(&BASE64_STANDARD.encode(&refresh)));
    assert_eq!(changes.recv().await.unwrap(), Change::Account(records::key("acme")));
    assert_eq!(watch.news().await, json!({"account": "acme/records/tenant"}));

    // The API refuses it: the broker gets another one, once, whoever says so.
    let refused = json!({"account": "acme/records/tenant", "subject": {"tenant": "acme", "role": "researcher"},
        "ask": "challenged", "refused": {"generation": answer["generation"], "obtained": "2026-01-01T00:00:00Z"}});
    let challenged = crew.send("POST", "/v1/credential", "", refused.to_string()).await.unwrap();
    assert_eq!(challenged.status(), 200);
    let told = challenged.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&told).unwrap()["fields"], Value::Null);
    assert_eq!(issuer.presented("acme"), [1], "it was another token that was refused");
    app.flush().await.unwrap();
    evidence::keep("metrics", &app.metrics().unwrap());
    app.stop().await;
    evidence::keep("audit", &std::fs::read(desk.dir.path().join("data/audit.jsonl")).unwrap());
}
