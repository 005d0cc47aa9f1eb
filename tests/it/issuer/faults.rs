//! What a test can have go wrong, and that it goes wrong in just that way.

use http::{Request, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};

use super::Ground;
use crate::support::issuer::{Cause, Ended, Gate, Profile, Step, Violation, Why};

#[tokio::test]
async fn a_lost_answer_was_sold_and_its_token_may_come_back_once_without_blame() {
    for step in [Step::lost(), Step::lost_halfway()] {
        let ground = Ground::new(Profile::default()).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        ground.issuer.script([step]);
        ground.refresh(&refresh).await.unwrap_err();
        assert_eq!(ground.issuer.posts()[0].ended, Ended::Sold(1));
        assert_eq!(ground.refresh(&refresh).await.unwrap().json()["error"], "invalid_grant");
        assert_eq!(ground.issuer.pardon(), [], "the client could not know");
    }
}

#[tokio::test]
async fn what_was_not_processed_may_be_asked_again() {
    for step in [Step::status(503), Step::too_many("7"), Step::redirect("https://elsewhere.test/")] {
        let ground = Ground::new(Profile::default()).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        ground.issuer.script([step, Step::cut()]);
        assert_ne!(ground.refresh(&refresh).await.unwrap().status, StatusCode::OK);
        ground.refresh(&refresh).await.unwrap_err();
        assert_eq!(ground.refresh(&refresh).await.unwrap().status, StatusCode::OK);
        assert_eq!(ground.issuer.presented("acme"), [3]);
    }
}

#[tokio::test]
async fn a_storm_lasts_until_the_test_ends_it() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.issuer.always(Step::too_many("30"));
    for _ in 0..3 {
        let answer = ground.refresh(&refresh).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.headers["retry-after"]), (429, &"30".parse().unwrap()));
    }
    ground.issuer.always(Step::usual());
    assert_eq!(ground.refresh(&refresh).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_gateway_may_time_out_after_all_was_sold() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.issuer.script([Step::gateway_timeout()]);
    assert_eq!(ground.refresh(&refresh).await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(ground.issuer.posts()[0].ended, Ended::Sold(1));
}

#[tokio::test]
async fn a_held_answer_comes_when_the_gate_opens() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let gate = Gate::default();
    ground.issuer.script([Step::usual().held_after(&gate)]);
    let open = async {
        gate.arrived().await;
        assert_eq!(ground.issuer.posts()[0].ended, Ended::Sold(1), "it is sold, only not answered");
        gate.open();
    };
    let (answer, ()) = tokio::join!(ground.refresh(&refresh), open);
    assert_eq!(answer.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_sale() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let (before, after) = (Gate::default(), Gate::default());
    ground.issuer.script([Step::usual().held_before(&before).held_after(&after)]);
    tokio::select! {
        answer = ground.refresh(&refresh) => panic!("{answer:?}"),
        () = before.arrived() => {}
    }
    before.open();
    after.arrived().await;
    assert_eq!(ground.issuer.posts()[0].ended, Ended::Sold(1));
    assert_eq!(ground.refresh(&refresh).await.unwrap().json()["error"], "invalid_grant");
    assert_eq!(ground.issuer.pardon(), [], "its answer never went out");
}

#[tokio::test]
async fn an_answer_can_be_garbled_or_too_long() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.issuer.script([Step::garbled()]);
    let answer = ground.refresh(&refresh).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(serde_json::from_str::<serde_json::Value>(&answer.text).is_err());
    assert!(answer.text.contains("kb-canary-rt-acme-1-"), "what could be read is there");

    let refresh = ground.issuer.consent("globex", &[]).refresh.unwrap();
    ground.issuer.script([Step::padded(1 << 20)]);
    let answer = ground.refresh(&refresh).await.unwrap();
    assert!(answer.text.len() > 1 << 20);
    assert!(answer.json()["access_token"].is_string());
}

#[tokio::test]
async fn a_followed_redirect_is_noted() {
    let ground = Ground::new(Profile::default()).await;
    ground.send(Request::post("/followed").body("".into()).unwrap()).await.unwrap();
    assert_eq!(ground.issuer.pardon(), [Violation::Followed]);
}

#[tokio::test]
async fn a_refusal_can_be_scripted_in_the_providers_words() {
    let ground = Ground::new(crate::support::issuer::profiles::microsoft()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    ground.issuer.script([Step::refused(Why::StepUp), Step::refused(Why::Grant(Cause::Idle))]);
    let answer = ground.refresh(&refresh).await.unwrap();
    assert!(answer.json()["claims"].as_str().unwrap().contains("capolids"), "{}", answer.text);
    assert!(ground.refresh(&refresh).await.unwrap().text.contains("AADSTS700082"));
}

#[tokio::test]
async fn its_clock_can_be_ten_minutes_off() {
    for clock_off in [0, 600, -600] {
        let ground = Ground::new(Profile { clock_off, ..Profile::default() }).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        let answer = ground.refresh(&refresh).await.unwrap();
        let date = answer.headers[header::DATE].to_str().unwrap();
        let date = rfc2822::DateTimeParser::new().parse_zoned(date.replace("GMT", "+0000")).unwrap();
        let off = date.timestamp().as_second() - Timestamp::now().as_second();
        assert!((off - clock_off).abs() <= 30, "{off}");
    }
}

#[tokio::test]
#[should_panic(expected = "a step of the script was never taken")]
async fn a_step_that_was_not_taken_fails_the_test() {
    let ground = Ground::new(Profile::default()).await;
    ground.issuer.script([Step::lost()]);
}
