//! Law 6. If the vault, the audit, the policy or the provider's TLS fails, the request is refused and says so; it is
//! never forwarded bare.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use keybearer::{
    drain::Drain,
    host::HostPattern,
    proxy::Proxy,
    ruleset::{self, Excerpt, Feed, Rules},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::wire::{ALPNS, actions, asks, until};
use crate::support::{
    agent::{Answer, Body, absolute, http_over, identity, inside},
    apart,
    provider::Speaks,
    stage::{HOST, POLICY, SECRETS, Stage, Staging},
};

const URL: &str = "http://api.crm.test/echo";

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.error().as_deref()),
        (status, Some(code)),
        "{}",
        answer.text()
    );
    assert!(answer.json()["detail"].as_str().unwrap().starts_with(code));
    assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    for (_, secret) in SECRETS {
        assert!(!answer.text().contains(secret));
    }
}

/// Flips one bit of every sealed row in which the tenant is named.
fn damage_rows(data: &Path, tenant: &str) -> usize {
    let store = sled::open(data.join("vault")).unwrap();
    let mut damaged = 0;
    for (key, mut value) in store.iter().map(Result::unwrap) {
        if memchr::memmem::find(&key, tenant.as_bytes()).is_some() {
            *value.last_mut().unwrap() ^= 1;
            store.insert(key, value).unwrap();
            damaged += 1;
        }
    }
    store.flush().unwrap();
    damaged
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_open_is_refused_and_others_are_not() {
    let mut stage = Stage::open().await;
    stage.restart(|dir| assert!(damage_rows(&dir.join("data"), "acme") >= 1)).await;
    assert_refused(&stage.get("acme", "researcher", URL).await, 503, "vault_unavailable");
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let answer = tunnel.call(asks(&tunnel, "GET", "/echo")).await;
        assert_refused(&answer, 503, "vault_unavailable");
    }
    assert!(stage.provider.requests().is_empty());
    let event = stage.last_action().await;
    assert_eq!(
        (&event["decision"], &event["error"], &event["status"]),
        (&"deny".into(), &"vault_unavailable".into(), &503.into())
    );
    let answer = stage.get("globex", "researcher", URL).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["x-provider-tenant"].as_bytes()),
        (200, &b"globex"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_readable_account_nothing_goes_out_bare() {
    let stage = Stage::open().await;
    for (tenant, role) in [("initech", "researcher"), ("umbrella", "publisher")] {
        let answer = stage.get(tenant, role, URL).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (401, Some("account_missing")));
        assert_eq!(
            (&answer.json()["connector"], &answer.json()["principal"]),
            (&"crm".into(), &"tenant".into())
        );
    }
    assert!(stage.provider.requests().is_empty());
}

/// Puts the log out of the writer's reach.
fn lose_the_log(stage: &Stage) {
    fs::rename(log(stage), stage.dir().join("elsewhere.jsonl")).unwrap();
}

fn log(stage: &Stage) -> std::path::PathBuf {
    stage.dir().join("data/audit.jsonl")
}

async fn audit_fails_closed(durability: &str) {
    let config = format!("audit: {{durability: {durability}}}\n");
    let stage = Stage::set(Staging { config, ..Staging::default() }).await;
    assert_eq!(stage.get("acme", "researcher", URL).await.status, 200);
    actions(&stage, 1).await; // recorded a moment after its answer
    lose_the_log(&stage);
    let before = stage.provider.requests().len();
    assert_refused(&stage.get("acme", "researcher", URL).await, 503, "audit_unavailable");
    for alpn in ALPNS {
        let mut tunnel = stage.tunnel(HOST, alpn).await;
        let answer = tunnel.call(asks(&tunnel, "GET", "/echo")).await;
        assert_refused(&answer, 503, "audit_unavailable");
    }
    assert_eq!(stage.provider.requests().len(), before, "nothing was sent");
    fs::rename(stage.dir().join("elsewhere.jsonl"), log(&stage)).unwrap();
    until("the audit recovers", async || {
        (stage.get("acme", "researcher", URL).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_sent_with_sync_durability() {
    audit_fails_closed("sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_sent_with_batch_durability() {
    audit_fails_closed("batch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy_is_refused_and_the_last_good_one_stays() {
    let stage = Stage::open().await;
    let rules = stage.app().rules.clone();
    let good = rules.current().revision.clone();
    for broken in [
        "kind: [",
        "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {name: x}\nspec: {tenants: [\"*\"], grants: [{connector: nosuch, as: tenant}]}\n",
        "apiVersion: keybearer.dev/v1\nkind: Role\nmetadata: {name: x}\nspec: {tenants: [\"*\"], unheard_of: 1}\n",
    ] {
        stage.write_policy("broken.yaml", broken);
        until("the change is read", async || rules.last_error().map(|_| ())).await;
        assert_eq!(rules.current().revision, good);
        assert_eq!(stage.get("acme", "researcher", URL).await.status, 200, "what was allowed is");
        assert_eq!(
            stage.ask("PATCH", "acme", "researcher", URL).await.status,
            403,
            "and what was refused is"
        );
        let event = until("the refusal is recorded", async || {
            stage.events().await.into_iter().rev().find(|event| event["event"] == "policy.refused")
        })
        .await;
        assert!(event["detail"].as_str().unwrap().contains("broken.yaml"), "{event}");
        fs::remove_file(stage.dir().join("policies/broken.yaml")).unwrap();
        until("the files are good again", async || rules.last_error().is_none().then_some(())).await;
    }
    assert_eq!(rules.current().revision, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_whose_files_vanish_does_not_become_an_open_one() {
    let stage = Stage::open().await;
    let rules = stage.app().rules.clone();
    let before = rules.current().revision.clone();
    stage.write_policy("policy.yaml", "");
    until("the change is read", async || {
        (rules.current().revision != before || rules.last_error().is_some()).then_some(())
    })
    .await;
    let answer = stage.get("globex", "stranger", URL).await;
    assert_eq!(answer.status, 403);
    let seen = stage.provider.requests().len();
    assert_eq!(seen, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_does_not_start_with_a_policy_that_it_cannot_read() {
    let stage = Stage::open().await;
    stage.write_policy("broken.yaml", "kind: [");
    let config = keybearer::config::Config::load(Some(&stage.dir().join("keybearer.yaml"))).unwrap();
    let other = keybearer::config::Config {
        data_dir: stage.dir().join("other"),
        audit: keybearer::audit::Config::default(),
        ..config
    };
    let refused = keybearer::app::App::start(other).await.err().unwrap().to_string();
    assert!(refused.contains("broken.yaml"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_tls_fails_gets_nothing() {
    let stage = Stage::set(Staging { speaks: Speaks::Cleartext, ..Staging::default() }).await;
    assert_refused(&stage.get("acme", "researcher", URL).await, 502, "upstream_tls");
    assert!(stage.provider.requests().is_empty());
    let event = stage.last_action().await;
    assert_eq!(
        (&event["decision"], &event["error"], &event["status"]),
        (&"allow".into(), &"upstream_tls".into(), &502.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_there_is_said_to_be_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stage = Stage::set(Staging { resolve: vec![(HOST.to_owned(), nobody)], ..Staging::default() }).await;
    assert_refused(&stage.get("acme", "researcher", URL).await, 502, "upstream_unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_in_time_is_given_up() {
    let config = "limits: {upstream_timeout: 100ms}\n".to_owned();
    let stage = Stage::set(Staging { config, ..Staging::default() }).await;
    let answer = stage.get("acme", "researcher", "http://api.crm.test/slow-head").await;
    assert_refused(&answer, 504, "upstream_timeout");
    assert_eq!(stage.provider.requests().len(), 1, "it is not asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_lacks_what_is_injected_is_refused() {
    let two_fields = POLICY.replacen(
        "auth: {type: static}\n  inject: [{header: Authorization, value: \"Bearer {token}\"}]",
        "auth: {type: static, fields: [api_key, app_key]}\n  inject: [{header: Authorization, value: \"Bearer {api_key}\"}, {header: X-App-Key, value: \"{app_key}\"}]",
        1,
    );
    assert_ne!(two_fields, POLICY);
    let stage =
        Stage::set(Staging { policies: vec![("policy.yaml", two_fields)], ..Staging::default() }).await;
    let answer = stage.get("acme", "researcher", URL).await;
    assert_refused(&answer, 401, "account_missing");
    assert!(stage.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_lacks_a_scope_is_refused_before_anything_is_sent() {
    let mut accounts = Staging::default().accounts;
    accounts[0].scopes = Some(std::collections::BTreeSet::new());
    let stage = Stage::set(Staging { accounts, ..Staging::default() }).await;
    let answer = stage.get("acme", "researcher", URL).await;
    assert_refused(&answer, 403, "insufficient_scope");
    let problem = answer.json();
    assert_eq!(
        (&problem["missing_in"], &problem["missing"]),
        (&"account".into(), &serde_json::json!(["accounts:read"]))
    );
    assert!(problem["reconnect_url"].is_string());
    assert!(stage.provider.requests().is_empty());
    actions(&stage, 1).await;
}

/// A proxy whose rules are yet to come, and which would pass `opaque.test` through.
async fn without_rules(dir: &Path) -> (SocketAddr, RootCertStore, Feed, Drain) {
    let (rules, feed) = Rules::fed("the broker");
    let mut parts = apart::parts(dir, rules).await;
    parts.tunnels = vec![HostPattern::parse("opaque.test").unwrap()];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(parts.ca_pem.as_bytes()).unwrap()).unwrap();
    let drain = parts.drain.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drain.spawn(Proxy::new(parts).run(listener, Vec::new()));
    (address, roots, feed, drain)
}

async fn asked(address: SocketAddr, url: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    Drain::default().spawn(connection);
    let request = absolute("GET", url).header("agent-identity", identity("acme", "researcher"));
    Answer::read(sender.send_request(request.body(Body::default()).unwrap()).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn before_any_policy_has_come_nothing_is_decided_and_nothing_passes_through() {
    let dir = tempfile::tempdir().unwrap();
    let (address, roots, mut feed, _drain) = without_rules(dir.path()).await;
    for url in [URL, "http://elsewhere.test/", "http://keybearer.internal/v1/operations"] {
        assert_refused(&asked(address, url).await, 503, "policy_unavailable");
    }
    assert_eq!(asked(address, "http://keybearer.internal/ca.pem").await.status, 200);

    // What passes through once there is a policy that does not describe it is refused inside its TLS until then.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"CONNECT opaque.test:443 HTTP/1.1\r\nHost: opaque.test:443\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("opaque.test").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let mut tunnel = http_over(tls).await;
    let asking =
        inside(&tunnel, "GET", "opaque.test", "/").header("agent-identity", identity("acme", "researcher"));
    let answer = tunnel.call(asking.body(Body::default()).unwrap()).await;
    assert_refused(&answer, 503, "policy_unavailable");

    let file = ruleset::File { name: "policy.yaml".to_owned(), text: POLICY.to_owned() };
    feed.replace(Excerpt { revision: "aaaaaaaaaaaa".into(), files: vec![file] }).unwrap();
    assert_refused(&asked(address, "http://elsewhere.test/").await, 403, "destination_denied");
}
