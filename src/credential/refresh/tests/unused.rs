//! What is forgotten of accounts that nobody uses, and what is not.

use std::{sync::Arc, time::Duration};

use super::world::*;
use crate::{
    credential::{Error, Local, wire},
    policy::Permit,
};

#[tokio::test(start_paused = true)]
async fn an_account_that_nobody_uses_is_forgotten_and_read_again_when_somebody_does() {
    let world = World::new(HOUR).await;
    let known = Arc::downgrade(&world.ask().await.unwrap());
    world.resolver.tidy();
    world.ask().await.unwrap();
    world.resolver.tidy();
    assert!(known.upgrade().is_some(), "it was used in between");
    world.resolver.tidy();
    assert!(known.upgrade().is_none());
    assert_eq!(world.token().await.unwrap(), "access-token-0");
    assert_eq!(world.provider.posts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_freeze_ends_a_stream_whose_account_was_forgotten() {
    let world = World::new(HOUR).await;
    let stream = world.ask().await.unwrap();
    for _ in 0..3 {
        world.resolver.tidy();
    }
    world.vault.freeze(&key(), "admin").await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(stream.ended().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn what_was_used_counts_as_used_although_it_was_forgotten() {
    let world = World::new(HOUR).await;
    world.follow();
    world.schedule();
    world.token().await.unwrap();
    for _ in 0..3 {
        world.resolver.tidy();
    }
    tokio::time::sleep(SECOND * 3599).await;
    assert_eq!(world.provider.posts(), 1);
    assert!(world.grant().await.used.is_some());
}

/// How many times the background is to look at accounts that were woken.
fn woken(world: &World) -> usize {
    world.engine.0.woken.lock().unwrap().as_ref().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_woken_often_waits_once_to_be_looked_at() {
    let world = World::new(HOUR).await;
    let local = Local::new(Arc::new(world.vault.clone())).refreshing(world.engine.clone());
    let ahead = async |permit: &Permit| {
        let (account, subject) = (permit.account().clone(), permit.subject().clone());
        let question = wire::Question { account, subject, ask: wire::Ask::Ahead, refused: None };
        local.answer(permit, &question, &world.current()).await
    };
    let nobodys = world.permit_of("globex", &http::Method::GET);
    assert!(matches!(ahead(&nobodys).await, Err(Error::Missing(_))));
    assert_eq!(woken(&world), 0, "one that is not there is not looked at");
    for _ in 0..100 {
        ahead(&world.permit()).await.unwrap();
    }
    assert_eq!(woken(&world), 1);
    world.schedule();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.engine.0.waiting.lock().unwrap().is_empty(), "looked at, it can be woken again");
}
