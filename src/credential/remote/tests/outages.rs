//! Brokers that are away, silent, stopping, or not the broker.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::world::{MINUTE, OFFLINE_USE, PATIENCE, SECOND, TIMEOUT, World, key, live, problem};
use crate::{
    credential::wire::{Ask, Code, Line, Problem},
    drain::Drain,
    tls::{Authority, Roots},
    vault::Change,
};

const AWAY: &str = "the broker https://broker.test:7443 cannot be reached: ";

#[tokio::test(start_paused = true)]
async fn without_the_broker_accounts_are_used_within_the_bound_and_refused_after() {
    let world = World::followed().await;
    assert_eq!(world.token().await, "kb-canary-1");
    world.brokers[0].die();
    sleep(OFFLINE_USE.saturating_sub(2 * SECOND)).await;
    assert_eq!(world.token().await, "kb-canary-1");
    assert!(world.remote.trouble().is_none());
    sleep(3 * SECOND).await;
    let refusal = world.refusal().await;
    assert!(refusal.starts_with(AWAY) && refusal.contains("refused"), "{refusal}");
    let trouble = world.remote.trouble().unwrap();
    assert!(trouble.contains("https://broker.test:7443 is not heard from"), "{trouble}");
    assert!(world.metric("keybearer_broker_connected 0"));

    world.says(live("kb-canary-2", 2));
    world.brokers[0].live();
    world.taken(0).await;
    assert_eq!((world.token().await, world.remote.trouble()), ("kb-canary-2".into(), None));
    assert!(world.metric("keybearer_broker_connected 1"));
    assert!(world.metric(r#"keybearer_broker_calls_total{ask="give",outcome="answered"} 2"#));
    assert!(world.metric(r#"keybearer_broker_calls_total{ask="give",outcome="unreachable"} 1"#));
}

/// Each no longer than it lives itself.
#[tokio::test(start_paused = true)]
async fn an_account_that_ends_within_the_bound_is_refused_when_it_has_ended() {
    let world = World::followed().await;
    let mut short = live("kb-canary-1", 1);
    let now: jiff::Timestamp = serde_json::from_value(short["now"].clone()).unwrap();
    short["until"] = serde_json::to_value(now + jiff::SignedDuration::from_secs(20)).unwrap();
    world.says(short);
    assert_eq!(world.token().await, "kb-canary-1");
    world.brokers[0].die();
    sleep(19 * SECOND).await;
    assert_eq!(world.token().await, "kb-canary-1");
    sleep(SECOND).await;
    let refusal = world.refusal().await;
    assert!(refusal.starts_with(AWAY), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_without_the_broker_and_ends_when_it_is_back_and_says_so() {
    let world = World::followed().await;
    let open = world.ask().await.unwrap();
    world.brokers[0].die();
    sleep(10 * MINUTE).await;
    assert!(!open.ended().is_cancelled());
    world.says(problem(&Problem::new(Code::AuthRevoked, "it is")));
    world.brokers[0].live();
    open.ended().cancelled().await;
}

/// Nobody knows what changed between two watches.
#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_anew_makes_everything_asked_for_anew() {
    let world = World::followed().await;
    world.token().await;
    world.says(live("kb-canary-2", 2));
    world.brokers[0].end_watches();
    world.taken(0).await;
    assert_eq!(world.token().await, "kb-canary-2");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stops_is_left_for_another() {
    let world = World::followed().await;
    world.brokers[1].live();
    world.brokers[1].book().accounts.insert(key(), live("kb-canary-2", 1));
    world.brokers[0].die();
    world.taken(1).await;
    assert_eq!(world.token().await, "kb-canary-2");
}

/// It answers, but does not hear of changes itself: another may.
#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_left_for_another() {
    let world = World::followed().await;
    let begun = Instant::now();
    world.brokers[1].live();
    world.brokers[1].book().accounts.insert(key(), live("kb-canary-2", 1));
    world.brokers[0].book().beats = false;
    world.brokers[0].book().refuses_watch = Some(Code::VaultUnavailable);
    world.taken(1).await;
    assert!(begun.elapsed() > 4 * SECOND && begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(world.token().await, "kb-canary-2");
}

/// What would not be heard of is good for one request.
#[tokio::test(start_paused = true)]
async fn without_a_watch_every_request_asks() {
    let world = World::new();
    world.brokers[0].book().refuses_watch = Some(Code::VaultUnavailable);
    world.remote.follow(&world.resolver);
    for (asked, token) in ["kb-canary-1", "kb-canary-2"].into_iter().enumerate() {
        world.says(live(token, 1));
        assert_eq!(world.token().await, token);
        assert_eq!(world.brokers[0].count(Ask::Give), asked + 1);
    }
    assert!(world.remote.trouble().is_some());
    world.brokers[0].book().refuses_watch = None;
    world.taken(0).await;
    world.token().await;
    let asked = world.brokers[0].count(Ask::Give);
    world.token().await;
    assert_eq!((world.brokers[0].count(Ask::Give), world.remote.trouble()), (asked, None));
}

/// What was asked on a connection that breaks is asked again on the next.
#[tokio::test(start_paused = true)]
async fn a_question_survives_the_connection() {
    let world = std::sync::Arc::new(World::followed().await);
    world.brokers[0].book().held = Some(std::sync::Arc::new(tokio::sync::Semaphore::new(0)));
    let asking = {
        let world = std::sync::Arc::clone(&world);
        Drain::default().spawn(async move { world.token().await })
    };
    while world.brokers[0].count(Ask::Give) < 1 {
        tokio::task::yield_now().await;
    }
    world.brokers[1].live();
    world.brokers[1].book().accounts.insert(key(), live("kb-canary-2", 1));
    world.brokers[0].die();
    assert_eq!(asking.await.unwrap(), "kb-canary-2");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_waited_for_as_long_as_configured() {
    let world = World::followed().await;
    world.brokers[0].book().held = Some(std::sync::Arc::new(tokio::sync::Semaphore::new(0)));
    let late = "the broker https://broker.test:7443 does not answer in time";
    let begun = Instant::now();
    assert_eq!(world.look().await.map(drop).unwrap_err().to_string(), late);
    assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
    let begun = Instant::now();
    assert_eq!(world.refusal().await, late);
    assert_eq!(begun.elapsed().as_secs(), (TIMEOUT + 2 * PATIENCE).as_secs(), "it waits for a provider");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_kept_waiting_while_no_broker_is_there() {
    let world = World::followed().await;
    world.brokers[0].die();
    sleep(5 * SECOND).await;
    world.resolver.follow(&Change::Unknown).await;
    let refused = timeout(Duration::from_millis(1), world.refusal()).await.unwrap();
    assert!(refused.starts_with(AWAY), "{refused}");
}

/// Before the first word of it nothing is said to it.
#[tokio::test(start_paused = true)]
async fn a_broker_that_others_vouch_for_is_told_nothing() {
    let others = Authority::open(None).unwrap().pem().to_owned();
    let world = World::with(|_| Roots::Pem(others));
    world.remote.follow(&world.resolver);
    let refusal = world.refusal().await;
    assert!(refusal.starts_with(AWAY) && refusal.contains("certificate"), "{refusal}");
    assert_eq!(world.brokers[0].count(Ask::Give), 0);
}

#[tokio::test(start_paused = true)]
async fn lines_before_the_watch_begins_and_lines_without_an_end_end_it() {
    let world = World::followed().await;
    world.token().await;
    world.says(live("kb-canary-2", 2));
    world.brokers[0].say(&"x".repeat(40 * 1024));
    world.taken(0).await;
    assert_eq!(world.token().await, "kb-canary-2");
    world.brokers[0].tell(&Line::Heard(true));
}
