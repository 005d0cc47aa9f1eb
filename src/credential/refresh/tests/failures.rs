//! What a provider, the vault or an operator does in between.

use std::time::Duration;

use serde_json::json;

use super::world::*;
use crate::{
    cause::Cause,
    credential::{Closed, Error, Trouble},
    vault::{GrantState, Status},
};

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_down_is_left_alone_and_the_token_is_used_while_it_lives() {
    let world = World::new(HOUR).await;
    world.follow();
    world.schedule();
    world.provider.always(Reply::Away);
    tokio::time::sleep(MINUTE * 55).await;
    assert_eq!(world.token().await.unwrap(), "access-token-0");
    tokio::time::sleep(MINUTE * 4).await;
    assert_eq!(world.token().await.unwrap(), "access-token-0");
    assert!(matches!(world.grant().await.state, GrantState::Backoff { .. }));
    tokio::time::sleep(MINUTE * 5).await;
    let before = world.provider.posts();
    for _ in 0..1000 {
        assert!(matches!(world.trouble().await, Trouble::Unreachable { .. }));
    }
    assert!(world.provider.posts() <= before + 1);
    world.provider.book.lock().unwrap().always = None;
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.grant().await.state, GrantState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let world = World::new(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::Later(429, 600));
    let Trouble::Unreachable { retry_after } = world.trouble().await else { panic!() };
    assert!((600..=602).contains(&retry_after.as_secs()), "{retry_after:?}");
    tokio::time::sleep(SECOND * 599).await;
    assert!(matches!(world.trouble().await, Trouble::Unreachable { .. }));
    assert_eq!(world.provider.posts(), 1);
    tokio::time::sleep(SECOND * 4).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_client_secret_pauses_the_app_and_closes_no_account() {
    let world = World::new(HOUR).await;
    world.follow();
    world.vault.add(connected(&world.clock, "other/crm/tenant".parse().unwrap(), HOUR)).await.unwrap();
    tokio::time::sleep(HOUR).await;
    world.provider.always(Reply::Says(401, json!({"error": "invalid_client"})));
    let generation = world.account().await.generation;
    for tenant in ["acme", "other"] {
        let permit = world.permit_of(tenant, &http::Method::GET);
        let asked = world.resolver.resolve(&permit, &world.current(), None).await;
        assert!(matches!(asked, Err(Error::NoToken { trouble: Trouble::AppPaused { .. }, .. })));
    }
    assert_eq!(world.provider.posts(), 1);
    assert_eq!(world.account().await.generation, generation, "the account is not to blame");
    assert_eq!(world.told().await, ["app.paused"]);
    assert!(world.metric("keybearer_apps_paused{connector=\"crm\"} 1"));

    world.provider.book.lock().unwrap().always = None;
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert!(world.metric("keybearer_apps_paused{connector=\"crm\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn a_freeze_during_a_refresh_stays_and_the_new_token_is_kept_and_not_used() {
    let world = World::new(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::After(SECOND * 2));
    let asked = world.token();
    let frozen = async {
        tokio::time::sleep(SECOND).await;
        world.vault.freeze(&key(), "scim").await.unwrap();
    };
    let (asked, ()) = tokio::join!(asked, frozen);
    assert!(matches!(asked, Err(Error::Frozen { .. })), "{asked:?}");
    let account = world.account().await;
    assert_eq!(account.status, Status::Frozen { by: "scim".to_owned() });
    assert_eq!((grant(&account).access, grant(&account).refresh), (None, spent("refresh-1")));
    assert_eq!(world.provider.book.lock().unwrap().revoked, ["access-token-1"]);
    world.vault.unfreeze(&key()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(world.token().await.unwrap(), "access-token-2");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_for_an_account_that_was_revoked_meanwhile_is_revoked_at_the_provider() {
    let world = World::new(HOUR).await;
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::After(SECOND * 2));
    let (asked, _) = tokio::join!(world.token(), async {
        tokio::time::sleep(SECOND).await;
        world.vault.revoke(&key()).await.unwrap()
    });
    assert!(matches!(asked, Err(Error::Revoked(_))));
    assert_eq!(world.provider.book.lock().unwrap().revoked, ["refresh-1", "access-token-1"]);
    assert_eq!(world.grant().await.refresh, None);
    assert!(world.vault.intents().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_consent_during_a_refresh_wins_over_a_failure_of_the_old_one() {
    let world = World::new(HOUR).await;
    tokio::time::sleep(HOUR).await;
    world.provider.always(Reply::Says(400, json!({"error": "invalid_grant"})));
    world.provider.will(Reply::After(SECOND));
    let mut consent = connected(&world.clock, key(), HOUR);
    world.provider.book.lock().unwrap().is_dead = true;
    if let crate::vault::Material::Oauth(grant) = &mut consent.material {
        grant.refresh = spent("consented-0");
    }
    let (asked, _) = tokio::join!(world.token(), async {
        tokio::time::sleep(SECOND / 2).await;
        world.vault.connect(consent).await.unwrap()
    });
    assert_eq!(asked.unwrap(), "access-token-0", "the new consent's");
    assert_eq!(world.grant().await.state, GrantState::Fresh);
}

#[tokio::test(start_paused = true)]
async fn an_answer_slower_than_the_lease_is_committed_because_the_lease_is_kept() {
    let world = World::new(HOUR).await;
    let two = World::over(world.vault.clone(), world.provider.clone(), world.clock.clone(), world.current());
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::After(MINUTE * 2));
    assert_eq!(world.trouble().await, Trouble::Slow);
    for _ in 0..30 {
        let _ = two.token().await;
        tokio::time::sleep(SECOND).await;
    }
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(world.provider.posts(), 1, "the other replica kept away");
    assert_eq!(two.token().await.unwrap(), "access-token-1");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_kept_and_read_when_the_connector_is_mended() {
    let world = World::new(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::Odd);
    assert_eq!(world.trouble().await, Trouble::Unreadable);
    for _ in 0..10 {
        assert_eq!(world.trouble().await, Trouble::Unreadable);
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(world.provider.posts(), 1, "the old token is not spent again");

    let mended = json!({"rotation": {"rotates": "always"}, "token_at": "token"});
    *world.connector.lock().unwrap() = connector(&mended);
    assert_eq!(world.engine.connectors_changed().await.unwrap(), 1);
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.grant().await.refresh, spent("refresh-1"));
    assert_eq!(world.provider.posts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_recovered_within_the_grace_of_the_provider() {
    let world = World::new(HOUR).await;
    world.follow();
    world.provider.book.lock().unwrap().grace = MINUTE;
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::Lost);
    assert!(matches!(world.trouble().await, Trouble::Unreachable { .. }));
    assert!(matches!(world.grant().await.state, GrantState::Ambiguous { .. }));
    for _ in 0..1000 {
        assert!(matches!(world.trouble().await, Trouble::Unreachable { .. }));
    }
    assert_eq!(world.provider.posts(), 1, "a doubt does not make a storm");
    tokio::time::sleep(SECOND * 16).await;
    assert_eq!(world.token().await.unwrap(), "access-token-2");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_without_grace_is_lost_and_says_so() {
    let world = World::new(HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::Lost);
    world.trouble().await;
    tokio::time::sleep(SECOND * 16).await;
    let asked = world.token().await;
    let lost = Closed::Reauthorize(Cause::LostRotation);
    assert!(matches!(asked, Err(Error::Closed { closed, .. }) if closed == lost), "{asked:?}");
    assert_eq!(world.provider.posts(), 2);
    let told = world.told().await;
    assert_eq!(told, ["account.refresh_in_doubt", "account.reauth_required lost_rotation"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_a_provider_that_does_not_rotate_is_no_doubt() {
    let world = World::with(json!({}), HOUR).await;
    world.follow();
    world.provider.book.lock().unwrap().rotates = false;
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::Lost);
    world.trouble().await;
    assert!(matches!(world.grant().await.state, GrantState::Backoff { .. }));
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(world.token().await.unwrap(), "access-token-2");
    assert_eq!(world.grant().await.refresh, spent("refresh-0"), "the one that it had (F14)");
}

#[tokio::test(start_paused = true)]
async fn each_definitive_answer_has_its_own_state() {
    let cases = [
        ("interaction_required", Closed::NeedsUser(Cause::Policy)),
        ("invalid_grant", Closed::Reauthorize(Cause::Revoked)),
    ];
    for (error, expected) in cases {
        let world = World::new(HOUR).await;
        tokio::time::sleep(HOUR).await;
        world.provider.will(Reply::Says(400, json!({"error": error})));
        let asked = world.token().await;
        assert!(
            matches!(asked, Err(Error::Closed { closed, .. }) if closed == expected),
            "{error}: {asked:?}"
        );
        assert_eq!(world.grant().await.refresh, spent("refresh-0"), "what may work again is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_no_answer_names_is_learnt_by_introspection_or_by_a_refusal() {
    let dialect =
        json!({"rotation": {"rotates": "always"}, "introspect_url": "https://login.crm.test/introspect"});
    let world = World::with(dialect, HOUR).await;
    world.follow();
    world.provider.book.lock().unwrap().life = 0;
    world.provider.book.lock().unwrap().introspected = Some(7200);
    tokio::time::sleep(HOUR).await;
    world.token().await.unwrap();
    let access = world.grant().await.access.unwrap();
    assert_eq!(access.expires.unwrap().duration_since(access.obtained).as_secs(), 7200);

    world.provider.book.lock().unwrap().introspected = None;
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(world.token().await.unwrap(), "access-token-2");
    assert_eq!(world.grant().await.access.unwrap().expires, None);
    tokio::time::sleep(HOUR * 100).await;
    let refused = world.ask().await.unwrap();
    assert_eq!(token(&refused), "access-token-2", "used until the provider refuses it");
    let another = world.challenged(&refused).await.unwrap();
    assert_eq!(token(&another), "access-token-3");
}

#[tokio::test(start_paused = true)]
async fn a_grant_whose_deadline_has_passed_is_not_tried() {
    let world = World::new(HOUR).await;
    let mut consent = connected(&world.clock, key(), HOUR);
    if let crate::vault::Material::Oauth(grant) = &mut consent.material {
        grant.deadline = grant.access.as_ref().and_then(|access| access.expires);
    }
    world.vault.connect(consent).await.unwrap();
    tokio::time::sleep(HOUR + Duration::from_millis(1)).await;
    let asked = world.token().await;
    let ended = Closed::Reauthorize(Cause::ExpiredHard);
    assert!(matches!(asked, Err(Error::Closed { closed, .. }) if closed == ended), "{asked:?}");
    assert_eq!(world.provider.posts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_freeze_ends_a_stream_that_an_earlier_token_opened() {
    let world = World::new(HOUR).await;
    let old = world.ask().await.unwrap();
    tokio::time::sleep(HOUR).await;
    world.token().await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(!old.ended().is_cancelled(), "a refresh ends nothing");
    world.vault.freeze(&key(), "admin").await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(old.ended().is_cancelled());
}
