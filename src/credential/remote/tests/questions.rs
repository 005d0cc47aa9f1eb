//! What a sidecar asks, and what it makes of the answers.

use std::fs;

use serde_json::json;
use tokio::time::sleep;

use super::world::{MINUTE, SECOND, World, key, live, problem, token};
use crate::{
    credential::{
        Error, Survey, Trouble,
        source::{Asked, Source as _},
        wire::{Ask, Code, Problem},
    },
    id::AccountKey,
    vault::Change,
};

#[tokio::test(start_paused = true)]
async fn refusals_are_those_of_a_proxy_with_a_vault_of_its_own() {
    let world = World::followed().await;
    for (said, refusal) in [
        (Code::AccountMissing, "no crm account of tenant acme is connected as tenant"),
        (Code::AuthRevoked, "the account's authorization was revoked"),
        (
            Code::IdentityNotAllowed,
            "the broker gives this workload no account for role writer in tenant acme",
        ),
        (Code::AuditUnavailable, "the broker https://broker.test:7443 answers audit_unavailable: so it is"),
    ] {
        world.says(problem(&Problem::new(said, "so it is")));
        assert_eq!(world.refusal().await, refusal);
    }
    let over = json!({
        "account": "acme/crm/tenant", "generation": 1, "standing": "over", "now": "2026-11-21T18:00:00Z",
        "trouble": {"why": "app_paused", "retry_after_ms": 7000},
    });
    world.says(over);
    let refusal = world.ask().await.map(drop).unwrap_err();
    assert!(
        matches!(&refusal, Error::NoToken { host, trouble: Trouble::AppPaused { retry_after } }
            if host == "login.crm.test" && *retry_after == 7 * SECOND),
        "{refusal:?}"
    );
}

/// Law 3: whatever the broker does, a request gets its own account's credential or none.
#[tokio::test(start_paused = true)]
async fn another_ones_account_is_nobodys() {
    let world = World::followed().await;
    let mut others = live("kb-canary-others", 1);
    others["account"] = json!("globex/crm/tenant");
    world.says(others);
    let refusal = world.refusal().await;
    assert!(refusal.contains("something that no broker does"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn an_account_without_its_secrets_is_no_credential() {
    let world = World::followed().await;
    let mut bare = live("kb-canary-1", 1);
    bare.as_object_mut().unwrap().remove("fields");
    world.says(bare);
    let refusal = world.refusal().await;
    assert!(refusal.contains("something that no broker does"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn the_token_that_says_who_we_are_is_the_one_of_the_day() {
    let world = World::followed().await;
    world.token().await;
    world.resolver.follow(&Change::Unknown).await;
    world.brokers[0].book().token = Some("kb-canary-workload-2".to_owned());
    fs::write(&world.token_file, "kb-canary-workload-2").unwrap();
    world.token().await;
    let bearers: Vec<String> =
        world.brokers[0].book().asked.iter().map(|(_, bearer)| bearer.clone()).collect();
    assert_eq!(bearers.first().unwrap(), "Bearer kb-canary-workload");
    assert_eq!(bearers.last().unwrap(), "Bearer kb-canary-workload-2");

    world.brokers[0].book().token = Some("kb-canary-workload-3".to_owned());
    world.resolver.follow(&Change::Unknown).await;
    let refusal = world.refusal().await;
    assert!(refusal.contains("workload_invalid") && !refusal.contains("canary"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_gets_no_secret_and_is_told_what_a_request_would_be() {
    let world = World::followed().await;
    let looked = world.look().await.unwrap();
    let mut headers = http::HeaderMap::new();
    assert_eq!(looked.inject(&mut headers, None), None);
    assert!(headers.is_empty() && looked.target().is_some());
    world.says(problem(&Problem::new(Code::AuthRevoked, "it is")));
    assert!(
        matches!(world.look().await, Err(error) if matches!(&*error, Error::Revoked(it) if *it == key()))
    );
    assert_eq!((world.brokers[0].count(Ask::Look), world.brokers[0].count(Ask::Give)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn however_many_operations_would_use_an_account_it_is_asked_for_once() {
    let world = World::followed().await;
    let mut survey = Survey::new(&world.resolver);
    for _ in 0..3 {
        survey.look(&world.permit(), &world.connector, None).await.unwrap();
    }
    assert_eq!(world.brokers[0].count(Ask::Look), 1);
    let elsewhere = survey.look(&world.permit(), &world.connector, Some(("shop", "another"))).await;
    assert!(
        matches!(&*elsewhere.map(drop).unwrap_err(), Error::Host { .. }),
        "what is of the request is checked each time"
    );
    assert_eq!(world.brokers[0].count(Ask::Look), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_provider_refused_is_replaced_where_the_broker_has_another() {
    let world = World::followed().await;
    let refused = world.ask().await.unwrap();
    let permit = world.permit();
    let challenged = || world.resolver.challenged(&permit, &world.connector, None, &refused);
    assert!(challenged().await.is_none(), "the broker has no other");
    assert_eq!((world.brokers[0].count(Ask::Challenged), world.brokers[0].count(Ask::Give)), (1, 1));
    let mut another = live("kb-canary-2", 2);
    another["obtained"] = another["now"].clone();
    world.says(another);
    assert_eq!(token(&challenged().await.unwrap()), "kb-canary-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_soon_is_told_to_the_broker_once() {
    let world = World::followed().await;
    let mut due = live("kb-canary-1", 1);
    let now: jiff::Timestamp = serde_json::from_value(due["now"].clone()).unwrap();
    due["due"] = serde_json::to_value(now + jiff::SignedDuration::from_mins(40)).unwrap();
    world.says(due);
    world.token().await;
    sleep(39 * MINUTE).await;
    world.token().await;
    assert_eq!(world.brokers[0].count(Ask::Ahead), 0);
    sleep(MINUTE).await;
    world.token().await;
    world.token().await;
    sleep(SECOND).await;
    assert_eq!((world.brokers[0].count(Ask::Ahead), world.brokers[0].count(Ask::Give)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn debug_shows_where_the_broker_is_and_no_token() {
    let world = World::followed().await;
    world.token().await;
    assert_eq!(format!("{:?}", world.remote), "Remote(\"https://broker.test:7443\")");
}

#[tokio::test(start_paused = true)]
async fn accounts_that_are_not_there_are_not_kept_however_many_are_asked_for() {
    let world = World::followed().await;
    world.token().await;
    let subject = world.permit().subject().clone();
    let url = |name: &AccountKey| format!("https://broker.test/connect/{name}");
    let nobodys =
        |number: usize| -> AccountKey { format!("acme/crm/user:u{number}/writer").parse().unwrap() };
    for key in (0..3000).map(nobodys) {
        let missing = Problem::new(Code::AccountMissing, "nobody connected it");
        let missing = Problem { reconnect_url: Some(url(&key)), ..missing };
        world.brokers[0].book().accounts.insert(key.clone(), problem(&missing));
        let asked = Asked { key: &key, subject: &subject, connector: &world.connector };
        assert!(world.remote.find(asked).await.is_err());
        assert_eq!(world.resolver.reconnect_url(&key), Some(url(&key).into()));
    }
    let kept = (0..3000).map(nobodys).filter(|key| world.resolver.reconnect_url(key).is_some());
    assert!(kept.count() <= 1024);
    assert!(world.remote.known().contains_key(&key()));
    assert_eq!(world.remote.known().len(), 1);
}
