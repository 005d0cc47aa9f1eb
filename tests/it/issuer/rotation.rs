//! Refresh tokens: sold once, forgiven as long as the provider forgives, counted.

use futures_util::future::join_all;
use http::StatusCode;

use super::Ground;
use crate::support::issuer::{Cause, Grace, Issuer, Profile, Rotation, Violation, profiles};
use crate::support::provider::TestAuthority;

fn grace(grace: Grace) -> Profile {
    Profile { rotation: Rotation::Single(grace), ..Profile::default() }
}

fn spent_twice(generation: usize) -> Violation {
    Violation::SpentTwice { account: "acme".to_owned(), generation }
}

impl Ground {
    /// Refreshes and gives the next refresh token.
    async fn next(&self, token: &str) -> String {
        let answer = self.refresh(token).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.token(self.issuer.profile(), "refresh_token")
    }

    async fn refused(&self, token: &str) {
        let answer = self.refresh(token).await.unwrap();
        assert_eq!(answer.json()["error"], "invalid_grant", "{answer:?}");
    }
}

#[tokio::test]
async fn a_spent_refresh_token_ends_the_family_and_is_noted() {
    let ground = Ground::new(Profile::default()).await;
    let first = ground.issuer.consent("acme", &["read"]);
    let second = ground.next(first.refresh.as_ref().unwrap()).await;
    assert_eq!(ground.get("/me", &first.access).await.status, StatusCode::OK, "the access token lives on");
    ground.refused(first.refresh.as_ref().unwrap()).await;
    assert_eq!(ground.issuer.pardon(), [spent_twice(0)]);
    ground.refused(&second).await;
    assert_eq!(ground.get("/me", &first.access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ground.issuer.presented("acme"), [2, 1]);
}

#[tokio::test]
async fn another_familys_tokens_are_untouched_by_a_reuse() {
    let ground = Ground::new(Profile::default()).await;
    let (acme, globex) = (ground.issuer.consent("acme", &[]), ground.issuer.consent("globex", &[]));
    ground.next(acme.refresh.as_ref().unwrap()).await;
    ground.refused(acme.refresh.as_ref().unwrap()).await;
    assert_eq!(ground.issuer.pardon(), [spent_twice(0)]);
    ground.next(globex.refresh.as_ref().unwrap()).await;
    assert_eq!(ground.issuer.presented("globex"), [1]);
}

#[tokio::test]
async fn within_its_seconds_a_spent_token_is_sold_again_and_not_after() {
    let ground = Ground::new(grace(Grace::Seconds(600))).await;
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.next(&first).await;
    ground.issuer.advance(599);
    ground.next(&first).await;
    ground.issuer.advance(2);
    ground.refused(&first).await;
    assert_eq!(ground.issuer.pardon(), [spent_twice(0), spent_twice(0)]);
}

#[tokio::test]
async fn until_its_replacement_is_used_a_spent_token_is_sold_again() {
    let ground = Ground::new(grace(Grace::UntilReplacementUsed)).await;
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.next(&first).await;
    let second = ground.next(&first).await;
    ground.next(&second).await;
    ground.refused(&first).await;
    assert_eq!(ground.issuer.pardon(), [spent_twice(0), spent_twice(0)]);
}

#[tokio::test]
async fn an_access_token_counts_as_a_use_of_the_replacement() {
    let ground = Ground::new(grace(Grace::UntilReplacementUsed)).await;
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let answer = ground.refresh(&first).await.unwrap();
    ground.get("/me", &answer.token(ground.issuer.profile(), "access_token")).await;
    ground.refused(&first).await;
    assert_eq!(ground.issuer.pardon(), [spent_twice(0)]);
}

#[tokio::test]
async fn some_never_forget_a_refresh_token() {
    let ground = Ground::new(profiles::microsoft()).await;
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.next(&first).await;
    ground.issuer.advance(80 * 86_400);
    ground.next(&first).await;
    assert_eq!(ground.issuer.pardon(), [spent_twice(0)], "which does not make it right");
}

#[tokio::test]
async fn what_does_not_rotate_stays_and_is_not_told_again() {
    let ground = Ground::new(profiles::google()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    for _ in 0..3 {
        let answer = ground.refresh(&refresh).await.unwrap();
        assert_eq!((answer.status, answer.json().get("refresh_token")), (StatusCode::OK, None));
    }
    assert_eq!(ground.issuer.presented("acme"), [1, 1, 1]);
}

#[tokio::test]
async fn the_old_access_token_dies_when_the_provider_says_so() {
    let ground = Ground::new(profiles::github()).await;
    let first = ground.issuer.consent("acme", &[]);
    ground.next(first.refresh.as_ref().unwrap()).await;
    assert_eq!(ground.get("/user", &first.access).await.status, StatusCode::UNAUTHORIZED);

    let ground = Ground::new(profiles::atlassian()).await;
    let first = ground.issuer.consent("acme", &[]);
    ground.next(first.refresh.as_ref().unwrap()).await;
    ground.issuer.advance(599);
    assert_eq!(ground.get("/me", &first.access).await.status, StatusCode::OK);
    ground.issuer.advance(2);
    assert_eq!(ground.get("/me", &first.access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn two_posts_with_one_token_at_a_time_are_noted_though_one_is_sold() {
    let ground = Ground::new(grace(Grace::Forever)).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let gate = crate::support::issuer::Gate::default();
    let held = crate::support::issuer::Step::usual().held_before(&gate);
    ground.issuer.script([held.clone(), held]);
    let both = join_all([ground.refresh(&refresh), ground.refresh(&refresh)]);
    let open = async {
        gate.arrived().await;
        gate.arrived().await;
        gate.open();
        gate.open();
    };
    tokio::join!(both, open);
    let together = Violation::Together { account: "acme".to_owned(), generation: 0 };
    assert_eq!(ground.issuer.pardon(), [together]);
    assert_eq!(ground.issuer.presented("acme"), [2]);
}

#[tokio::test]
async fn idle_and_expired_refresh_tokens_are_refused() {
    let ground = Ground::new(Profile { idle_seconds: Some(100), ..Profile::default() }).await;
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.issuer.advance(99);
    let second = ground.next(&first).await;
    ground.issuer.advance(100);
    ground.refused(&second).await;

    let expiry = Some(("refresh_token_expires_in", 50));
    let ground = Ground::new(Profile { refresh_expiry: expiry, ..Profile::default() }).await;
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.issuer.advance(50);
    ground.refused(&first).await;
}

#[tokio::test]
async fn an_ended_consent_says_why_in_the_providers_words() {
    for (profile, cause, words) in [
        (profiles::salesforce(), Cause::UserDisabled, "inactive user"),
        (profiles::salesforce(), Cause::Policy, "ip restricted"),
        (profiles::slack(), Cause::UserDisabled, "account_inactive"),
        (profiles::microsoft(), Cause::UserDisabled, "AADSTS50057"),
        (profiles::slack(), Cause::Uninstalled, "token_revoked"),
        (profiles::google(), Cause::Policy, "admin_policy_enforced"),
    ] {
        let ground = Ground::new(profile).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        ground.issuer.end("acme", cause);
        let answer = ground.refresh(&refresh).await.unwrap();
        assert!(answer.text.contains(words), "{}", answer.text);
    }
}

#[tokio::test]
#[should_panic(expected = "no provider forgives these")]
async fn an_issuer_with_a_violation_fails_its_test() {
    let authority = TestAuthority::new();
    let issuer = Issuer::start(&authority, Profile::default()).await;
    let ground = Ground { authority, issuer };
    let first = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.next(&first).await;
    ground.refused(&first).await;
}

#[tokio::test(start_paused = true)]
async fn its_time_stands_still_with_tokios() {
    let ground = Ground::new(Profile::default()).await;
    let sold = ground.issuer.consent("acme", &[]);
    assert_eq!(ground.get("/me", &sold.access).await.status, StatusCode::OK);
    tokio::time::advance(std::time::Duration::from_hours(1)).await;
    assert_eq!(ground.get("/me", &sold.access).await.status, StatusCode::UNAUTHORIZED);
}
