//! Tokens that are minted: as seldom, as shared and as dead as those that are refreshed.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::{super::Minting, world::*};
use crate::{
    cause::Cause,
    credential::{Closed, Error, Trouble},
    vault::{Material, NewAccount},
};

async fn world() -> World {
    World::minting("client_credentials", vec![client(key(), "one")]).await
}

/// An account that holds nothing: the app of the configuration asks for it.
fn by_app(key: &str) -> NewAccount {
    NewAccount { material: Material::Seed { fields: [].into() }, ..client(key.parse().unwrap(), "none") }
}

async fn closed(world: &World) -> Closed {
    match world.token().await {
        Err(Error::Closed { closed, .. }) => closed,
        other => panic!("{other:?}"),
    }
}

/// What was told and waits in memory, by event.
fn untold(world: &World) -> Vec<String> {
    let told = super::super::lock(&world.engine.0.untold);
    let event = |event: &crate::audit::Event| match &event.error {
        Some(cause) => format!("{} {cause}", event.event.as_deref().unwrap()),
        None => event.event.as_deref().unwrap().to_owned(),
    };
    told.iter().map(event).collect()
}

#[tokio::test(start_paused = true)]
async fn of_64_requests_at_once_one_mints_and_all_get_its_token() {
    let world = world().await;
    for number in 1..=5 {
        world.provider.will(Reply::After(SECOND));
        let tokens = join_all((0..64).map(|_| world.token())).await;
        assert!(tokens.into_iter().all(|token| token.unwrap() == format!("one-{number}")));
        assert_eq!(world.provider.mints(), number);
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(untold(&world), ["account.minted"; 5]);
    assert!(world.metric(r#"keybearer_refresh_total{connector="crm",outcome="minted"} 5"#));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_away_does_not_abort_the_minting_that_it_began() {
    let world = world().await;
    world.provider.will(Reply::After(SECOND * 2));
    assert!(tokio::time::timeout(SECOND, world.token()).await.is_err());
    assert_eq!(world.token().await.unwrap(), "one-1");
    assert_eq!(world.provider.mints(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_three_seconds_for_what_is_minted_slowly() {
    let world = world().await;
    world.provider.will(Reply::After(SECOND * 8));
    assert_eq!(world.trouble().await, Trouble::Slow);
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(world.token().await.unwrap(), "one-1");
    assert_eq!(world.provider.mints(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_used_is_minted_anew_behind_the_requests_and_nothing_else_is() {
    let world = world().await;
    world.schedule();
    for number in 1..=5 {
        let begun = tokio::time::Instant::now();
        assert_eq!(world.token().await.unwrap(), format!("one-{number}"));
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited for number {number}");
        world.provider.will(Reply::After(SECOND * 5));
        tokio::time::sleep(MINUTE * 56).await;
    }
    tokio::time::sleep(HOUR * 24).await;
    assert_eq!(world.provider.mints(), 6, "one ahead for the last use, and no other");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_forgotten_and_minted_again_when_somebody_does() {
    let world = world().await;
    for _ in 0..3 {
        assert_eq!(world.token().await.unwrap(), "one-1");
        world.resolver.tidy();
    }
    world.resolver.tidy();
    assert_eq!(world.token().await.unwrap(), "one-2");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_on_what_is_refused_cost_one_post_and_a_change_ends_that() {
    let world = world().await;
    world.provider.always(Reply::Says(400, json!({"error": "invalid_grant"})));
    for _ in 0..100 {
        let all = join_all((0..100).map(|_| world.token())).await;
        assert!(all.iter().all(|asked| matches!(asked, Err(Error::Closed { .. }))));
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(world.provider.mints(), 1);
    assert_eq!(closed(&world).await, Closed::Refused(Cause::Revoked));
    assert_eq!(untold(&world), ["account.mint_refused revoked"]);

    tokio::time::sleep(MINUTE * 14).await;
    closed(&world).await;
    assert_eq!(
        world.provider.mints(),
        2,
        "a quarter of an hour later the provider may have changed its mind"
    );
    closed(&world).await;
    assert_eq!(world.provider.mints(), 2);

    world.provider.book.lock().unwrap().always = None;
    world.vault.replace(&key(), client(key(), "other").material).await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(world.token().await.unwrap().starts_with("other-"));
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_is_gone_is_told_as_that_and_one_that_is_suspended_is_not() {
    for (status, expected) in [
        (404, Closed::SubjectGone(Cause::Uninstalled)),
        (410, Closed::SubjectGone(Cause::Uninstalled)),
        (403, Closed::Refused(Cause::Policy)),
        (422, Closed::Refused(Cause::Policy)),
    ] {
        let world = World::minting("github_app", vec![by_app("acme/crm/tenant")]).await;
        world.provider.always(Reply::Says(status, json!({"message": "Not Found"})));
        assert_eq!(closed(&world).await, expected, "{status}");
        assert_eq!(closed(&world).await, expected);
        assert_eq!(world.provider.mints(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_of_its_own_closes_an_account_and_one_of_the_app_pauses_the_app() {
    let globex = "globex/crm/tenant".parse().unwrap();
    let world = World::minting("client_credentials", vec![client(key(), "one"), client(globex, "one")]).await;
    world.provider.will(Reply::Says(401, json!({"error": "invalid_client"})));
    assert_eq!(closed(&world).await, Closed::Refused(Cause::WrongClient));
    assert_eq!(world.token_of("globex").await.unwrap(), "one-2", "another tenant's of the same name goes on");

    let accounts = vec![by_app("acme/crm/tenant"), by_app("globex/crm/tenant")];
    let world = World::minting("client_credentials", accounts).await;
    world.provider.will(Reply::Says(401, json!({"error": "invalid_client"})));
    assert!(matches!(world.trouble().await, Trouble::AppPaused { .. }));
    let paused = world.token_of("globex").await;
    assert!(matches!(paused, Err(Error::NoToken { trouble: Trouble::AppPaused { .. }, .. })), "{paused:?}");
    assert_eq!(world.provider.mints(), 1);
    assert_eq!(untold(&world), ["app.paused"]);
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(world.token().await.unwrap(), "kb-client-2");
    assert_eq!(world.token_of("globex").await.unwrap(), "kb-client-3");
}

#[tokio::test(start_paused = true)]
async fn what_one_account_asks_wrongly_does_not_pause_the_app_of_all() {
    let accounts = vec![by_app("acme/crm/tenant"), by_app("globex/crm/tenant")];
    let world = World::minting("client_credentials", accounts).await;
    world.provider.will(Reply::Says(400, json!({"error": "invalid_scope"})));
    assert_eq!(closed(&world).await, Closed::Refused(Cause::Policy));
    assert_eq!(world.token_of("globex").await.unwrap(), "kb-client-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_wants_to_be_left_alone_is_and_the_token_is_used_while_it_lives() {
    let world = world().await;
    world.provider.will(Reply::Later(429, 60));
    let Trouble::Unreachable { retry_after } = world.trouble().await else { panic!("not told when") };
    assert!(retry_after > MINUTE);
    world.trouble().await;
    assert_eq!(world.provider.mints(), 1);
    tokio::time::sleep(retry_after + SECOND).await;
    assert_eq!(world.token().await.unwrap(), "one-2");

    world.schedule();
    world.provider.always(Reply::Says(503, json!({})));
    tokio::time::sleep(MINUTE * 59).await;
    for _ in 0..10 {
        assert_eq!(world.token().await.unwrap(), "one-2");
        tokio::time::sleep(SECOND).await;
    }
    assert!(world.provider.mints() > 2, "another one was asked for meanwhile");
    tokio::time::sleep(MINUTE).await;
    assert!(matches!(world.trouble().await, Trouble::Unreachable { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_minted_token_that_the_api_refuses_is_minted_anew_once() {
    let world = world().await;
    let refused = world.ask().await.unwrap();
    assert!(refused.is_replaceable());
    assert!(world.challenged(&refused).await.is_none(), "it is too young to have ended");
    tokio::time::sleep(MINUTE).await;
    let all = join_all((0..64).map(|_| world.challenged(&refused))).await;
    assert!(all.into_iter().all(|another| token(&another.unwrap()) == "one-2"));
    assert_eq!(world.token().await.unwrap(), "one-2");
    let refused = world.ask().await.unwrap();
    tokio::time::sleep(MINUTE * 5).await;
    assert!(world.challenged(&refused).await.is_none(), "the token is not what is wrong");
    assert_eq!(world.provider.mints(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_minted_is_dropped_with_each_change_of_its_account() {
    let world = world().await;
    assert_eq!(world.token().await.unwrap(), "one-1");
    world.vault.freeze(&key(), "ops").await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(matches!(world.token().await, Err(Error::Frozen { .. })));
    world.vault.unfreeze(&key()).await.unwrap();
    world.resolver.changed(&key()).await;
    assert_eq!(world.token().await.unwrap(), "one-2");
    world.vault.remove(&key()).await.unwrap();
    world.vault.add(client(key(), "two")).await.unwrap();
    // Nobody was told of it, as where a replica misses a message: the account's own beginning tells.
    let standing = world.engine.minting(&world.account().await, &world.current());
    assert!(matches!(standing, Minting::Over), "{standing:?}");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_for_an_account_that_was_frozen_meanwhile_is_used_by_nobody_and_revoked() {
    let world = world().await;
    world.provider.will(Reply::After(SECOND));
    let (asked, ()) = tokio::join!(world.token(), async {
        tokio::time::sleep(SECOND / 2).await;
        world.vault.freeze(&key(), "ops").await.unwrap();
    });
    assert!(matches!(asked, Err(Error::Frozen { .. })), "{asked:?}");
    assert_eq!(world.provider.book.lock().unwrap().revoked, ["one-1"]);
    world.vault.unfreeze(&key()).await.unwrap();
    world.resolver.changed(&key()).await;
    assert_eq!(world.token().await.unwrap(), "one-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_what_the_grants_need_and_another_one_when_that_changes() {
    let world = world().await;
    world.token().await.unwrap();
    assert_eq!(world.provider.minted_for(), "read");
    let wider = ["deals:read".parse().unwrap(), "deals:write".parse().unwrap()];
    *world.needs.lock().unwrap() = wider.clone().into();
    *world.connector.lock().unwrap() = minting("client_credentials"); // as after a reload
    assert_eq!(world.token().await.unwrap(), "one-2");
    assert_eq!(world.provider.minted_for(), "read write");
    *world.connector.lock().unwrap() = minting("client_credentials");
    assert_eq!(world.token().await.unwrap(), "one-2", "a reload that changes nothing costs nothing");

    let bounded = NewAccount {
        scopes: Some([wider[0].clone()].into()),
        ..client("globex/crm/tenant".parse().unwrap(), "two")
    };
    world.vault.add(bounded).await.unwrap();
    world.token_of("globex").await.unwrap();
    assert_eq!(world.provider.minted_for(), "read", "no more than the account may have");
}

#[tokio::test(start_paused = true)]
async fn fewer_scopes_than_were_asked_for_are_enforced() {
    let world = world().await;
    world.provider.will(Reply::With(json!({"scope": "something else"})));
    assert!(matches!(world.token().await, Err(Error::Scopes { .. })));
    world.resolver.changed(&key()).await;
    world.provider.will(Reply::With(json!({"scope": "more read"})));
    assert_eq!(world.token().await.unwrap(), "one-2");
}

#[tokio::test(start_paused = true)]
async fn an_installation_never_gets_all_that_it_may() {
    let world = World::minting("github_app", vec![by_app("acme/crm/tenant")]).await;
    world.needs.lock().unwrap().clear();
    world.token().await.unwrap();
    assert_eq!(world.provider.minted_for(), "metadata:read");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_holds_something_else_gives_nothing() {
    let world = world().await;
    let fields = [("token".to_owned(), secret("pasted-token"))].into();
    world.vault.rotate(&key(), fields).await.unwrap();
    assert!(matches!(world.token().await, Err(Error::Unminted(_))));
    let fields = [("client_id".to_owned(), secret("alone"))].into();
    world.vault.replace(&key(), Material::Seed { fields }).await.unwrap();
    assert_eq!(world.trouble().await, Trouble::Seed);
    assert_eq!(world.provider.mints(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_life_is_used_to_its_end_and_no_longer() {
    let world = world().await;
    world.provider.book.lock().unwrap().life = 1;
    world.token().await.unwrap();
    tokio::time::sleep(SECOND * 29).await;
    assert_eq!(world.token().await.unwrap(), "one-1");
    tokio::time::sleep(SECOND * 2).await;
    assert!(world.token().await.unwrap() != "one-1");
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_minted_token_elsewhere_is_told_when_it_is_not_to_be_used_any_more() {
    let world = world().await;
    let mut replaced = world.engine.replaced_tokens();
    world.schedule();
    assert_eq!(world.token().await.unwrap(), "one-1");
    assert!(replaced.is_empty(), "nobody had one before");
    tokio::time::sleep(MINUTE * 56).await;
    assert_eq!(replaced.try_recv().unwrap(), key());
    assert_eq!(world.token().await.unwrap(), "one-2");
    world.provider.always(Reply::Says(400, json!({"error": "invalid_grant"})));
    tokio::time::sleep(MINUTE * 56).await;
    assert_eq!(replaced.try_recv().unwrap(), key(), "the provider takes it back");
    world.provider.book.lock().unwrap().always = None;
    world.resolver.changed(&key()).await;
    world.token().await.unwrap();
    world.resolver.changed(&key()).await;
    assert!(replaced.is_empty(), "the vault tells of changes itself");
}
