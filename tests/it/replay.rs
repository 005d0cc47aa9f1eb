//! What becomes of a request that the provider refuses with 401: through the real proxy, before the strict issuer.

use bytes::Bytes;
use keybearer::vault::NewAccount;
use tempfile::TempDir;

use crate::support::{
    agent::{Answer, Body, absolute, identity},
    issuer::{Grace, Issuer, OldAccess, Profile, Rotation, Whim, Worth},
    postgres::{Postgres, connect},
    provider::TestAuthority,
    records::{self, URL, account},
    stage::Stage,
};

const NOTES: &str = "http://api.provider.test/notes";

/// So many replicas over one database, which tells none of them what another one changes.
struct World<const N: usize> {
    issuer: Issuer,
    replicas: [Stage; N],
    _folder: TempDir,
}

impl<const N: usize> World<N> {
    async fn new() -> Self {
        let (folder, url) = (tempfile::tempdir().unwrap(), Postgres::shared().database().await);
        let authority = TestAuthority::new();
        let profile = Profile {
            rotation: Rotation::Single(Grace::None),
            old_access: OldAccess::Dies,
            ..Profile::default()
        };
        let issuer = Issuer::start(&authority, profile).await;
        // Nor do they doubt what they know because they hear nothing.
        let patient =
            records::vault(&url, folder.path()).replace("timeout: 1m", "timeout: 1m, offline_use: 10m");
        let mut replicas = Vec::new();
        for _ in 0..N {
            replicas.push(Stage::set(records::staging(&patient, &issuer, &authority)).await);
        }
        let world = Self { issuer, replicas: replicas.try_into().ok().unwrap(), _folder: folder };
        world.replicas[0].app().vault.add(world.acme()).await.unwrap();
        connect(&url)
            .await
            .batch_execute("ALTER TABLE keybearer.accounts DISABLE TRIGGER USER")
            .await
            .unwrap();
        world
    }

    /// An account whose token is old, and lives.
    fn acme(&self) -> NewAccount {
        account("acme", self.issuer.consent("acme", &["read"]), 1)
    }

    /// What the API was sent: the method, and the generation of the token where it was a live one.
    fn calls(&self) -> Vec<(String, Option<usize>)> {
        let generation = |worth| match worth {
            Worth::Live { generation, .. } => Some(generation),
            Worth::Expired | Worth::Revoked | Worth::Unknown => None,
        };
        self.issuer
            .calls()
            .into_iter()
            .map(|call| (call.method.to_string(), generation(call.worth)))
            .collect()
    }

    /// The audit log's actions of a replica: status and what the provider was sent with.
    async fn recorded(&self, replica: usize) -> Vec<u64> {
        let actions = self.replicas[replica].actions().await;
        actions.iter().map(|action| action["status"].as_u64().unwrap()).collect()
    }
}

async fn get(stage: &Stage) -> Answer {
    stage.get("acme", "researcher", URL).await
}

async fn post(stage: &Stage) -> Answer {
    let request = absolute("POST", NOTES).header("agent-identity", identity("acme", "researcher"));
    stage.direct().await.call(request.body(Body::new(Bytes::from_static(b"a note"))).unwrap()).await
}

fn get_with(generation: Option<usize>) -> (String, Option<usize>) {
    ("GET".to_owned(), generation)
}

fn post_with(generation: Option<usize>) -> (String, Option<usize>) {
    ("POST".to_owned(), generation)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_dead_token_is_sent_once_more_with_the_one_that_was_obtained_for_it() {
    let world = World::<1>::new().await;
    let [one] = &world.replicas;
    world.issuer.whims([Whim::Expired]);
    let answer = get(one).await;
    assert_eq!((answer.status.as_u16(), answer.json()["generation"].as_u64()), (200, Some(1)));
    assert_eq!(world.calls(), [get_with(Some(0)), get_with(Some(1))]);
    assert_eq!(world.issuer.presented("acme"), [1]);
    assert_eq!(world.recorded(0).await, [200], "one request, one action");

    world.issuer.whims([Whim::Expired]);
    let answer = get(one).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error()),
        (401, None),
        "the provider's own, for the token is new"
    );
    assert_eq!(world.issuer.presented("acme"), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_another_replica_replaced_is_read_from_the_vault_and_the_request_sent_once_more() {
    let world = World::<2>::new().await;
    let [one, two] = &world.replicas;
    assert_eq!(get(two).await.json()["generation"], 0, "it knows the token now");
    world.issuer.whims([Whim::Expired]);
    assert_eq!(get(one).await.json()["generation"], 1);
    let answer = get(two).await;
    assert_eq!((answer.status.as_u16(), answer.json()["generation"].as_u64()), (200, Some(1)));
    let refused = [get_with(None), get_with(Some(1))];
    assert_eq!(world.calls()[3..], refused, "first the token that the other one's refresh killed");
    assert_eq!(world.issuer.presented("acme"), [1], "nobody asked for a third");
    assert_eq!(world.recorded(1).await, [200, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_body_is_not_sent_again_and_its_agent_finds_another_token_at_its_next_try() {
    let world = World::<2>::new().await;
    let [one, two] = &world.replicas;
    assert_eq!(post(two).await.status, 200);
    world.issuer.whims([Whim::Expired]);
    let refused = post(one).await;
    assert_eq!((refused.status.as_u16(), refused.error()), (401, None), "the provider's own");
    assert_eq!(world.calls(), [post_with(Some(0)), post_with(Some(0))], "it was sent once");
    assert_eq!(post(one).await.json()["generation"], 1);
    assert_eq!(world.issuer.presented("acme"), [1]);

    let refused = post(two).await;
    assert_eq!((refused.status.as_u16(), refused.error()), (401, None));
    assert_eq!(post(two).await.json()["generation"], 1, "read from the vault");
    assert_eq!(world.calls()[3..], [post_with(None), post_with(Some(1))]);
    assert_eq!(world.issuer.presented("acme"), [1]);
}
