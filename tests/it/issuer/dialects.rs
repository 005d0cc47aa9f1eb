//! Each profile departs from the standards where it says, and takes nothing else.

use std::collections::BTreeMap;

use http::{Request, StatusCode, header};
use serde_json::json;

use super::{Ground, basic, form, form_body};
use crate::support::issuer::{
    CLIENT, CLIENT_SECRET, ClientAuth, Expiry, Profile, REDIRECT, Takes, Told, Violation, profiles,
};

#[tokio::test]
async fn every_profile_refreshes_and_refuses_an_unknown_token() {
    for profile in profiles::all() {
        if profile.client_auth == ClientAuth::Assertion {
            continue; // below, in grants
        }
        let ground = Ground::new(profile.clone()).await;
        let refresh = ground.issuer.consent("acme", &["read", "write"]).refresh.unwrap();
        let answer = ground.refresh(&refresh).await.unwrap();
        let access = answer.token(&profile, profile.access_name);
        assert!(access.contains('.') || access.starts_with("kb-canary-at-acme-1-"), "{access}");
        let answer = ground.refresh("kb-canary-none").await.unwrap();
        assert!(!answer.text.contains("kb-canary-at"), "{profile:?}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_bad_refresh_token_is_refused_in_the_providers_own_way() {
    for (profile, status, pointer, words) in [
        (Profile::default(), 400, "/error", "invalid_grant"),
        (profiles::atlassian(), 403, "/error", "invalid_grant"),
        (profiles::gitlab(), 401, "/error", "invalid_grant"),
        (profiles::slack(), 200, "/error", "invalid_refresh_token"),
        (profiles::github(), 200, "/error", "bad_refresh_token"),
        (profiles::hubspot_v1(), 400, "/status", "BAD_REFRESH_TOKEN"),
        (profiles::salesforce(), 400, "/error_description", "expired access/refresh token"),
        (profiles::google(), 400, "/error_description", "Token has been expired or revoked."),
    ] {
        let ground = Ground::new(profile).await;
        let answer = ground.refresh("none").await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.json().pointer(pointer), Some(&json!(words)), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_in_the_providers_own_way() {
    for (profile, status, words) in [
        (Profile::default(), 401, "invalid_client"),
        (profiles::slack(), 200, "bad_client_secret"),
        (profiles::github(), 200, "incorrect_client_credentials"),
        (profiles::atlassian(), 401, "access_denied"),
        (profiles::hubspot_v1(), 400, "BAD_CLIENT_SECRET"),
        (profiles::microsoft(), 401, "AADSTS7000215"),
    ] {
        let ground = Ground::new(profile).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        ground.issuer.secret(CLIENT, "another");
        let answer = ground.refresh(&refresh).await.unwrap();
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.text.contains(words), "{}", answer.text);
        ground.issuer.secret(CLIENT, CLIENT_SECRET);
        assert_eq!(ground.refresh(&refresh).await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn answers_are_form_encoded_unless_json_is_asked_for() {
    let ground = Ground::new(profiles::github()).await;
    let refresh = ground.issuer.consent("acme", &["repo", "user"]).refresh.unwrap();
    let mut request = ground.request(
        "/login/oauth/access_token",
        &[("grant_type", "refresh_token"), ("refresh_token", &refresh)],
    );
    request.headers_mut().remove(header::ACCEPT);
    let answer = ground.send(request).await.unwrap();
    assert!(answer.headers[header::CONTENT_TYPE].to_str().unwrap().contains("form-urlencoded"));
    assert!(answer.text.contains("&scope=repo%2Cuser&"), "{}", answer.text);
    let second = answer.text.split("refresh_token=").nth(1).unwrap().split('&').next().unwrap();
    let second = second.replace("%2D", "-");
    assert_eq!(ground.refresh(&second).await.unwrap().json()["scope"], "repo,user");
}

#[tokio::test]
async fn the_expiry_is_told_in_the_providers_unit_or_not_at_all() {
    for (expiry, name, told) in [
        (Expiry::Seconds, "expires_in", Some(json!(3600))),
        (Expiry::SecondsText, "expires_in", Some(json!("3600"))),
        (Expiry::Milliseconds("expires_in"), "expires_in", Some(json!(3_600_000))),
        (Expiry::Untold, "expires_in", None),
    ] {
        let ground = Ground::new(Profile { expiry, ..Profile::default() }).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        assert_eq!(ground.refresh(&refresh).await.unwrap().json().get(name).cloned(), told);
    }
    for expiry in [Expiry::At("expires_at"), Expiry::AtEpoch("expires_at")] {
        let ground = Ground::new(Profile { expiry, ..Profile::default() }).await;
        let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
        let told = ground.refresh(&refresh).await.unwrap().json()["expires_at"].clone();
        let at = told
            .as_i64()
            .unwrap_or_else(|| told.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second());
        assert!((at - jiff::Timestamp::now().as_second() - 3600).abs() < 60, "{told}");
    }
}

#[tokio::test]
async fn granted_scopes_and_hosts_are_told_as_they_are_now() {
    for (told_scopes, name, told) in [
        (Told::Text("scope", ","), "scope", json!("read,write")),
        (Told::Text("scope", " "), "scope", json!("read write")),
        (Told::List("scopes"), "scopes", json!(["read", "write"])),
    ] {
        let ground = Ground::new(Profile { told_scopes, ..profiles::salesforce_rotating() }).await;
        let refresh = ground.issuer.consent("acme", &["read", "write"]).refresh.unwrap();
        let answer = ground.refresh(&refresh).await.unwrap();
        assert_eq!(answer.json()[name], told);
        assert_eq!(answer.json()["instance_url"], "https://na47.my.salesforce.com");
        ground.issuer.rescope("acme", &["read"]);
        ground.issuer.says("instance_url", json!("https://na48.my.salesforce.com"));
        let refresh = answer.token(ground.issuer.profile(), "refresh_token");
        let answer = ground.refresh(&refresh).await.unwrap();
        assert!(!answer.json()[name].to_string().contains("write"));
        assert_eq!(answer.json()["instance_url"], "https://na48.my.salesforce.com");
    }
}

#[tokio::test]
async fn a_client_proves_itself_in_the_one_way_that_is_taken() {
    for (client_auth, by_body, by_basic) in [
        (ClientAuth::Body, true, false),
        (ClientAuth::Basic, false, true),
        (ClientAuth::Either, true, true),
        (ClientAuth::SecretAsUser, false, false),
        (ClientAuth::Public, false, false),
    ] {
        let ground = Ground::new(Profile { client_auth, ..Profile::default() }).await;
        for (body, basically, taken) in [(true, false, by_body), (false, true, by_basic), (true, true, false)]
        {
            let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
            let mut params =
                BTreeMap::from([("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())]);
            let mut request = Request::post("/token");
            if body {
                params.extend([("client_id", CLIENT), ("client_secret", CLIENT_SECRET)]);
            }
            if basically {
                request = request.header(header::AUTHORIZATION, basic(CLIENT, CLIENT_SECRET));
            }
            let answer = ground.send(form_body(request, &form(&params))).await.unwrap();
            assert_eq!(answer.status == StatusCode::OK, taken, "{client_auth:?} {body} {basically}");
            let twice = if body && basically { vec![Violation::ProvedTwice] } else { vec![] };
            assert_eq!(ground.issuer.pardon(), twice);
        }
    }
}

#[tokio::test]
async fn a_body_is_taken_in_the_encoding_that_is_taken() {
    for (takes, by_form, by_json) in
        [(Takes::Form, true, false), (Takes::Json, false, true), (Takes::Either, true, true)]
    {
        let ground = Ground::new(Profile { takes, ..Profile::default() }).await;
        for (kind, taken) in [("application/x-www-form-urlencoded", by_form), ("application/json", by_json)] {
            let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
            let params = BTreeMap::from([("grant_type", "refresh_token"), ("refresh_token", &*refresh)]);
            let body = if kind.ends_with("json") { json!(params).to_string() } else { form(&params) };
            let request = Request::post("/token")
                .header(header::CONTENT_TYPE, kind)
                .header(header::AUTHORIZATION, basic(CLIENT, CLIENT_SECRET));
            let answer = ground.send(request.body(body.into()).unwrap()).await.unwrap();
            assert_eq!(answer.status == StatusCode::OK, taken, "{takes:?} {kind}");
        }
    }
}

#[tokio::test]
async fn a_secret_in_a_url_is_noted_where_it_does_not_belong() {
    let ground = Ground::new(Profile::default()).await;
    let request =
        Request::post("/token?refresh_token=x").header(header::AUTHORIZATION, basic(CLIENT, CLIENT_SECRET));
    let answer = ground.send(form_body(request, "grant_type=refresh_token")).await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(ground.issuer.pardon(), [Violation::InUrl("refresh_token".to_owned())]);
}

#[tokio::test]
async fn a_parameter_that_stands_twice_is_refused() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let request = Request::post("/token").header(header::AUTHORIZATION, basic(CLIENT, CLIENT_SECRET));
    let text = format!("grant_type=refresh_token&grant_type=refresh_token&refresh_token={refresh}");
    assert_eq!(ground.send(form_body(request, &text)).await.unwrap().status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_refresh_goes_to_the_refresh_endpoint_where_there_is_one() {
    let ground = Ground::new(profiles::figma()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let params = [("grant_type", "refresh_token"), ("refresh_token", &*refresh)];
    assert_eq!(ground.ask(&params).await.unwrap().json()["error"], "unsupported_grant_type");
    let request = ground.request("/v1/oauth/refresh", &params[1..]);
    assert_eq!(ground.send(request).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_repeats_what_the_provider_wants_repeated() {
    let ground = Ground::new(profiles::gitlab()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let mut params = vec![("grant_type", "refresh_token"), ("refresh_token", &*refresh)];
    assert_eq!(ground.ask(&params).await.unwrap().status, StatusCode::BAD_REQUEST);
    params.push(("redirect_uri", REDIRECT));
    assert_eq!(ground.ask(&params).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_never_widens_the_scopes() {
    let ground = Ground::new(Profile::default()).await;
    let refresh = ground.issuer.consent("acme", &["read"]).refresh.unwrap();
    let params = [("grant_type", "refresh_token"), ("refresh_token", &*refresh), ("scope", "read write")];
    assert_eq!(ground.ask(&params).await.unwrap().json()["error"], "invalid_scope");
}

#[tokio::test]
async fn what_a_provider_wants_in_every_request_it_wants() {
    let ground = Ground::new(profiles::shopify()).await;
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let params = BTreeMap::from([
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh),
        ("client_id", CLIENT),
        ("client_secret", CLIENT_SECRET),
    ]);
    let request = form_body(Request::post("/admin/oauth/access_token"), &form(&params));
    assert_eq!(ground.send(request).await.unwrap().status, StatusCode::BAD_REQUEST);
    assert_eq!(ground.refresh(&refresh).await.unwrap().status, StatusCode::OK);
}
