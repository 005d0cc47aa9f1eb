//! Who asks how often: one POST a generation, whatever happens around it.

use futures_util::future::join_all;
use serde_json::json;

use super::world::*;
use crate::credential::{Error, Trouble};

#[tokio::test(start_paused = true)]
async fn of_64_requests_at_once_one_refreshes_and_all_get_its_token() {
    let world = World::new(HOUR).await;
    for generation in 1..=5 {
        tokio::time::sleep(HOUR).await;
        world.provider.will(Reply::After(SECOND));
        let tokens = join_all((0..64).map(|_| world.token())).await;
        let expected = format!("access-token-{generation}");
        assert!(tokens.into_iter().all(|token| token.unwrap() == expected));
        assert_eq!(world.provider.posts(), generation);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_does_not_abort_the_refresh_that_it_began() {
    let world = World::new(HOUR).await;
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::After(SECOND * 2));
    let gone = tokio::time::timeout(SECOND, world.token()).await;
    assert!(gone.is_err());
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.provider.posts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_three_seconds_and_then_is_told_to_come_again() {
    let world = World::new(HOUR).await;
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::After(SECOND * 8));
    let begun = tokio::time::Instant::now();
    assert_eq!(world.trouble().await, Trouble::Slow);
    assert_eq!(begun.elapsed(), SECOND * 3);
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.provider.posts(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_on_a_dead_account_cost_one_post() {
    let world = World::new(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    world.provider.always(Reply::Says(400, json!({"error": "invalid_grant"})));
    for _ in 0..100 {
        let all = join_all((0..100).map(|_| world.token())).await;
        assert!(all.iter().all(|asked| matches!(asked, Err(Error::Closed { .. }))));
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(world.provider.posts(), 1);
    assert_eq!(world.told().await, ["account.reauth_required revoked"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_lives_is_replaced_behind_the_requests_that_use_it() {
    let world = World::new(HOUR).await;
    world.follow();
    world.schedule();
    tokio::time::sleep(MINUTE * 59).await;
    world.provider.will(Reply::After(SECOND * 5));
    let begun = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(world.token().await.unwrap(), "access-token-0");
    }
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "nobody waited");
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.provider.posts(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_replicas_on_one_vault_make_one_post() {
    let one = World::new(HOUR).await;
    let two = World::over(one.vault.clone(), one.provider.clone(), one.clock.clone(), one.current());
    tokio::time::sleep(HOUR).await;
    one.provider.will(Reply::After(SECOND));
    let (first, second) = tokio::join!(one.token(), two.token());
    assert_eq!((first.unwrap(), second.unwrap()), ("access-token-1".to_owned(), "access-token-1".to_owned()));
    assert_eq!(one.provider.posts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_and_a_young_one_is_not() {
    let world = World::new(HOUR).await;
    world.follow();
    let refused = world.ask().await.unwrap();
    let challenged = || world.challenged(&refused);
    assert!(challenged().await.is_none(), "it is too young to have ended");
    tokio::time::sleep(MINUTE).await;
    let all = join_all((0..64).map(|_| challenged())).await;
    assert!(all.into_iter().all(|another| token(&another.unwrap()) == "access-token-1"));
    assert_eq!(world.provider.posts(), 1);

    let refused = world.ask().await.unwrap();
    tokio::time::sleep(MINUTE * 5).await;
    assert!(world.challenged(&refused).await.is_none(), "the token is not what is wrong");
    assert_eq!(world.provider.posts(), 1);
    tokio::time::sleep(MINUTE * 5).await;
    assert!(world.challenged(&refused).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_another_replica_replaced_is_read_and_not_asked_for() {
    let one = World::new(HOUR).await;
    let two = World::over(one.vault.clone(), one.provider.clone(), one.clock.clone(), one.current());
    let refused = two.ask().await.unwrap();
    tokio::time::sleep(HOUR).await;
    one.token().await.unwrap();
    let another = two.challenged(&refused).await.unwrap();
    assert_eq!(token(&another), "access-token-1");
    assert_eq!(one.provider.posts(), 1);
}
