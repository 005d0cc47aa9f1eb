//! The API takes live tokens only, and says no as the provider does; revocation ends what it says.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;

use super::{Ground, basic, plain_basic};
use crate::support::issuer::{CLIENT, CLIENT_SECRET, Profile, Whim, Worth, profiles};

#[tokio::test]
async fn an_expired_token_is_refused_in_the_providers_own_way() {
    for (profile, status, words) in [
        (Profile::default(), 401, "invalid_token"),
        (profiles::salesforce(), 401, "INVALID_SESSION_ID"),
        (profiles::slack(), 200, "token_expired"),
        (profiles::github(), 401, "Bad credentials"),
        (profiles::google(), 401, "UNAUTHENTICATED"),
        (profiles::microsoft(), 401, "InvalidAuthenticationToken"),
        (profiles::atlassian(), 401, "Unauthorized"),
        (profiles::dropbox(), 401, "expired_access_token"),
        (profiles::hubspot(), 401, "EXPIRED_AUTHENTICATION"),
        (profiles::linkedin(), 401, "EXPIRED_ACCESS_TOKEN"),
        (profiles::linear(), 401, "AUTHENTICATION_ERROR"),
        (profiles::zoom(), 401, "124"),
        (profiles::vercel(), 403, "invalidToken"),
    ] {
        let ground = Ground::new(profile).await;
        let access = ground.issuer.consent("acme", &[]).access;
        assert_eq!(ground.get("/me", &access).await.json()["account"], "acme");
        ground.issuer.advance(ground.issuer.profile().access_seconds);
        let answer = ground.get("/me", &access).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert!(answer.text.replace(r#""ok":true"#, "").contains(words), "{}", answer.text);
        assert_eq!(ground.issuer.calls()[1].worth, Worth::Expired);
    }
}

#[tokio::test]
async fn a_whim_refuses_one_live_token() {
    let ground = Ground::new(profiles::atlassian()).await;
    let access = ground.issuer.consent("acme", &[]).access;
    ground.issuer.whims([Whim::Scope, Whim::Expired]);
    assert!(ground.get("/me", &access).await.text.contains("scope does not match"));
    assert_eq!(ground.get("/me", &access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ground.get("/me", &access).await.status, StatusCode::OK);

    let ground = Ground::new(profiles::microsoft()).await;
    let access = ground.issuer.consent("acme", &[]).access;
    ground.issuer.whims([Whim::StepUp]);
    let answer = ground.get("/me", &access).await;
    let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("insufficient_claims") && challenge.contains("claims=\""), "{challenge}");
}

#[tokio::test]
async fn shopify_takes_its_token_in_a_header_of_its_own() {
    let ground = Ground::new(profiles::shopify()).await;
    let access = ground.issuer.consent("acme", &[]).access;
    assert_eq!(ground.get("/admin", &access).await.status, StatusCode::UNAUTHORIZED);
    let request = Request::get("/admin").header("x-shopify-access-token", access);
    assert_eq!(ground.send(request.body(Body::empty()).unwrap()).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn introspection_tells_the_end_of_a_live_token_only() {
    let ground = Ground::new(profiles::salesforce()).await;
    let access = ground.issuer.consent("acme", &["api"]).access;
    let ask = async || {
        let request = ground.request("/services/oauth2/introspect", &[("token", &access)]);
        ground.send(request).await.unwrap().json()
    };
    let told = ask().await;
    assert_eq!((&told["active"], &told["scope"]), (&json!(true), &json!("api")));
    let left = told["exp"].as_i64().unwrap() - jiff::Timestamp::now().as_second();
    assert!((7100..=7200).contains(&left), "{left}");
    ground.issuer.advance(7200);
    assert_eq!(ask().await, json!({"active": false}));
}

#[tokio::test]
async fn revocation_reaches_as_far_as_it_does_at_the_provider() {
    // RFC 7009, the whole consent.
    let ground = Ground::new(Profile::default()).await;
    let sold = ground.issuer.consent("acme", &[]);
    let request = ground.request("/revoke", &[("token", sold.refresh.as_ref().unwrap())]);
    assert_eq!(ground.send(request).await.unwrap().status, StatusCode::OK);
    assert_eq!(ground.get("/me", &sold.access).await.status, StatusCode::UNAUTHORIZED);
    let unknown = ground.request("/revoke", &[("token", "none")]);
    assert_eq!(ground.send(unknown).await.unwrap().status, StatusCode::OK, "RFC 7009 §2.2");

    // The refresh token, while the access token lives on.
    let ground = Ground::new(profiles::hubspot()).await;
    let sold = ground.issuer.consent("acme", &[]);
    let refresh = sold.refresh.as_ref().unwrap();
    let request = ground.request("/oauth/2026-03/token/revoke", &[("token", refresh)]);
    assert_eq!(ground.send(request).await.unwrap().status, StatusCode::OK);
    assert_eq!(ground.get("/me", &sold.access).await.status, StatusCode::OK);
    assert_eq!(ground.refresh(refresh).await.unwrap().json()["error"], "invalid_grant");
}

#[tokio::test]
async fn revocation_has_other_shapes_than_the_rfcs() {
    let ground = Ground::new(profiles::github()).await;
    let sold = ground.issuer.consent("acme", &[]);
    let request = Request::delete("/applications/keybearer-test/token")
        .header(header::AUTHORIZATION, plain_basic(CLIENT, CLIENT_SECRET))
        .body(json!({"access_token": sold.access}).to_string().into());
    assert_eq!(ground.send(request.unwrap()).await.unwrap().status, StatusCode::NO_CONTENT);
    assert_eq!(ground.get("/user", &sold.access).await.status, StatusCode::UNAUTHORIZED);

    for (profile, method, path, status) in [
        (profiles::zendesk(), "DELETE", "/api/v2/oauth/tokens/current", 204),
        (profiles::slack(), "POST", "/api/auth.revoke", 200),
        (profiles::dropbox(), "POST", "/2/auth/token/revoke", 200),
    ] {
        let ground = Ground::new(profile).await;
        let sold = ground.issuer.consent("acme", &[]);
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", sold.access));
        assert_eq!(ground.send(request.body(Body::empty()).unwrap()).await.unwrap().status, status);
        assert!(!ground.get("/me", &sold.access).await.text.contains("acme"));
    }
}

#[tokio::test]
async fn posts_and_calls_are_written_down_as_they_came() {
    let ground = Ground::new(Profile::default()).await;
    let sold = ground.issuer.consent("acme", &[]);
    ground.issuer.advance(5);
    ground.refresh(sold.refresh.as_ref().unwrap()).await.unwrap();
    let request =
        Request::patch("/records/1").header(header::AUTHORIZATION, format!("Bearer {}", sold.access));
    ground.send(request.header("x-marked", "yes").body("{}".into()).unwrap()).await.unwrap();
    let posts = ground.issuer.posts();
    let [post] = posts.as_slice() else { panic!("{posts:?}") };
    assert_eq!((&*post.path, &*post.grant_type), ("/token", "refresh_token"));
    assert_eq!(post.presented, Some(("acme".to_owned(), sold.generation)));
    assert_eq!(post.params["refresh_token"], sold.refresh.unwrap());
    assert_eq!(post.headers[header::AUTHORIZATION], basic(CLIENT, CLIENT_SECRET));
    assert!((post.at - jiff::Timestamp::now()).get_seconds() >= 0);
    let calls = ground.issuer.calls();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((call.method.as_str(), &*call.path, &*call.body), ("PATCH", "/records/1", b"{}".as_slice()));
    assert_eq!(call.headers["x-marked"], "yes");
}
