//! Two brokers over one PostgreSQL, and three sidecars, each on a machine of its own as far as the network goes. Each of
//! them is killed, cut off and restarted while agents ask: nobody is ever given another's credential, every refusal says
//! what it is, and it works again by itself. Where namespaces may not be made, each test says that it is skipped.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use keybearer::drain::Drain;
use serde_json::Value;
use tokio::task::JoinHandle;

use self::ground::{Fleet, OFFLINE_USE, PODS};
use crate::support::{
    agent::{absolute, identity},
    issuer::Violation,
    netns::Namespace,
    records::{URL, expired, key},
};

mod ground;

const TENANTS: [&str; 2] = ["acme", "globex"];
/// How long something is away.
const AWAY: Duration = Duration::from_secs(2);
/// It works again long before.
const PATIENCE: Duration = Duration::from_mins(1);
/// What an agent may be told while something is away, besides its answer.
const TYPED: [&str; 3] = ["vault_unavailable", "upstream_unreachable", "upstream_timeout"];

/// What agents were told, and how often.
type Told = BTreeMap<String, usize>;

/// An agent's connection to the sidecar of its pod.
struct Agent {
    pod: Arc<Namespace>,
    tenant: &'static str,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Agent {
    fn of(pod: &Arc<Namespace>, tenant: &'static str) -> Self {
        Self { pod: Arc::clone(pod), tenant, sender: None }
    }

    /// Asks once. The refusal's code, the provider's status, or that there is no sidecar. An answer about another
    /// tenant's account is the end of the test.
    async fn asks(&mut self) -> String {
        match self.answer().await {
            Some((200, body)) => {
                assert_eq!(body["account"], self.tenant, "another tenant's credential");
                "200".to_owned()
            }
            Some((status, body)) => body["error"].as_str().map_or_else(|| status.to_string(), str::to_owned),
            None => {
                self.sender = None;
                "no sidecar".to_owned()
            }
        }
    }

    async fn answer(&mut self) -> Option<(u16, Value)> {
        if self.sender.is_none() {
            let stream = self.pod.connect("127.0.0.1:7080").ok()?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            Drain::default().spawn(connection);
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut()?;
        sender.ready().await.ok()?;
        let request = absolute("GET", URL).header("agent-identity", identity(self.tenant, "researcher"));
        let answer = sender.send_request(request.body(Full::default()).unwrap()).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// Agents of every tenant in every pod, who ask until they are told to stop.
struct Load {
    ended: Arc<AtomicBool>,
    agents: Vec<(bool, JoinHandle<Told>)>,
}

impl Load {
    fn on(fleet: &Fleet) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let mut agents = Vec::new();
        for (pod, tenants) in fleet.pods.iter().zip(PODS) {
            for tenant in TENANTS {
                let (mut agent, ended) = (Agent::of(&pod.net, tenant), Arc::clone(&ended));
                let asking = Drain::default().spawn(async move {
                    let mut told = Told::new();
                    while !ended.load(Ordering::SeqCst) {
                        *told.entry(agent.asks().await).or_default() += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    told
                });
                agents.push((tenants.contains(&tenant), asking));
            }
        }
        Self { ended, agents }
    }

    /// What those were told whom the bindings give a credential, and the others.
    async fn told(self) -> (Told, Told) {
        self.ended.store(true, Ordering::SeqCst);
        let (mut bound, mut strangers) = (Told::new(), Told::new());
        for (is_bound, agent) in self.agents {
            let all = if is_bound { &mut bound } else { &mut strangers };
            for (what, count) in agent.await.unwrap() {
                *all.entry(what).or_default() += count;
            }
        }
        (bound, strangers)
    }
}

/// Consents anew for every tenant, with access tokens that are over: the next request needs a refresh.
async fn renew(fleet: &mut Fleet) {
    fleet.consents += 1;
    for tenant in TENANTS {
        let new = expired(tenant, fleet.issuer.consent(tenant, &["read"]));
        if fleet.consents == 1 {
            fleet.vault.add(new).await.unwrap();
        } else {
            fleet.vault.replace(&key(tenant), new.material).await.unwrap();
        }
    }
}

/// Waits until whoever may have a credential has one; how long that took.
async fn all_served(fleet: &Fleet) -> Duration {
    let begun = Instant::now();
    for (pod, tenants) in fleet.pods.iter().zip(PODS) {
        for tenant in tenants {
            becomes(&mut Agent::of(&pod.net, tenant), "200").await;
        }
    }
    begun.elapsed()
}

/// Waits until an agent is told this.
async fn becomes(agent: &mut Agent, what: &str) {
    let begun = Instant::now();
    loop {
        let told = agent.asks().await;
        if told == what {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {told}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Something happens under load, at a moment when every tenant needs a refresh; then all are served again. Meanwhile
/// agents are told what is [`TYPED`], or `also` this.
async fn under_load(fleet: &mut Fleet, what: &str, also: &[&str], happens: impl AsyncFnOnce(&mut Fleet)) {
    let load = Load::on(fleet);
    all_served(fleet).await;
    renew(fleet).await;
    happens(fleet).await;
    let again = all_served(fleet).await;
    let (bound, strangers) = load.told().await;
    println!("{what}: all served {again:?} after it was over; told {bound:?}, strangers {strangers:?}");
    let is_known = |what: &str| what == "200" || TYPED.contains(&what) || also.contains(&what);
    assert!(bound.keys().all(|what| is_known(what)), "{bound:?}");
    assert!(
        strangers.contains_key("identity_not_allowed") && !strangers.contains_key("200"),
        "{strangers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_cut_off_or_restarted_nobody_gets_anothers_credential_and_all_goes_on_by_itself() {
    let Some(mut fleet) = Fleet::start("losses").await else { return };
    let fleet = &mut fleet;
    renew(fleet).await;
    for number in 0..2 {
        under_load(fleet, "a broker killed", &[], async |fleet| {
            fleet.brokers[number].kill().await;
            tokio::time::sleep(AWAY).await;
        })
        .await;
        fleet.brokers[number].start().await;
    }
    for number in 0..2 {
        under_load(fleet, "a broker cut off", &[], async |fleet| {
            fleet.cut(&fleet.brokers[number]);
            tokio::time::sleep(AWAY).await;
            all_served(fleet).await; // by the other one
            fleet.mend(&fleet.brokers[number]);
        })
        .await;
        under_load(fleet, "a broker restarted", &[], async |fleet| {
            fleet.brokers[number].stop().await;
            fleet.brokers[number].start().await;
        })
        .await;
    }
    under_load(fleet, "PostgreSQL cut off", &[], async |fleet| {
        fleet.cut(&fleet.database);
        tokio::time::sleep(AWAY).await;
        fleet.mend(&fleet.database);
    })
    .await;
    under_load(fleet, "PostgreSQL restarted", &[], async |fleet| fleet.restart_database()).await;
    under_load(fleet, "PostgreSQL killed", &[], async |fleet| fleet.kill_database()).await;
    under_load(fleet, "a sidecar killed", &["no sidecar"], async |fleet| {
        fleet.pods[2].kill().await;
        fleet.pods[2].start().await;
    })
    .await;
    under_load(fleet, "a sidecar restarted", &["no sidecar"], async |fleet| {
        fleet.pods[2].stop().await;
        fleet.pods[2].start().await;
    })
    .await;
    under_load(fleet, "a sidecar cut off", &[], async |fleet| {
        fleet.cut(&fleet.pods[2]);
        tokio::time::sleep(AWAY).await;
        fleet.mend(&fleet.pods[2]);
    })
    .await;
    let again = fleet.issuer.pardon();
    println!("of {} refresh tokens {} were presented again", TENANTS.len() * fleet.consents, again.len());
    assert!(again.iter().all(|fault| matches!(fault, Violation::SpentTwice { .. })), "{again:?}");
    // Those of a broker that was killed or cut off before it had put the answer away, and of no other.
    assert!(again.len() <= TENANTS.len() * 4, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_broker_a_sidecar_goes_on_for_so_long_and_then_refuses() {
    let Some(mut fleet) = Fleet::start("no broker").await else { return };
    renew(&mut fleet).await;
    all_served(&fleet).await;
    let mut agent = Agent::of(&fleet.pods[0].net, "acme");
    for broker in &mut fleet.brokers {
        broker.kill().await;
    }
    let begun = Instant::now();
    assert_eq!(agent.asks().await, "200", "it has the token");
    becomes(&mut agent, "vault_unavailable").await;
    println!("refused {:?} after the last broker was killed; the bound is {OFFLINE_USE:?}", begun.elapsed());
    assert!(begun.elapsed() >= OFFLINE_USE / 2, "it went on for a while");
    fleet.brokers[1].start().await;
    becomes(&mut agent, "200").await;
}

/// Prints how long it takes; `docs/broker.md` has the figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_reaches_the_next_request_of_every_sidecar() {
    const ROUNDS: usize = 100;
    let Some(mut fleet) = Fleet::start("freeze").await else { return };
    renew(&mut fleet).await;
    all_served(&fleet).await;
    let holders = || fleet.pods.iter().zip(PODS).filter(|(_, tenants)| tenants.contains(&"acme"));
    let mut agents: Vec<Agent> = holders().map(|(pod, _)| Agent::of(&pod.net, "acme")).collect();
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        for agent in &mut agents {
            becomes(agent, "200").await;
        }
        let begun = Instant::now();
        fleet.vault.freeze(&key("acme"), "ops").await.unwrap();
        for agent in &mut agents {
            while agent.asks().await != "account_frozen" {
                assert!(begun.elapsed() < Duration::from_secs(10), "it goes on");
            }
        }
        taken.push(begun.elapsed());
        fleet.vault.unfreeze(&key("acme")).await.unwrap();
    }
    taken.sort_unstable();
    println!(
        "from a freeze to the refusals of all sidecars, {ROUNDS} rounds: p50 {:?}, p99 {:?}, longest {:?}",
        taken[ROUNDS / 2],
        taken[ROUNDS * 99 / 100 - 1],
        taken[ROUNDS - 1]
    );
}
