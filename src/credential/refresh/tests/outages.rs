//! The vault is away, or does not take what it is given.

use super::world::*;
use crate::{
    credential::{Error, Trouble},
    vault::GrantState,
};

const UNPERSISTED: &str = "keybearer_unpersisted_rotations 1";
const PERSISTED: &str = "keybearer_unpersisted_rotations 0";

#[tokio::test(start_paused = true)]
async fn a_rotated_token_that_the_vault_does_not_take_is_kept_and_written_until_it_does() {
    let (world, faults) = World::faulty(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    faults.fail(["quarantine", "commit"]);
    for _ in 0..10 {
        assert_eq!(world.trouble().await, Trouble::Slow, "nobody gets what is not written down");
        assert!(world.metric(UNPERSISTED));
        tokio::time::sleep(MINUTE).await;
    }
    faults.heal();
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.grant().await.refresh, spent("refresh-1"));
    assert_eq!(world.provider.posts(), 1, "the old token was not spent again");
    assert_eq!(world.told().await, ["account.refreshed"]);
    assert!(world.metric(PERSISTED));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_token_is_written_also_where_its_lease_was_anothers_meanwhile() {
    let (world, faults) = World::faulty(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    faults.fail(["quarantine", "commit", "renew"]);
    assert_eq!(world.trouble().await, Trouble::Slow);
    tokio::time::sleep(MINUTE).await;
    let other = world.vault.lease(&key(), "two", MINUTE).await.unwrap().expect("the first one has run out");
    assert!(other.orphan().is_some_and(|orphan| orphan.answer.is_none()));
    faults.heal();
    tokio::time::sleep(SECOND * 30).await;
    assert_eq!(world.trouble().await, Trouble::Slow, "the lease is another's");
    assert!(world.metric(UNPERSISTED));
    world.vault.release(&other).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.provider.posts(), 1);
    assert!(world.vault.intents().await.unwrap().is_empty());
    assert!(world.metric(PERSISTED));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_put_away_and_not_committed_is_read_by_the_next_replica() {
    let (one, faults) = World::faulty(HOUR).await;
    let two = World::over(one.vault.clone(), one.provider.clone(), one.clock.clone(), one.current());
    one.follow();
    tokio::time::sleep(HOUR).await;
    faults.fail(["commit", "renew"]);
    assert_eq!(one.trouble().await, Trouble::Slow);
    tokio::time::sleep(MINUTE).await;
    let generation = one.account().await.generation;
    faults.heal();
    assert_eq!(two.engine.recover().await.unwrap(), 1);
    assert_eq!(two.token().await.unwrap(), "access-token-1");
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(one.token().await.unwrap(), "access-token-1");
    assert_eq!(one.account().await.generation, generation + 1, "it was written once");
    assert_eq!(one.provider.posts(), 1);
    assert!(one.metric(PERSISTED));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_that_the_vault_could_not_keep_the_intent_of() {
    let (world, faults) = World::faulty(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    for step in ["lease", "intent", "intend"] {
        faults.fail([step]);
        assert_eq!(world.trouble().await, Trouble::Vault, "{step}");
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(world.provider.posts(), 0);
    faults.heal();
    assert_eq!(world.token().await.unwrap(), "access-token-1");
}

#[tokio::test(start_paused = true)]
async fn while_the_vault_is_away_a_cached_token_is_used_until_it_ends_and_nothing_is_refreshed() {
    let (world, faults) = World::faulty(HOUR).await;
    world.follow();
    assert_eq!(world.token().await.unwrap(), "access-token-0");
    faults.be_away();
    for _ in 0..59 {
        tokio::time::sleep(MINUTE).await;
        assert_eq!(world.token().await.unwrap(), "access-token-0");
    }
    tokio::time::sleep(MINUTE).await;
    for _ in 0..60 {
        assert!(matches!(world.token().await, Err(Error::Vault(error)) if error.is_of_the_moment()));
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(world.provider.posts(), 0);
    faults.heal();
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.grant().await.state, GrantState::Fresh);
    assert_eq!(world.provider.posts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_read_ends_what_was_known_of_the_account_and_no_stream() {
    let (world, faults) = World::faulty(HOUR).await;
    let known = world.ask().await.unwrap();
    faults.be_away();
    assert!(world.ask().await.is_ok(), "nothing says that it changed");
    world.resolver.changed(&key()).await;
    assert!(matches!(world.ask().await, Err(Error::Vault(error)) if error.is_of_the_moment()));
    assert!(!known.ended().is_cancelled());
    faults.heal();
    assert!(world.ask().await.is_ok());
    world.vault.freeze(&key(), "admin").await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(known.ended().is_cancelled());
}
