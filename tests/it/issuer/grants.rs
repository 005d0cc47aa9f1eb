//! The ways to a first token: a code, the client itself, a signed assertion, another token.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Request, StatusCode, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Answer, Ground, encode};
use crate::support::issuer::{
    CLIENT, Installation, Offline, Person, Pkce, Profile, REDIRECT, Violation, profiles,
};

const VERIFIER: &str = "a-verifier-of-at-least-43-characters-as-the-rfc-wants";

impl Ground {
    async fn authorize(&self, more: &[(&str, &str)]) -> Answer {
        let mut params = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("redirect_uri", REDIRECT),
            ("state", "s 1"),
            ("scope", "read write"),
        ]);
        params.extend(more.iter().copied());
        let path = format!("{}?{}", self.issuer.profile().authorize, super::form(&params));
        self.send(Request::get(path).body("".into()).unwrap()).await.unwrap()
    }

    async fn code(&self) -> String {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let pkce = [("code_challenge", &*challenge), ("code_challenge_method", "S256")];
        let answer = self.authorize(&pkce).await;
        let location = answer.headers[header::LOCATION].to_str().unwrap();
        assert!(location.starts_with(REDIRECT), "{location}");
        assert!(location.contains("state=s%201"), "{location}");
        location.split("code=").nth(1).unwrap().replace("%2D", "-")
    }

    async fn redeem(&self, code: &str, verifier: &str) -> Answer {
        let params = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", verifier),
        ];
        self.ask(&params).await.unwrap()
    }
}

#[tokio::test]
async fn a_code_with_its_verifier_is_sold_once() {
    let ground = Ground::new(Profile::default()).await;
    let code = ground.code().await;
    let answer = ground.redeem(&code, VERIFIER).await;
    assert_eq!(answer.json()["scope"], "read write");
    let refresh = answer.token(ground.issuer.profile(), "refresh_token");
    assert_eq!(ground.refresh(&refresh).await.unwrap().status, StatusCode::OK);
    assert_eq!(ground.redeem(&code, VERIFIER).await.json()["error"], "invalid_grant");
    assert_eq!(ground.issuer.pardon(), [Violation::CodeTwice]);
}

#[tokio::test]
async fn another_verifier_or_redirect_does_not_redeem_a_code() {
    let ground = Ground::new(Profile::default()).await;
    let code = ground.code().await;
    assert_eq!(ground.redeem(&code, "another").await.json()["error"], "invalid_request");
    let code = ground.code().await;
    let params = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", "https://elsewhere.test/"),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(ground.ask(&params).await.unwrap().json()["error"], "invalid_request");
}

#[tokio::test]
async fn nobody_is_sent_back_without_what_the_provider_wants() {
    let ground = Ground::new(Profile::default()).await;
    assert_eq!(ground.authorize(&[]).await.status, StatusCode::BAD_REQUEST, "no challenge");
    let plain = [("code_challenge", "x"), ("code_challenge_method", "plain")];
    assert_eq!(ground.authorize(&plain).await.status, StatusCode::BAD_REQUEST);
    let ground = Ground::new(profiles::slack()).await;
    assert_eq!(ground.authorize(&plain).await.status, StatusCode::BAD_REQUEST, "a challenge at all");
    assert_eq!(ground.authorize(&[]).await.status, StatusCode::FOUND);
    let ground = Ground::new(Profile { pkce: Pkce::Supported, ..profiles::google() }).await;
    assert_eq!(ground.authorize(&[]).await.status, StatusCode::BAD_REQUEST, "no prompt");
    assert_eq!(ground.authorize(&[("prompt", "consent")]).await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn the_person_may_agree_to_less_or_decline() {
    let ground = Ground::new(Profile { iss: Some("https://auth.provider.test"), ..Profile::default() }).await;
    let agrees_to = Some(vec!["read".to_owned()]);
    ground.issuer.person(Person { name: "bob".to_owned(), agrees_to, declines: false });
    let code = ground.code().await;
    let answer = ground.redeem(&code, VERIFIER).await;
    assert_eq!(answer.json()["scope"], "read");
    assert!(answer.token(ground.issuer.profile(), "access_token").contains("-bob-0-"));
    ground.issuer.person(Person { declines: true, ..Person::default() });
    let answer = ground.authorize(&[("code_challenge", "x"), ("code_challenge_method", "S256")]).await;
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    assert!(location.contains("error=access%5Fdenied") && location.contains("iss=https"), "{location}");
}

#[tokio::test]
async fn without_its_marker_there_is_no_offline_access() {
    let offline = Offline::Parameter("access_type", "offline");
    let ground = Ground::new(Profile { offline, ..Profile::default() }).await;
    let code = ground.code().await;
    assert_eq!(ground.redeem(&code, VERIFIER).await.json().get("refresh_token"), None);
    let ground = Ground::new(Profile { offline: Offline::Scope("write"), ..Profile::default() }).await;
    let code = ground.code().await;
    assert!(ground.redeem(&code, VERIFIER).await.json()["refresh_token"].is_string());
}

#[tokio::test]
async fn a_client_gets_a_token_of_its_own() {
    let ground = Ground::new(Profile::default()).await;
    let answer = ground.ask(&[("grant_type", "client_credentials"), ("scope", "read")]).await.unwrap();
    let access = answer.token(ground.issuer.profile(), "access_token");
    assert_eq!(answer.json().get("refresh_token"), None);
    assert_eq!(ground.get("/me", &access).await.json()["account"], CLIENT);
    let answer = ground.ask(&[("grant_type", "password"), ("username", "x")]).await.unwrap();
    assert_eq!(answer.json()["error"], "unsupported_grant_type");
}

#[tokio::test]
async fn a_token_is_exchanged_for_one_that_is_good_for_no_more() {
    let ground = Ground::new(Profile::default()).await;
    let subject = ground.issuer.consent("acme", &["read"]).access;
    let exchange = |scope| {
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &*subject),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("scope", scope),
        ]
    };
    let answer = ground.ask(&exchange("read")).await.unwrap();
    let access = answer.token(ground.issuer.profile(), "access_token");
    assert_eq!(ground.get("/me", &access).await.json()["account"], "acme");
    assert_eq!(ground.ask(&exchange("read write")).await.unwrap().json()["error"], "invalid_scope");

    let on_behalf_of = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", &*subject),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "read"),
    ];
    assert_eq!(ground.ask(&on_behalf_of).await.unwrap().status, StatusCode::OK);
}

/// A key of an app, and what it signs with it.
struct Signer(KeyPair);

impl Signer {
    fn of(ground: &Ground) -> Self {
        let key = KeyPair::generate().unwrap();
        ground.issuer.key(CLIENT, &key.public_key_pem());
        Self(key)
    }

    fn sign(&self, changes: &Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": CLIENT, "sub": CLIENT, "aud": "https://auth.provider.test/token",
            "iat": now, "exp": now + 300, "jti": uuid::Uuid::now_v7().to_string(),
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let key = EncodingKey::from_ec_pem(self.0.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    }
}

#[tokio::test]
async fn an_assertion_is_a_grant_if_it_is_for_here_in_time_and_new() {
    let ground = Ground::new(Profile::default()).await;
    let signer = Signer::of(&ground);
    let ask = async |assertion: String| {
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let text = format!("grant_type={}&assertion={assertion}", encode(grant));
        ground.send(super::form_body(Request::post("/token"), &text)).await.unwrap()
    };
    let good = signer.sign(&json!({"sub": "alice@acme.test"}));
    let access = ask(good.clone()).await.token(ground.issuer.profile(), "access_token");
    assert_eq!(ground.get("/me", &access).await.json()["account"], "alice@acme.test");
    let now = jiff::Timestamp::now().as_second();
    let stranger = Signer(KeyPair::generate().unwrap());
    for bad in [
        good,
        signer.sign(&json!({"aud": "https://elsewhere.test/token"})),
        signer.sign(&json!({"exp": now - 1})),
        signer.sign(&json!({"exp": now + 3600})),
        signer.sign(&json!({"iat": now + 60})),
        stranger.sign(&json!({})),
    ] {
        assert_eq!(ask(bad.clone()).await.json()["error"], "invalid_grant", "{bad}");
    }
}

#[tokio::test]
async fn an_assertion_proves_a_client_where_that_is_wanted() {
    let ground = Ground::new(profiles::microsoft_certificate()).await;
    let signer = Signer::of(&ground);
    let audience = json!({"aud": "https://login.microsoftonline.com/common/oauth2/v2.0/token"});
    let refresh = ground.issuer.consent("acme", &[]).refresh.unwrap();
    let assertion = signer.sign(&audience);
    let params = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &*assertion),
    ];
    assert_eq!(ground.ask(&params[..2]).await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert_eq!(ground.ask(&params).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_installation_token_is_never_wider_than_the_installation() {
    let ground = Ground::new(profiles::github()).await;
    let signer = Signer::of(&ground);
    let permissions = BTreeMap::from([("issues".to_owned(), "write".to_owned())]);
    ground.issuer.install("42", Installation { repositories: vec!["app".to_owned()], permissions });
    let ask = async |id: &str, jwt: &str, body: Value| {
        let request = Request::post(format!("/app/installations/{id}/access_tokens"))
            .header(header::AUTHORIZATION, format!("Bearer {jwt}"))
            .header(header::ACCEPT, "application/vnd.github+json, application/json");
        ground.send(request.body(body.to_string().into()).unwrap()).await.unwrap()
    };
    let jwt = signer.sign(&json!({}));
    let answer = ask("42", &jwt, json!({"repositories": ["app"], "permissions": {"issues": "read"}})).await;
    assert_eq!(
        (answer.status, &answer.json()["permissions"]["issues"]),
        (StatusCode::CREATED, &json!("read"))
    );
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(ground.get("/repos", &token).await.json()["account"], "installation-42");
    assert_eq!(ask("42", &jwt, json!({"permissions": {"contents": "read"}})).await.status, 422);
    assert_eq!(ask("42", &jwt, json!({"repositories": ["other"]})).await.status, 422);
    assert_eq!(ask("43", &jwt, json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask("42", "no.jwt.x", json!({})).await.status, StatusCode::UNAUTHORIZED);
}
