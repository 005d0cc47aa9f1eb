//! What the broker tells reaches the next request, in whatever order it arrives.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::world::{SECOND, World, key, live, problem, token};
use crate::{
    credential::wire::{Ask, Code, Line, Problem},
    drain::Drain,
    vault::{Change, Whole},
};

fn frozen() -> serde_json::Value {
    problem(&Problem { by: Some("an admin".to_owned()), ..Problem::new(Code::AccountFrozen, "it is") })
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_gave_is_asked_for_once_until_it_changes() {
    let world = World::followed().await;
    assert_eq!((world.token().await, world.token().await), ("kb-canary-1".into(), "kb-canary-1".into()));
    assert_eq!(world.brokers[0].count(Ask::Give), 1);
    world.says(live("kb-canary-2", 2));
    world.brokers[0].tell(&Line::Account(key()));
    world.taken(0).await;
    assert_eq!(world.token().await, "kb-canary-2");
    assert_eq!(world.brokers[0].count(Ask::Give), 2);
}

/// The answer was found before the change, and comes after the line that tells of it.
#[tokio::test(start_paused = true)]
async fn an_answer_that_the_watch_overtook_is_not_used() {
    let world = Arc::new(World::followed().await);
    let hold = Arc::new(Semaphore::new(0));
    world.brokers[0].book().held = Some(Arc::clone(&hold));
    let asking = {
        let world = Arc::clone(&world);
        Drain::default().spawn(async move { world.token().await })
    };
    while world.brokers[0].count(Ask::Give) < 1 {
        tokio::task::yield_now().await;
    }
    world.says(live("kb-canary-2", 2));
    world.brokers[0].tell(&Line::Account(key()));
    world.taken(0).await;
    hold.add_permits(2);
    assert_eq!(asking.await.unwrap(), "kb-canary-2");
    assert_eq!((world.token().await, world.brokers[0].count(Ask::Give)), ("kb-canary-2".into(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_freeze_refuses_the_next_request_and_ends_open_streams() {
    let world = World::followed().await;
    let open = world.ask().await.unwrap();
    world.says(frozen());
    world.brokers[0].tell(&Line::Account(key()));
    open.ended().cancelled().await;
    assert_eq!(world.refusal().await, "the account is frozen");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_frozen_as_a_whole_is_frozen_here() {
    let world = World::followed().await;
    let open = world.ask().await.unwrap();
    world.says(frozen());
    world.brokers[0].tell(&Line::of(&Change::Whole(Whole::of_tenant("other".parse().unwrap()))));
    world.taken(0).await;
    assert_eq!(world.token().await, "kb-canary-1", "it is another tenant's");
    world.brokers[0].tell(&Line::of(&Change::Whole(Whole::of_tenant("acme".parse().unwrap()))));
    open.ended().cancelled().await;
    assert_eq!(world.refusal().await, "the account is frozen");
}

#[tokio::test(start_paused = true)]
async fn another_token_ends_no_stream() {
    let world = World::followed().await;
    let open = world.ask().await.unwrap();
    world.says(live("kb-canary-2", 2));
    world.brokers[0].tell(&Line::Account(key()));
    world.taken(0).await;
    let next = world.ask().await.unwrap();
    while world.brokers[0].count(Ask::Look) < 1 {
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!((token(&next).as_str(), open.ended().is_cancelled()), ("kb-canary-2", false));
}

/// The watch says that something changed, and the broker cannot say what, for a while.
#[tokio::test(start_paused = true)]
async fn streams_end_as_soon_as_it_can_be_told_that_they_have_to() {
    let world = World::followed().await;
    let open = world.ask().await.unwrap();
    world.says(problem(&Problem::new(Code::VaultUnavailable, "the vault is away")));
    world.brokers[0].tell(&Line::Account(key()));
    while world.brokers[0].count(Ask::Look) < 3 {
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(!open.ended().is_cancelled());
    world.says(frozen());
    open.ended().cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_nobody_understands_makes_everything_asked_for_anew() {
    let world = World::followed().await;
    world.token().await;
    world.says(live("kb-canary-2", 2));
    world.brokers[0].say(r#"{"tide": "high"}"#);
    world.taken(0).await;
    assert_eq!(world.token().await, "kb-canary-2");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_forgotten_with_what_is_known_besides() {
    let world = World::followed().await;
    world.says(problem(&Problem {
        reconnect_url: Some("https://broker.test/connect/acme/crm?as=tenant".to_owned()),
        ..Problem::new(Code::AccountMissing, "nobody connected it")
    }));
    assert_eq!(world.refusal().await, "no crm account of tenant acme is connected as tenant");
    let url = world.resolver.reconnect_url(&key());
    assert_eq!(url.as_deref(), Some("https://broker.test/connect/acme/crm?as=tenant"));
    world.resolver.tidy();
    assert_eq!(world.resolver.reconnect_url(&key()), None);
}
