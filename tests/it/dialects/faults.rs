//! What goes wrong at a token endpoint is told apart, and nothing is asked twice.

use std::time::Duration;

use keybearer::{
    cause::Cause,
    oauth::{AppFault, Failure, HostRefused, NotSent, Unreadable},
    secret::Secret,
};
use serde_json::json;

use super::{Ground, table};
use crate::support::issuer::{Cause as Ended, Gate, Profile, Step, Why, profiles};

impl Ground {
    async fn standard() -> Self {
        Self::new(table::standard(Profile::default())).await
    }

    /// What comes of one refresh when this happens to it.
    async fn after(&self, step: Step) -> Failure {
        let refresh = self.connect().await.refresh.unwrap();
        self.issuer.script([step]);
        let before = self.issuer.posts().len();
        let failure = self.refresh(&refresh).await.unwrap_err();
        assert_eq!(self.issuer.posts().len(), before + 1, "one POST, whatever comes of it");
        failure
    }
}

#[tokio::test]
async fn an_answer_that_never_came_whole_leaves_it_open_whether_it_was_sold() {
    let ground = Ground::standard().await;
    for step in [Step::lost(), Step::lost_halfway(), Step::cut(), Step::gateway_timeout()] {
        assert_eq!(ground.after(step.clone()).await, Failure::Ambiguous, "{step:?}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_now_is_asked_later() {
    let ground = Ground::standard().await;
    for (step, retry_after) in [
        (Step::status(500), None),
        (Step::status(503), None),
        (Step::too_many("7"), Some(Duration::from_secs(7))),
        (Step::too_many("soon"), None),
    ] {
        assert_eq!(ground.after(step).await, Failure::Transient { retry_after });
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let ground = Ground::standard().await;
    let elsewhere = format!("https://{}/followed", ground.issuer.profile().hosts[0]);
    assert_eq!(ground.after(Step::redirect(&elsewhere)).await, Failure::App(AppFault::Redirect));
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_no_refusal() {
    let ground = Ground::standard().await;
    assert_eq!(ground.after(Step::garbled()).await, Failure::Unreadable(Unreadable::Syntax));
    assert_eq!(ground.after(Step::padded(1 << 20)).await, Failure::Unreadable(Unreadable::TooLong));
}

#[tokio::test]
async fn an_answer_that_the_dialect_does_not_describe_is_put_away_before_it_is_read() {
    // The tokens are in `data`, and the connector does not say so.
    let ground = Ground::new(table::standard(profiles::fiserv())).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let raw = ground.endpoint.refresh(&Secret::new(refresh.into_bytes()), &[]).await.unwrap();
    assert!(raw.may_hold_tokens());
    let failure = raw.read(&ground.provider.dialect).unwrap_err();
    assert_eq!(failure, Failure::Unreadable(Unreadable::NoToken));
    assert!(super::plain(&raw.to_secret()).contains("kb-canary-rt-acme-1-"));
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let ground = Ground::standard().await;
    let refresh = ground.connect().await.refresh.unwrap();
    let Ground { issuer, endpoint, .. } = ground;
    drop(issuer);
    let stopped = async {
        loop {
            match endpoint.refresh(&refresh, &[]).await {
                Err(Failure::NotSent(why)) => return why,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(20), stopped).await.expect("it stops listening");
    assert_eq!(why, NotSent::Connect);
}

#[tokio::test]
async fn a_slow_answer_arrives_if_it_comes_in_time() {
    let ground = Ground::standard().await;
    let refresh = ground.connect().await.refresh.unwrap();
    let gate = Gate::default();
    ground.issuer.script([Step::usual().held_after(&gate)]);
    let open = async {
        gate.arrived().await;
        gate.open();
    };
    let (tokens, ()) = tokio::join!(ground.refresh(&refresh), open);
    assert!(tokens.is_ok());
}

#[tokio::test]
async fn a_host_outside_the_connectors_is_refused_and_the_tokens_are_kept() {
    let ground = Ground::new(table::connectors().pop().unwrap()).await;
    for host in ["https://na47.my.salesforce.com.evil.test", "https://evil.test"] {
        let refresh = ground.connect().await.refresh.unwrap();
        ground.issuer.says("instance_url", json!(host));
        let tokens = ground.refresh(&refresh).await.unwrap();
        assert_eq!(tokens.host, Err(HostRefused), "{host}");
        assert!(tokens.refresh.is_some());
    }
}

#[tokio::test]
async fn what_ended_a_grant_is_told_from_what_a_person_can_mend() {
    let disabled = Failure::SubjectGone(Cause::UserDisabled);
    for (connector, cause, failure) in [
        ("slack", Ended::UserDisabled, disabled.clone()),
        ("salesforce", Ended::UserDisabled, disabled),
        ("salesforce", Ended::Policy, Failure::App(AppFault::Request)),
        ("github", Ended::Revoked, Failure::Definitive(Cause::Revoked)),
        ("gmail", Ended::Revoked, Failure::Definitive(Cause::Revoked)),
    ] {
        let row = table::connectors().into_iter().find(|row| row.name == connector).unwrap();
        let ground = Ground::new(row).await;
        let refresh = ground.connect().await.refresh.unwrap();
        ground.issuer.end("alice", cause);
        assert_eq!(ground.refresh(&refresh).await.unwrap_err(), failure, "{connector} {cause:?}");
    }
    let row = table::values().into_iter().find(|row| row.name == "microsoft").unwrap();
    let failure = Ground::new(row).await.after(Step::refused(Why::StepUp)).await;
    let Failure::NeedsUser { cause: Cause::Policy, claims: Some(claims) } = failure else {
        panic!("{failure:?}")
    };
    assert!(claims.contains("capolids"), "{claims}");
}

#[tokio::test]
async fn a_spent_token_is_refused_like_a_revoked_one() {
    let ground = Ground::standard().await;
    let refresh = ground.connect().await.refresh.unwrap();
    ground.refresh(&refresh).await.unwrap();
    assert_eq!(ground.refresh(&refresh).await.unwrap_err(), Failure::Definitive(Cause::Revoked));
    assert_eq!(ground.issuer.pardon().len(), 1, "whoever calls has to see to it that this never happens");
}
