//! When the background refreshes.

use std::time::Duration;

use serde_json::json;

use super::world::*;
use crate::{
    audit::{self, Audit},
    id::AccountKey,
    vault::Material,
};

const DAY: Duration = Duration::from_hours(24);

/// Sets the scheduler going, and what tells the resolver of changes.
fn run(world: &World) {
    world.follow();
    world.schedule();
}

/// What stands in the audit log when everything is told. Its thread knows nothing of a paused clock, so nothing here
/// may wait for both.
async fn recorded(world: &World, event: &str) -> Vec<audit::Event> {
    let dir = tempfile::tempdir().unwrap();
    let metrics = audit::Metrics::register(&world.registry).unwrap();
    let audit = Audit::open(&audit::Config::default(), dir.path(), &metrics).unwrap();
    world.engine.deliver(&audit).await.unwrap();
    let found = audit::query(audit.path(), &audit::Filter::default(), usize::MAX).unwrap();
    let events = found.events.into_iter().map(|found| found.event);
    events.filter(|told| told.event.as_deref() == Some(event)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_token_in_use_is_refreshed_before_its_end_again_and_again() {
    let world = World::new(HOUR).await;
    run(&world);
    for hour in 0..48 {
        world.token().await.unwrap();
        tokio::time::sleep(HOUR).await;
        let left = world.grant().await.access.unwrap().expires.unwrap().duration_since(world.clock.now());
        assert!(left.as_secs() > 0, "hour {hour}");
    }
    let posts = world.provider.posts();
    assert!((48..=54).contains(&posts), "{posts} in 48 hours");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_uses_is_left_until_somebody_does() {
    let world = World::new(HOUR).await;
    run(&world);
    tokio::time::sleep(DAY * 3).await;
    assert_eq!(world.provider.posts(), 0);
    assert_eq!(world.token().await.unwrap(), "access-token-1");
    tokio::time::sleep(DAY * 3).await;
    let posts = world.provider.posts();
    assert!((20..30).contains(&posts), "for a day after its use, and no longer: {posts}");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_would_end_for_being_idle_is_kept_alive_and_not_counted_as_used() {
    let dialect = json!({"rotation": {"rotates": "always"}, "idle_ttl": "9d"});
    let world = World::with(dialect, HOUR).await;
    run(&world);
    for thirds in 1..=4 {
        tokio::time::sleep(DAY * 3 + HOUR).await;
        assert!(world.provider.posts() >= thirds, "{thirds}");
        assert_eq!(world.grant().await.used, None);
    }
    world.vault.freeze(&key(), "scim").await.unwrap();
    let before = world.provider.posts();
    tokio::time::sleep(DAY * 6).await;
    assert_eq!(world.provider.posts(), before, "a frozen one is not");
}

#[tokio::test(start_paused = true)]
async fn an_account_is_given_up_after_three_days_of_failures_until_somebody_uses_it() {
    let world = World::new(HOUR).await;
    run(&world);
    world.token().await.unwrap();
    world.provider.always(Reply::Away);
    tokio::time::sleep(DAY * 4).await;
    let before = world.provider.posts();
    tokio::time::sleep(DAY).await;
    assert_eq!(world.provider.posts(), before);
    world.provider.book.lock().unwrap().always = None;
    assert_eq!(world.token().await.unwrap(), "access-token-1");
}

#[tokio::test(start_paused = true)]
async fn a_herd_is_refreshed_within_the_bucket_and_nobody_waits_whose_token_lives() {
    let world = World::new(HOUR).await;
    for number in 0..2000 {
        let key: AccountKey = format!("t{number}/crm/tenant").parse().unwrap();
        let mut account = connected(&world.clock, key, HOUR);
        if let Material::Oauth(grant) = &mut account.material {
            grant.used = Some(world.clock.now());
        }
        world.vault.add(account).await.unwrap();
    }
    run(&world);
    world.provider.book.lock().unwrap().rotates = false;
    tokio::time::sleep(SECOND * 3599).await;
    let posts = world.provider.book.lock().unwrap().posts.clone();
    assert_eq!(posts.len(), 2000, "each once, before its end");
    let busiest =
        posts.iter().map(|(_, at)| posts.iter().filter(|(_, o)| *o >= *at && *o < *at + SECOND).count());
    let busiest = busiest.max().unwrap();
    assert!(busiest <= 40, "{busiest} in one second");
}

#[tokio::test(start_paused = true)]
async fn no_more_refreshes_are_under_way_than_may_be_however_many_tokens_are_used_that_end_soon() {
    let world = World::new(HOUR).await;
    let tenants: Vec<String> = (0..200).map(|number| format!("t{number}")).collect();
    for tenant in &tenants {
        let key = format!("{tenant}/crm/tenant").parse().unwrap();
        world.vault.add(connected(&world.clock, key, HOUR)).await.unwrap();
    }
    run(&world);
    tokio::time::sleep(MINUTE * 59).await;
    world.provider.always(Reply::After(MINUTE));
    for tenant in &tenants {
        let permit = world.permit_of(tenant, &http::Method::GET);
        assert!(world.resolver.resolve(&permit, &world.current(), None).await.is_ok());
    }
    tokio::time::sleep(SECOND * 30).await;
    assert_eq!(world.provider.posts(), 32, "refresh.at_once");
}

#[tokio::test(start_paused = true)]
async fn the_owner_of_a_grant_that_ends_for_good_is_told_seven_days_and_one_day_before() {
    let world = World::new(HOUR).await;
    let mut consent = connected(&world.clock, key(), HOUR);
    if let Material::Oauth(grant) = &mut consent.material {
        grant.deadline = Some(world.clock.now() + jiff::SignedDuration::from_hours(24 * 8));
    }
    world.vault.connect(consent).await.unwrap();
    run(&world);
    tokio::time::sleep(DAY * 9).await;
    let told = recorded(&world, "account.expiring").await;
    let told: Vec<_> = told.into_iter().map(|told| told.detail.unwrap().into_owned()).collect();
    let days = |days: u32| format!("its authorization ends in {days} days; connect it again before");
    assert_eq!(told, [days(7), days(1)]);
}

#[tokio::test(start_paused = true)]
async fn what_refreshes_have_to_tell_reaches_the_audit_log_once() {
    let world = World::new(HOUR).await;
    tokio::time::sleep(HOUR).await;
    world.token().await.unwrap();
    let told = recorded(&world, "account.refreshed").await;
    let told: Vec<_> = told.into_iter().map(|told| (told.generation, told.authorization)).collect();
    assert_eq!(told, [(Some(2), Some("consent-1".into()))]);
    assert!(world.vault.outbox(10).await.unwrap().is_empty());
}
