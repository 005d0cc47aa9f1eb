//! Processes are killed at each step of a refresh, on PostgreSQL. The provider goes on, as providers do, and another
//! process finds out what became of the refresh.

use std::collections::BTreeMap;

use keybearer::{
    cause::Cause,
    drain::Drain,
    vault::{GrantState, Material, Vault},
};
use serde_json::Value;
use tokio_postgres::Client;

use crate::{
    laws::wire::until,
    support::{
        issuer::{Gate, Grace, Issuer, OldAccess, Profile, Rotation, Step, Violation},
        postgres::{Postgres, connect},
        provider::TestAuthority,
        records::{self, expired, key},
        relay::{Relay, Side},
        sidecar::{Sidecar, ask, served},
    },
};

/// A moment in a refresh.
struct Point {
    name: &'static str,
    at: At,
    left: Left,
}

/// How it is recognised from outside.
enum At {
    /// By a statement.
    Database(&'static str, Side),
    /// The POST is there, and the provider does nothing with it.
    Sent,
    /// The provider has spent the refresh token, and its answer is still to come.
    Spent,
    /// The agent has its answer.
    Answered,
}

/// What there is of the refresh when the process is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing was sent.
    Nothing,
    /// A POST, which the provider did nothing with.
    Sent,
    /// A token that the provider has spent, and nothing in the vault of what it gave for it.
    Spent,
    /// The new tokens are in the vault.
    Kept,
}

const LEASE: &str = "INSERT INTO keybearer.leases";
const INTENT: &str = "INSERT INTO keybearer.intents";
const ANSWER: &str = "UPDATE keybearer.intents SET answer";
const COMMIT: &str = "INSERT INTO keybearer.outbox";
const RELEASE: &str = "DELETE FROM keybearer.leases WHERE";

/// Each step of a refresh (docs/refresh.md), before and after it.
const POINTS: [Point; 13] = [
    Point { name: "before the lease", at: At::Database(LEASE, Side::Before), left: Left::Nothing },
    Point { name: "leased", at: At::Database(LEASE, Side::After), left: Left::Nothing },
    Point { name: "before the intent", at: At::Database(INTENT, Side::Before), left: Left::Nothing },
    Point { name: "intended", at: At::Database(INTENT, Side::After), left: Left::Nothing },
    Point { name: "sent", at: At::Sent, left: Left::Sent },
    Point { name: "spent by the provider", at: At::Spent, left: Left::Spent },
    Point { name: "answered by the provider", at: At::Database(ANSWER, Side::Before), left: Left::Spent },
    Point { name: "answer put away", at: At::Database(ANSWER, Side::After), left: Left::Kept },
    Point { name: "before the commit", at: At::Database(COMMIT, Side::Before), left: Left::Kept },
    Point { name: "committed", at: At::Database(COMMIT, Side::After), left: Left::Kept },
    Point { name: "before the release", at: At::Database(RELEASE, Side::Before), left: Left::Kept },
    Point { name: "released", at: At::Database(RELEASE, Side::After), left: Left::Kept },
    Point { name: "answered", at: At::Answered, left: Left::Kept },
];

/// Where the answer had come, so that no provider forgives who sends the token once more.
const UNFORGIVEN: usize = 6;

/// What became of an account whose process was killed.
#[derive(Debug, PartialEq, Eq)]
struct Survived {
    /// The generation that the provider saw in the agent's request, or the refusal and its cause.
    asked: String,
    state: GrantState,
    /// How often the first refresh token was sent.
    posts: usize,
    /// What the audit logs of both processes say of the refresh.
    told: Vec<String>,
}

fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

/// Returns what the process had recorded by then.
async fn killed_at(
    point: &Point,
    tenant: String,
    (relay, sidecar): (Relay, Sidecar),
    (issuer, vault): (&Issuer, &Vault),
) -> Vec<Value> {
    let gate = Gate::default();
    match point.at {
        At::Database(statement, side) => relay.stop_at(statement, side),
        At::Sent => issuer.script([Step::cut().held_before(&gate)]),
        At::Spent => issuer.script([Step::usual().held_after(&gate)]),
        At::Answered => {}
    }
    vault.add(expired(&tenant, issuer.consent(&tenant, &["read"]))).await.unwrap();
    let proxy = sidecar.proxy;
    let asked = Drain::default().spawn(async move { ask(proxy, &tenant).await });
    match point.at {
        At::Database(..) => relay.stopped().await,
        At::Sent | At::Spent => gate.arrived().await,
        At::Answered => assert_eq!(asked.await.unwrap().unwrap().status, 200),
    }
    let recorded = sidecar.kill().await;
    gate.open();
    recorded
}

/// Waits until the server has noticed that everybody is gone, and ends their leases: their time is not what this is
/// about.
async fn gone(psql: &Client) {
    let connected = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'keybearer %'";
    until("an empty database", async || psql.query(connected, &[]).await.unwrap().is_empty().then_some(()))
        .await;
    psql.batch_execute("UPDATE keybearer.leases SET until = clock_timestamp()").await.unwrap();
}

/// A process for each point is killed there, and then one comes that serves all their accounts.
async fn killed_at_every_step(grace: Grace) -> (Issuer, Vec<Survived>) {
    let (folder, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
    let (vault, authority) = (records::open(&url, folder.path()).await, TestAuthority::new());
    let profile =
        Profile { rotation: Rotation::Single(grace), old_access: OldAccess::Dies, ..Profile::default() };
    let issuer = Issuer::start(&authority, profile).await;
    let section = |url: &str| records::vault(url, folder.path());
    let starting = POINTS.iter().map(async |_| {
        let relay = Relay::before(&url);
        let sidecar = Sidecar::start(&section(&relay.url(&url)), &issuer, &authority).await;
        (relay, sidecar)
    });
    let started = futures_util::future::join_all(starting).await;
    let mut recorded = Vec::new();
    for (number, (point, process)) in POINTS.iter().zip(started).enumerate() {
        recorded.push(killed_at(point, tenant(number), process, (&issuer, &vault)).await);
    }
    drop(vault);
    gone(&connect(&url).await).await;

    let next = Sidecar::start(&section(&url), &issuer, &authority).await;
    let mut asked = Vec::new();
    for number in 0..POINTS.len() {
        let (answer, _) = served(next.proxy, &tenant(number)).await;
        let body = answer.json();
        asked.push(match answer.error() {
            Some(code) => format!("{code} {}", body["cause"].as_str().unwrap()),
            None => format!("{}, generation {}", body["account"].as_str().unwrap(), body["generation"]),
        });
    }
    let vault = records::open(&url, folder.path()).await;
    assert!(vault.intents().await.unwrap().is_empty(), "nothing is left undone");
    let mut survived = Vec::new();
    let recorded = recorded.concat(); // whoever runs records what another one left to be recorded
    for (number, asked) in asked.into_iter().enumerate() {
        let account = vault.account(&key(&tenant(number))).await.unwrap().unwrap();
        let Material::Oauth(grant) = account.material else { panic!("{account:?}") };
        let (posts, told) = (issuer.presented(&tenant(number))[0], told(&recorded, &next, number).await);
        survived.push(Survived { asked, state: grant.state, posts, told });
    }
    (issuer, survived)
}

/// What all processes recorded of an account, once anything is: an event that two did is one.
async fn told(before: &[Value], next: &Sidecar, number: usize) -> Vec<String> {
    let account = key(&tenant(number)).to_string();
    until(&format!("what became of {account}"), async || {
        let events = before.iter().cloned().chain(next.events());
        let of_account = |event: &Value| event["kind"] == "account" && event["account"] == account.as_str();
        let named = events.filter(of_account).map(|event| (event["id"].to_string(), event["event"].clone()));
        let told: BTreeMap<_, _> = named.collect();
        (!told.is_empty())
            .then(|| told.into_values().map(|event| event.as_str().unwrap().to_owned()).collect())
    })
    .await
}

fn show(grace: &str, survived: &[Survived]) {
    for (point, survived) in POINTS.iter().zip(survived) {
        let Survived { asked, posts, .. } = survived;
        println!("{grace}, killed when {:25} {posts} POSTs, then {asked}", format!("{}:", point.name));
    }
}

/// The token that was spent once was spent twice where its answer had come and was lost with the process.
fn unforgiven() -> Vec<Violation> {
    vec![Violation::SpentTwice { account: tenant(UNFORGIVEN), generation: 0 }]
}

#[tokio::test(flavor = "multi_thread")]
async fn with_grace_no_account_is_lost_at_whatever_step_of_a_refresh_its_process_is_killed() {
    let (issuer, survived) = killed_at_every_step(Grace::Seconds(600)).await;
    show("grace", &survived);
    for (number, (point, survived)) in POINTS.iter().zip(survived).enumerate() {
        let (generation, posts) = match point.left {
            Left::Nothing | Left::Kept => (1, 1),
            Left::Sent => (1, 2),
            Left::Spent => (2, 2),
        };
        let expected = Survived {
            asked: format!("{}, generation {generation}", tenant(number)),
            state: GrantState::Fresh,
            posts,
            told: vec!["account.refreshed".to_owned()],
        };
        assert_eq!(survived, expected, "{}", point.name);
    }
    assert_eq!(issuer.pardon(), unforgiven());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_grace_what_is_lost_is_one_typed_lost_rotation_for_each_answer_that_was_not_put_away() {
    let (issuer, survived) = killed_at_every_step(Grace::None).await;
    show("no grace", &survived);
    for (number, (point, survived)) in POINTS.iter().zip(survived).enumerate() {
        let fresh = |posts| Survived {
            asked: format!("{}, generation 1", tenant(number)),
            state: GrantState::Fresh,
            posts,
            told: vec!["account.refreshed".to_owned()],
        };
        let expected = match point.left {
            Left::Nothing | Left::Kept => fresh(1),
            Left::Sent => fresh(2),
            Left::Spent => Survived {
                asked: "auth_expired lost_rotation".to_owned(),
                state: GrantState::ReauthRequired { cause: Cause::LostRotation },
                posts: 2,
                told: vec!["account.reauth_required".to_owned()],
            },
        };
        assert_eq!(survived, expected, "{}", point.name);
    }
    assert_eq!(issuer.pardon(), unforgiven());
}
