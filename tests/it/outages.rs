//! PostgreSQL goes away while tokens are refreshed: what agents are told, what the provider sees, and how it ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use keybearer::drain::Drain;
use tokio::task::JoinHandle;

use crate::{
    laws::wire::until,
    support::{
        issuer::{Gate, Issuer, Profile, Step},
        postgres::Postgres,
        provider::TestAuthority,
        records::{self, URL, expired},
        relay::{Relay, Side},
        stage::Stage,
    },
};

/// So that nothing waits for the bucket, no agent for long, and a lease that could not be given back ends soon.
const EAGER: &str = "refresh: {per_second: 1000, timeout: 3s, patience: 200ms}\n";

/// An agent waits for long, and not as long as a lease that stands in its own holder's way.
const PATIENT: &str = "refresh: {per_second: 1000, timeout: 1m, patience: 1m}\n";

/// A proxy over a database, and the issuer.
struct World {
    issuer: Issuer,
    stage: Arc<Stage>,
}

impl World {
    async fn over(url: &str, folder: &tempfile::TempDir, refresh: &str) -> Self {
        let authority = TestAuthority::new();
        let issuer = Issuer::start(&authority, Profile::default()).await;
        let config = format!("{refresh}{}", records::vault(url, folder.path()));
        let stage = Arc::new(Stage::set(records::staging(&config, &issuer, &authority)).await);
        Self { issuer, stage }
    }

    /// Connects so many accounts whose tokens are over, and sends an agent to each.
    async fn asked_for(&self, what: &str, accounts: usize) -> Vec<Agent> {
        let tenants = (0..accounts).map(|number| format!("{what}-{number}")).collect::<Vec<_>>();
        for tenant in &tenants {
            let new = expired(tenant, self.issuer.consent(tenant, &["read"]));
            self.stage.app().vault.add(new).await.unwrap();
        }
        tenants.into_iter().map(|tenant| Agent::sent(&self.stage, tenant)).collect()
    }

    /// Waits until all are served. What they were told until then, and how often.
    async fn served(&self, agents: Vec<Agent>) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::<String, usize>::new();
        for Agent { tenant, asking } in agents {
            for what in asking.await.unwrap() {
                *told.entry(what).or_default() += 1;
            }
            assert_eq!(self.issuer.presented(&tenant), [1], "{tenant}");
        }
        told
    }

    fn metric(&self, line: &str) -> bool {
        let metrics = String::from_utf8(self.stage.app().metrics().unwrap()).unwrap();
        metrics.lines().any(|one| one == line)
    }
}

/// Asks until it is served, and then keeps what it was told.
struct Agent {
    tenant: String,
    asking: JoinHandle<Vec<String>>,
}

impl Agent {
    fn sent(stage: &Arc<Stage>, tenant: String) -> Self {
        let (stage, own) = (Arc::clone(stage), tenant.clone());
        let asking = Drain::default().spawn(async move {
            let told = Mutex::new(Vec::new());
            until(&format!("a token for {own}"), async || {
                let answer = stage.get(&own, "researcher", URL).await;
                let code = answer.error();
                assert_eq!(code.is_some(), answer.headers.contains_key("retry-after"), "{}", answer.text());
                told.lock().unwrap().push(code.unwrap_or_else(|| answer.status.as_str().to_owned()));
                (answer.status == 200).then_some(())
            })
            .await;
            told.into_inner().unwrap()
        });
        Self { tenant, asking }
    }
}

/// What a refresh writes, in its order.
const STATEMENTS: [&str; 5] = [
    "INSERT INTO keybearer.leases",
    "INSERT INTO keybearer.intents",
    "UPDATE keybearer.intents SET answer",
    "INSERT INTO keybearer.outbox",
    "DELETE FROM keybearer.leases WHERE",
];

/// How many connections are cut at least, in each way of cutting them.
const CUTS: usize = 36;

/// The refusals that an agent may be told of a vault that comes and goes.
const TYPED: [&str; 3] = ["200", "upstream_unreachable", "vault_unavailable"];

fn assert_typed(told: &BTreeMap<String, usize>) {
    assert!(told.keys().all(|what| TYPED.contains(&what.as_str())), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_while_the_database_stopped_is_kept_until_it_is_back_and_nothing_is_spent_twice() {
    const ACCOUNTS: usize = 8;
    let (server, folder) = (Postgres::start("", &[]), tempfile::tempdir().unwrap());
    let world = World::over(&server.database().await, &folder, EAGER).await;
    let gate = Gate::default();
    world.issuer.script((0..ACCOUNTS).map(|_| Step::usual().held_after(&gate)));
    let under_way = world.asked_for("rotated", ACCOUNTS).await;
    for _ in 0..ACCOUNTS {
        gate.arrived().await;
    }
    server.stop();
    for _ in 0..ACCOUNTS {
        gate.open();
    }
    until("kept in memory", async || {
        world.metric(&format!("keybearer_unpersisted_rotations {ACCOUNTS}")).then_some(())
    })
    .await;
    let refused = world.stage.get("rotated-0", "researcher", URL).await;
    assert_eq!(refused.error().as_deref(), Some("vault_unavailable"), "nobody has the token yet");
    server.resume();
    let begun = Instant::now();
    let told = world.served(under_way).await;
    println!(
        "PostgreSQL stopped under {ACCOUNTS} refreshes, all served {:?} after it was back: {told:?}",
        begun.elapsed()
    );
    assert_typed(&told);
    assert!(world.metric("keybearer_unpersisted_rotations 0"));

    let more = world.asked_for("later", 3 * ACCOUNTS).await;
    server.stop();
    server.resume();
    let told = world.served(more).await;
    println!("PostgreSQL restarted under {} refreshes: {told:?}", 3 * ACCOUNTS);
    assert_typed(&told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_at_any_statement_of_a_refresh_is_no_agents_concern() {
    let (url, folder) = (Postgres::shared().database().await, tempfile::tempdir().unwrap());
    let relay = Relay::before(&url);
    let world = World::over(&relay.url(&url), &folder, PATIENT).await;
    let sides =
        STATEMENTS.iter().flat_map(|statement| [(*statement, Side::Before), (*statement, Side::After)]);
    for (number, (statement, side)) in sides.enumerate() {
        relay.cut_at(statement, side);
        let begun = Instant::now();
        let told = world.served(world.asked_for(&format!("cut-{number}"), 1).await).await;
        println!("cut {side:6?} {statement:36} served after {:?}: {told:?}", begun.elapsed());
        assert_eq!(told, BTreeMap::from([("200".to_owned(), 1)]), "{side:?} {statement}");
        assert_eq!(relay.cuts(), number + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again_cost_no_token_and_no_account() {
    let (url, folder) = (Postgres::shared().database().await, tempfile::tempdir().unwrap());
    let relay = Relay::before(&url);
    let world = World::over(&relay.url(&url), &folder, EAGER).await;
    for every in [2, 3, 5, 7] {
        let before = relay.cuts();
        let agents = world.asked_for(&format!("cut-{every}"), 12).await;
        relay.cut_every(every);
        until("enough cuts", async || (relay.cuts() >= before + CUTS).then_some(())).await;
        relay.cut_every(0);
        let (cuts, begun) = (relay.cuts() - before, Instant::now());
        let told = world.served(agents).await;
        println!(
            "{cuts} connections cut, every {every} statements, served {:?} later: {told:?}",
            begun.elapsed()
        );
        assert_typed(&told);
    }
    assert!(world.metric("keybearer_unpersisted_rotations 0"));
}
