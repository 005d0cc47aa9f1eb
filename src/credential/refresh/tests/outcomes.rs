//! What an answer makes of an account.

use serde_json::json;

use super::world::*;
use crate::credential::Error;

/// A world whose token has ended, with a provider that answers with these members besides.
async fn answered_with(dialect: serde_json::Value, more: serde_json::Value) -> World {
    let world = World::with(dialect, HOUR).await;
    world.follow();
    tokio::time::sleep(HOUR).await;
    world.provider.will(Reply::With(more));
    world
}

fn hosts() -> serde_json::Value {
    json!({"rotation": {"rotates": "always"}, "host_from": "instance_url", "host_must_match": ["{instance}.crm.test"]})
}

#[tokio::test(start_paused = true)]
async fn fewer_scopes_than_before_are_stored_and_enforced_and_told() {
    let world = answered_with(rotating(), json!({"scope": "read"})).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    let write = world.permit_of("acme", &http::Method::POST);
    let refused = world.resolver.resolve(&write, &world.current(), None).await;
    assert!(matches!(refused, Err(Error::Scopes { .. })), "the provider took it away");
    assert_eq!(world.told().await, ["account.refreshed", "account.scopes_narrowed"]);
}

#[tokio::test(start_paused = true)]
async fn more_scopes_than_before_are_told() {
    let world = answered_with(rotating(), json!({"scope": "read write admin"})).await;
    world.token().await.unwrap();
    assert_eq!(world.told().await, ["account.refreshed", "account.scopes_widened"]);
    assert_eq!(world.account().await.scopes.unwrap().len(), 2, "of ours there are no more");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_moves_is_pinned_anew_with_the_same_commit() {
    let world = answered_with(hosts(), json!({"instance_url": "https://acme2.crm.test"})).await;
    let moved = world.ask().await.unwrap();
    let account = world.account().await;
    assert_eq!(account.metadata["instance"], "acme2");
    assert_eq!((account.generation, moved.generation()), (2, Some(2)));
    assert_eq!(world.told().await, ["account.refreshed", "account.host_changed"]);
    let captured = Some(("instance", "acme"));
    let before = world.resolver.resolve(&world.permit(), &world.current(), captured).await;
    assert!(matches!(before, Err(Error::Host { .. })), "the host before gets nothing");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_host_is_refused_and_the_token_kept() {
    let world = answered_with(hosts(), json!({"instance_url": "https://crm.evil.test"})).await;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    assert_eq!(world.account().await.metadata["instance"], "acme");
    assert_eq!(world.told().await, ["account.refreshed", "account.host_refused"]);
}

#[tokio::test(start_paused = true)]
async fn another_users_tokens_are_never_injected() {
    let dialect = json!({"rotation": {"rotates": "always"}, "subject_from": "sub"});
    let world = answered_with(dialect, json!({"sub": "mallory"})).await;
    assert!(matches!(world.token().await, Err(Error::Closed { .. })));
    let grant = world.grant().await;
    assert_eq!(grant.subject.as_deref(), Some("alice"));
    assert_ne!(grant.access.unwrap().token, secret("access-token-1"));
}

#[tokio::test(start_paused = true)]
async fn every_refresh_token_that_is_given_is_stored() {
    let world = World::new(HOUR).await;
    world.follow();
    for count in 1..=20 {
        tokio::time::sleep(HOUR).await;
        world.token().await.unwrap();
        assert_eq!(world.grant().await.refresh, spent(&format!("refresh-{count}")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_holds_no_token() {
    let world = answered_with(rotating(), json!({"scope": "read"})).await;
    world.token().await.unwrap();
    for note in world.vault.outbox(10).await.unwrap() {
        let text = String::from_utf8(note.text.unwrap()).unwrap();
        assert!(!text.contains("access-token") && !text.contains("refresh-"), "{text}");
        assert!(text.contains("consent-1"), "the consent that it goes back to: {text}");
    }
}
