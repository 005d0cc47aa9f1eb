//! What is asked: D9–D12, D17, and the grants.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::oauth::{Asserter, Exchange, Hint, Narrowed, NotSent, TypedToken, parsed::claims};

fn basic(asked: &Asked) -> String {
    let encoded = asked.headers["authorization"].strip_prefix("Basic ").unwrap();
    String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
}

fn pairs(form: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

async fn refreshed(yaml: &str) -> Asked {
    Stage::new(yaml, &json(TOKENS)).await.refresh().await.0
}

#[tokio::test]
async fn a_code_is_exchanged_as_rfc_6749_says_where_the_dialect_says_nothing() {
    let (asked, tokens) = Stage::new("", &json(TOKENS)).await.code().await;
    assert_eq!(asked.line, "POST /token HTTP/1.1");
    assert_eq!(
        pairs(&asked.form()),
        [
            ("code", "code 1"),
            ("code_verifier", "verifier"),
            ("grant_type", "authorization_code"),
            ("redirect_uri", "https://keybearer.test/connect/callback"),
        ]
    );
    assert_eq!(basic(&asked), "app%3A1:s3cret%2F%2B+%25", "both parts form-encoded (RFC 6749 §2.3.1)");
    assert_eq!(asked.headers["accept"], "application/json", "D4: GitHub answers with a form otherwise");
    assert_eq!(asked.headers["host"], "idp.test");
    let tokens = tokens.unwrap();
    assert_eq!((&tokens.access, &tokens.refresh), (&secret("at-1"), &Some(secret("rt-2"))));
    assert_eq!(life(&tokens), Some(3600));
    assert_eq!((tokens.scopes, tokens.host, tokens.subject), (None, Ok(None), None));
}

#[tokio::test]
async fn a_refresh_names_the_token_and_no_scope_so_that_it_never_asks_for_more() {
    let asked = refreshed("").await;
    assert_eq!(pairs(&asked.form()), [("grant_type", "refresh_token"), ("refresh_token", "rt-1")]);
}

#[tokio::test]
async fn d9_a_secret_is_sent_in_exactly_one_form() {
    for (style, header, id, secret) in [
        ("basic", Some("app%3A1:s3cret%2F%2B+%25"), None, None),
        ("basic_plain", Some("app:1:s3cret/+ %"), None, None),
        ("basic_secret", Some("s3cret/+ %:"), None, None),
        ("body", None, Some("app:1"), Some(SECRET)),
        ("none", None, Some("app:1"), None),
    ] {
        let asked = refreshed(&format!("client_auth: {style}")).await;
        let form = asked.form();
        assert_eq!(
            asked.headers.contains_key("authorization").then(|| basic(&asked)).as_deref(),
            header,
            "{style}"
        );
        assert_eq!(form.get("client_id").map(String::as_str), id, "{style}");
        assert_eq!(form.get("client_secret").map(String::as_str), secret, "{style}");
    }
}

#[tokio::test]
async fn d9_an_app_with_a_key_signs_an_assertion_for_the_token_url() {
    let (asked, _) =
        Stage::new("client_auth: private_key_jwt", &json(TOKENS)).await.with_key().refresh().await;
    let form = asked.form();
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let claims = claims(&form["client_assertion"]).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("app:1"), &json!("app:1")));
    assert_eq!(claims["aud"], "https://idp.test/token");
    assert_eq!(claims["iat"], now().as_second() - 30);
    assert_eq!(claims["exp"], now().as_second() + 150);
    assert!(claims["jti"].is_string());
    assert!(!asked.headers.contains_key("authorization") && !form.contains_key("client_secret"));
}

#[tokio::test]
async fn d9_a_secret_where_a_key_is_wanted_sends_nothing() {
    let (server, endpoint) = Stage::new("client_auth: private_key_jwt", &json(TOKENS)).await.endpoint();
    let refused = endpoint.refresh(&secret("rt-1"), &[]).await.err().unwrap();
    assert!(matches!(refused, Failure::NotSent(NotSent::Unsigned(_))), "{refused}");
    server.nothing().await;
}

#[tokio::test]
async fn d9_a_public_client_says_its_id_alone() {
    let mut stage = Stage::new("", &json(TOKENS)).await;
    stage.app.auth = ClientAuth::None;
    let (asked, _) = stage.refresh().await;
    assert_eq!(asked.form()["client_id"], "app:1");
    assert!(!asked.headers.contains_key("authorization"));
}

#[tokio::test]
async fn d10_the_body_is_a_form_json_or_the_query() {
    assert_eq!(refreshed("body: form").await.form()["refresh_token"], "rt-1");
    let expected = json!({"grant_type": "refresh_token", "refresh_token": "rt-1"});
    assert_eq!(refreshed("body: json").await.json(), expected);
    let asked = refreshed("body: query").await;
    assert_eq!(asked.line, "POST /token?grant_type=refresh_token&refresh_token=rt-1 HTTP/1.1");
    assert_eq!(asked.body, "");
}

#[tokio::test]
async fn d11_a_refresh_may_have_a_url_of_its_own() {
    assert_eq!(refreshed("").await.line, "POST /token HTTP/1.1");
    let refresh_url = "refresh_url: 'https://idp.test/{tenant}/refresh'";
    assert_eq!(refreshed(refresh_url).await.line, "POST /contoso/refresh HTTP/1.1");
    let (asked, _) = Stage::new(refresh_url, &json(TOKENS)).await.code().await;
    assert_eq!(asked.line, "POST /token HTTP/1.1");
}

#[tokio::test]
async fn d12_a_refresh_carries_what_the_provider_wants_besides() {
    let asked = refreshed("refresh_extra: {redirect_uri: '{redirect_uri}', expires_in: '1800'}").await;
    assert_eq!(asked.form()["redirect_uri"], "https://keybearer.test/connect/callback");
    assert_eq!(asked.form()["expires_in"], "1800");
    let asked = refreshed("refresh_scopes: true, scope_separator: ','").await;
    assert_eq!(asked.form()["scope"], "a,b");
    let (asked, _) =
        Stage::new("refresh_extra: {x: y}, token_extra: {expiring: '1'}", &json(TOKENS)).await.code().await;
    assert_eq!((asked.form().get("x"), &*asked.form()["expiring"]), (None, "1"));
}

#[tokio::test]
async fn d12_client_credentials_may_have_a_grant_type_of_their_own() {
    let yaml = "client_credentials_grant: account_credentials, token_extra: {account_id: '{tenant}'}";
    let (server, endpoint) = Stage::new(yaml, &json(TOKENS)).await.endpoint();
    endpoint.client_credentials(&[]).await.unwrap();
    let expected = [("account_id", "contoso"), ("grant_type", "account_credentials")];
    assert_eq!(pairs(&server.one().await.form()), expected);
    let (server, endpoint) = Stage::new("", &json(TOKENS)).await.endpoint();
    endpoint.client_credentials(&scopes(&["x", "y"])).await.unwrap();
    assert_eq!(pairs(&server.one().await.form()), [("grant_type", "client_credentials"), ("scope", "x y")]);
}

#[tokio::test]
async fn d12_an_assertion_is_made_anew_with_the_scopes_where_the_provider_wants_them() {
    for (style, in_claim, in_form) in
        [("parameter", None, Some("a b")), ("claim", Some("a b"), None), ("omitted", None, None)]
    {
        let yaml = format!("assertion: {{audience: 'https://login.test', scopes: {style}}}");
        let (server, endpoint) = Stage::new(&yaml, &json(TOKENS)).await.with_key().endpoint();
        let key = SigningKey::from_pem(&rsa_key(), None).unwrap();
        let asserter = Asserter { key, issuer: "svc@acme".to_owned(), subject: Some("alice".to_owned()) };
        let assertion = endpoint.assert(&asserter, &scopes(&["a", "b"])).unwrap();
        endpoint.jwt_bearer(&assertion, &scopes(&["a", "b"])).await.unwrap();
        let form = server.one().await.form();
        assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let claims = claims(&form["assertion"]).unwrap();
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("svc@acme"), &json!("alice")));
        assert_eq!(claims["aud"], "https://login.test");
        assert_eq!(claims.get("scope").and_then(Value::as_str), in_claim, "{style}");
        assert_eq!(form.get("scope").map(String::as_str), in_form, "{style}");
        assert!(!form.contains_key("client_assertion"), "who asks is in the assertion already");
    }
}

#[tokio::test]
async fn a_service_account_acts_as_a_user_of_its_domain() {
    #[expect(clippy::disallowed_methods, reason = "the test writes the key into a file of Google's form")]
    let pem = String::from_utf8(rsa_key().expose().to_vec()).unwrap();
    let file = json!({
        "type": "service_account", "client_email": "bot@project.test", "private_key": pem, "private_key_id": "g1",
    });
    let asserter =
        Asserter::service_account(&secret(&file.to_string()), Some("alice@acme.test".into())).unwrap();
    let mut stage = Stage::new("assertion: {scopes: claim}", &json(TOKENS)).await;
    stage.app = App::anonymous();
    let (server, endpoint) = stage.endpoint();
    let assertion = endpoint.assert(&asserter, &scopes(&["s"])).unwrap();
    endpoint.jwt_bearer(&assertion, &[]).await.unwrap();
    let asked = server.one().await;
    let form = asked.form();
    assert_eq!(form.keys().collect::<Vec<_>>(), ["assertion", "grant_type"]);
    assert!(!asked.headers.contains_key("authorization"));
    let claims = claims(&form["assertion"]).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("bot@project.test"), &json!("alice@acme.test")));
    assert_eq!(claims["aud"], "https://idp.test/token");
    assert!(Asserter::service_account(&secret("{}"), None).is_none());
}

#[tokio::test]
async fn a_token_is_exchanged_by_rfc_8693_or_on_behalf_of_a_user() {
    let exchange = || Exchange {
        subject: TypedToken {
            token: secret("st"),
            r#type: "urn:ietf:params:oauth:token-type:jwt".to_owned(),
        },
        actor: Some(TypedToken { token: secret("ac"), r#type: "urn:x".to_owned() }),
        audience: Some("crm".to_owned()),
        scopes: scopes(&["a"]),
    };
    let (server, endpoint) = Stage::new("resource: 'https://api.test'", &json(TOKENS)).await.endpoint();
    endpoint.token_exchange(&exchange()).await.unwrap();
    let expected = [
        ("actor_token", "ac"),
        ("actor_token_type", "urn:x"),
        ("audience", "crm"),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("resource", "https://api.test"),
        ("scope", "a"),
        ("subject_token", "st"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    assert_eq!(pairs(&server.one().await.form()), expected);

    let (server, endpoint) = Stage::new("exchange: on_behalf_of", &json(TOKENS)).await.endpoint();
    endpoint.token_exchange(&exchange()).await.unwrap();
    let expected = [
        ("assertion", "st"),
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "a"),
    ];
    assert_eq!(pairs(&server.one().await.form()), expected);
}

#[tokio::test]
async fn an_installation_token_is_narrowed_and_asked_for_by_the_apps_own_jwt() {
    let answer = r#"{"token":"ghs_1","expires_at":"2026-11-21T13:00:00Z","permissions":{"contents":"read"}}"#;
    let answer = server::response(201, "application/json", answer);
    let url = "https://idp.test/app/installations/{installation}/access_tokens";
    let stage = Stage::new("token_at: token, expiry: expires_at", &answer).await;
    let mut stage = stage.with_key().with_token_url(url);
    stage.metadata.insert("installation", "42");
    let (server, endpoint) = stage.endpoint();
    let narrowed = Narrowed {
        repositories: vec!["hello".to_owned()],
        permissions: vec![("contents".to_owned(), "read".to_owned())],
    };
    let raw = endpoint.installation_token(&narrowed).await.unwrap();
    let asked = server.one().await;
    assert_eq!(asked.line, "POST /app/installations/42/access_tokens HTTP/1.1");
    assert_eq!(asked.json(), json!({"repositories": ["hello"], "permissions": {"contents": "read"}}));
    let jwt = claims(asked.headers["authorization"].strip_prefix("Bearer ").unwrap()).unwrap();
    assert_eq!(jwt["iss"], "app:1");
    assert_eq!(jwt["iat"], now().as_second() - 30);
    let life = jwt["exp"].as_i64().unwrap() - jwt["iat"].as_i64().unwrap();
    assert!(life <= 600, "GitHub takes no more than ten minutes: {life}");
    let tokens = raw.read(&endpoint.provider().dialect).unwrap();
    assert_eq!(
        (tokens.access, tokens.expires),
        (secret("ghs_1"), Some("2026-11-21T13:00:00Z".parse().unwrap()))
    );

    let (server, endpoint) = Stage::new("", &json("{}")).await.endpoint();
    assert!(matches!(
        endpoint.installation_token(&Narrowed::default()).await,
        Err(Failure::NotSent(NotSent::Unsigned(_)))
    ));
    server.nothing().await;
}

#[tokio::test]
async fn d17_a_token_is_revoked_in_the_providers_way() {
    let revoke = async |yaml: &str, hint| {
        let (server, endpoint) = Stage::new(yaml, &json("{}")).await.endpoint();
        assert_eq!(endpoint.revoke(&secret("tok"), hint).await, Ok(true));
        server.one().await
    };
    let asked = revoke("", Hint::RefreshToken).await;
    assert_eq!(asked.line, "POST /revoke HTTP/1.1");
    assert_eq!(pairs(&asked.form()), [("token", "tok"), ("token_type_hint", "refresh_token")]);
    assert_eq!(basic(&asked), "app%3A1:s3cret%2F%2B+%25");

    let asked = revoke("revocation: delete_basic", Hint::AccessToken).await;
    assert_eq!((&*asked.line, asked.json()), ("DELETE /revoke HTTP/1.1", json!({"access_token": "tok"})));
    assert_eq!(basic(&asked), "app:1:s3cret/+ %", "GitHub reads it as RFC 7617 has it");

    for (yaml, line, header, value) in [
        ("revocation: delete_bearer", "DELETE /revoke HTTP/1.1", "authorization", "Bearer tok"),
        ("revocation: post_bearer", "POST /revoke HTTP/1.1", "authorization", "Bearer tok"),
        (
            "revocation: delete_bearer, revocation_header: X-Shopify-Access-Token",
            "DELETE /revoke HTTP/1.1",
            "x-shopify-access-token",
            "tok",
        ),
    ] {
        let asked = revoke(yaml, Hint::AccessToken).await;
        assert_eq!((&*asked.line, &*asked.headers[header], &*asked.body), (line, value, ""));
    }

    let (server, endpoint) = Stage::new("revocation: none", &json("{}")).await.endpoint();
    assert_eq!(endpoint.revoke(&secret("tok"), Hint::AccessToken).await, Ok(false));
    server.nothing().await;
}

#[tokio::test]
async fn d17_a_token_that_the_provider_does_not_know_is_revoked_and_a_refusal_is_none() {
    for (yaml, status, body, is_revoked) in [
        ("", 200, "", true),
        ("", 400, r#"{"error":"invalid_token"}"#, true),
        ("", 401, r#"{"error":"invalid_client"}"#, false),
        ("", 404, "", false),
        ("", 503, "", false),
        ("revocation: delete_basic", 204, "", true),
        ("revocation: delete_basic", 404, "", true),
        ("revocation: delete_basic", 422, "", true),
        (
            "success: ok_true, errors: {token_revoked: revoked}",
            200,
            r#"{"ok":false,"error":"fatal_error"}"#,
            false,
        ),
        ("success: ok_true", 200, r#"{"ok":true,"revoked":true}"#, true),
    ] {
        let answer = server::response(status, "application/json", body);
        let (_server, endpoint) = Stage::new(yaml, &answer).await.endpoint();
        let revoked = endpoint.revoke(&secret("tok"), Hint::AccessToken).await;
        assert_eq!(revoked.is_ok(), is_revoked, "{yaml} {status} {body}: {revoked:?}");
    }
}

#[tokio::test]
async fn a_token_is_asked_about_by_rfc_7662() {
    let yaml = "expiry: introspection, introspect_url: 'https://idp.test/introspect'";
    let answer = json(r#"{"active":true,"exp":1795269600,"scope":"a b","username":"alice@acme.test"}"#);
    let (server, endpoint) = Stage::new(yaml, &answer).await.endpoint();
    let said = endpoint.introspect(&secret("at-1")).await.unwrap();
    let asked = server.one().await;
    assert_eq!(asked.line, "POST /introspect HTTP/1.1");
    assert_eq!(pairs(&asked.form()), [("token", "at-1"), ("token_type_hint", "access_token")]);
    assert!(said.active);
    assert_eq!(said.expires, Some(Timestamp::from_second(1_795_269_600).unwrap()));
    assert_eq!(said.scopes, Some(scopes(&["a", "b"])));
    assert_eq!(said.subject.as_deref(), Some("alice@acme.test"));

    let (_server, endpoint) = Stage::new(yaml, &json(r#"{"active":false}"#)).await.endpoint();
    assert!(!endpoint.introspect(&secret("at-1")).await.unwrap().active);
    let (_server, endpoint) = Stage::new("", &json("{}")).await.endpoint();
    assert_eq!(
        endpoint.introspect(&secret("at-1")).await,
        Err(Failure::NotSent(NotSent::NoUrl("introspect_url")))
    );
}
