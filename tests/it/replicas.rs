//! Several proxies over one PostgreSQL: what one is told, the others know; and what happens when it is away.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use keybearer::{drain::Drain, id::Principal};
use tempfile::TempDir;

use crate::{
    cli::Desk,
    laws::wire::{self, ALPNS, asks, until},
    support::{
        agent::{Body, Connection, absolute, identity},
        postgres::Postgres,
        stage::{HOST, SECRETS, Stage, Staging, account},
    },
};

const URL: &str = "http://api.crm.test/echo";

/// The vault's section for this database, with the key in a folder.
fn section(url: &str, folder: &TempDir) -> String {
    format!(
        "vault: {{backend: postgres, url: '{url}', key: {{file: {}}}, timeout: 1m}}\n",
        folder.path().join("key").display()
    )
}

/// A proxy over this database.
async fn replica(config: &str, accounts: Vec<keybearer::vault::NewAccount>) -> Stage {
    Stage::set(Staging { config: config.to_owned(), accounts, ..Staging::default() }).await
}

/// Two proxies over one database that has nothing in it.
async fn two() -> (TempDir, Stage, Stage) {
    let folder = tempfile::tempdir().unwrap();
    let config = section(&Postgres::shared().database().await, &folder);
    let (one, two) = (replica(&config, Vec::new()).await, replica(&config, Vec::new()).await);
    (folder, one, two)
}

fn acme() -> keybearer::vault::NewAccount {
    account("acme", "crm", Principal::Tenant, SECRETS[0].1)
}

/// Waits until the proxy answers so.
async fn becomes(stage: &Stage, status: u16) {
    until(&format!("{status}"), async || {
        (stage.get("acme", "researcher", URL).await.status == status).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_added_through_one_is_used_by_the_other() {
    let (_folder, one, two) = two().await;
    let refused = two.get("acme", "researcher", URL).await;
    assert_eq!(refused.error().as_deref(), Some("account_missing"));
    one.app().vault.add(acme()).await.unwrap();
    let answer = two.get("acme", "researcher", URL).await;
    assert_eq!((answer.status.as_u16(), answer.headers["x-provider-tenant"].as_bytes()), (200, &b"acme"[..]));
}

/// Asks once more in this tunnel. What is under way when the freeze comes is broken off, and its tunnel with it.
async fn refuses(stage: &Stage, tunnel: &mut Connection) -> bool {
    let request = asks(tunnel, "GET", "/echo");
    let Ok(answer) = tunnel.send(request).await else {
        *tunnel = stage.tunnel(HOST, "http/1.1").await;
        return false;
    };
    let is_refused = answer.status() == 403;
    assert!(is_refused || answer.status() == 200, "{answer:?}");
    if answer.collect().await.is_err() {
        *tunnel = stage.tunnel(HOST, "http/1.1").await;
    }
    is_refused
}

/// Prints how long it takes; `docs/postgres.md` has the figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_through_one_refuses_at_the_other() {
    const ROUNDS: usize = 50;
    let (_folder, one, two) = two().await;
    let (vault, key) = (&one.app().vault, wire::key("acme", "crm"));
    vault.add(acme()).await.unwrap();
    let mut tunnel = two.tunnel(HOST, "http/1.1").await;
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        assert!(!refuses(&two, &mut tunnel).await);
        let begun = Instant::now();
        vault.freeze(&key, "ops").await.unwrap();
        while !refuses(&two, &mut tunnel).await {
            assert!(begun.elapsed() < Duration::from_secs(10), "it goes on");
        }
        taken.push(begun.elapsed());
        vault.unfreeze(&key).await.unwrap();
        becomes(&two, 200).await;
    }
    taken.sort_unstable();
    println!(
        "from a freeze to the other replica's first refusal: p50 {:?}, p99 {:?}",
        taken[ROUNDS / 2],
        taken[ROUNDS - 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_through_one_ends_the_others_streams() {
    let (_folder, one, two) = two().await;
    one.app().vault.add(acme()).await.unwrap();
    let mut streams = Vec::new();
    for alpn in ALPNS {
        let mut tunnel = two.tunnel(HOST, alpn).await;
        let answer = tunnel.send(asks(&tunnel, "GET", "/stream/9/paced")).await.unwrap();
        streams.push((answer, tunnel));
    }
    one.app().vault.freeze(&wire::key("acme", "crm"), "ops").await.unwrap();
    for (answer, _tunnel) in streams {
        let ended = tokio::time::timeout(Duration::from_secs(10), answer.collect()).await;
        assert!(ended.expect("it goes on").is_err(), "it is broken off");
    }
}

/// Asks again and again until it is told to stop; returns how often it was answered what.
fn load(stage: &Arc<Stage>, ended: &Arc<AtomicBool>) -> tokio::task::JoinHandle<BTreeMap<String, usize>> {
    let (stage, ended) = (Arc::clone(stage), Arc::clone(ended));
    Drain::default().spawn(async move {
        let mut answers = BTreeMap::new();
        let mut direct = stage.direct().await;
        while !ended.load(Ordering::SeqCst) {
            let request = absolute("GET", URL).header("agent-identity", identity("acme", "researcher"));
            let answer = direct.call(request.body(Body::default()).unwrap()).await;
            let what = answer.error().unwrap_or_else(|| answer.status.as_str().to_owned());
            assert_eq!(what == "vault_unavailable", answer.headers.contains_key("retry-after"));
            *answers.entry(what).or_default() += 1;
        }
        answers
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_requests_are_refused_and_then_served_again() {
    let server = Postgres::start("", &[]);
    let folder = tempfile::tempdir().unwrap();
    let config = section(&server.database().await, &folder);
    let stage = Arc::new(replica(&config, vec![acme()]).await);
    let ended = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..4).map(|_| load(&stage, &ended)).collect();
    for _ in 0..2 {
        becomes(&stage, 200).await;
        server.stop();
        becomes(&stage, 503).await;
        server.resume();
    }
    becomes(&stage, 200).await;
    ended.store(true, Ordering::SeqCst);
    let mut answers = BTreeMap::<String, usize>::new();
    for asker in askers {
        for (what, count) in asker.await.unwrap() {
            *answers.entry(what).or_default() += count;
        }
    }
    println!("PostgreSQL was stopped twice under load: {answers:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["200", "vault_unavailable"]);
    let bare = stage.provider.requests().into_iter().filter(|seen| seen.tenant.as_deref() != Some("acme"));
    assert_eq!(bare.count(), 0, "nothing was sent without the credential");
}

/// A configured folder over this database.
fn desk(config: &str) -> Desk {
    let desk = Desk::new();
    let file = desk.dir.path().join("keybearer.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, format!("{text}{config}")).unwrap();
    desk
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_several_machines_work_on_one_vault() {
    let folder = tempfile::tempdir().unwrap();
    let url = Postgres::shared().database().await;
    let config = section(&url, &folder);
    let (one, two) = (desk(&config), desk(&config));
    let ran = one.run(&["account", "list"], "");
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("there is no vault in PostgreSQL at"), "{}", ran.err);
    let added = one.add();
    assert!(added.err.contains("made a vault in PostgreSQL at"), "{}", added.err);
    let status = two.done(&["vault", "status", "--output", "json"], "").json();
    assert_eq!(
        (status["backend"].as_str(), status["accounts"]["crm"]["active"].as_u64()),
        (Some("postgres"), Some(1))
    );
    assert!(status["database"].as_str().unwrap().contains("/vault_"), "{status}");
    two.done(&["account", "freeze", "acme/crm/role:researcher", "--by", "alice"], "");
    let shown = one.done(&["account", "show", "acme/crm/role:researcher", "--output", "json"], "").json();
    assert_eq!(shown["frozen_by"], "alice");

    let without = desk(&format!("vault: {{backend: postgres, url: '{url}'}}\n"));
    let refused = without.run(&["account", "list"], "");
    assert!(refused.err.contains("is sealed with a key that is not there"), "{}", refused.err);
    let nowhere = desk("vault: {backend: postgres}\n");
    let mut command = nowhere.command(&["account", "list"]);
    command
        .env("KEYBEARER_VAULT__URL", &url)
        .env("KEYBEARER_VAULT__KEY", format!("{{file: {}}}", folder.path().join("key").display()));
    assert!(command.output().unwrap().status.success(), "the URL may come from the environment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_one_machine_reaches_a_proxy_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let config = section(&Postgres::shared().database().await, &folder);
    let stage = replica(&config, vec![acme()]).await;
    becomes(&stage, 200).await;
    desk(&config).done(&["account", "freeze", "acme/crm/tenant", "--by", "alice"], "");
    becomes(&stage, 403).await;
    assert_eq!(stage.get("acme", "researcher", URL).await.json()["by"], "alice");
}
