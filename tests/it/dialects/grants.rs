//! Tokens without a person: the app's own, for an assertion, for another token, for an installation.

use std::collections::BTreeMap;

use keybearer::{
    oauth::{Asserter, Exchange, Failure, Hint, Narrowed, Tokens, TypedToken},
    secret::Secret,
};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::json;

use super::{Ground, live, plain, table::of};
use crate::support::issuer::{CLIENT, ClientAuth, Expiry, Installation, Profile, Told, Worth, profiles};

const STANDARD: &str = "{type: client_credentials, token_url: https://auth.provider.test/token}";

fn scopes(list: &[&str]) -> Vec<String> {
    list.iter().map(|scope| (*scope).to_owned()).collect()
}

impl Ground {
    async fn good_for(&self, tokens: &Tokens, account: &str) {
        let worth = self.worth(&tokens.access).await;
        assert_eq!(worth, Worth::Live { account: account.to_owned(), generation: 0 }, "{}", self.name);
        assert_eq!(tokens.refresh, None, "{}", self.name);
    }
}

#[tokio::test]
async fn an_app_buys_a_token_of_its_own() {
    let zoom = "{type: client_credentials, token_url: https://zoom.us/oauth/token,
                 dialect: {client_credentials_grant: account_credentials, token_extra: {account_id: '{subdomain}'}}}";
    let databricks = "{type: client_credentials, token_url: https://auth.provider.test/token,
                       dialect: {client_auth: private_key_jwt}}";
    for row in [
        of("standard", Profile::default(), STANDARD),
        of(
            "zoom, server to server",
            Profile { token_needs: &[("account_id", "acme")], ..profiles::zoom() },
            zoom,
        ),
        of("signed", Profile { client_auth: ClientAuth::Assertion, ..Profile::default() }, databricks),
    ] {
        let ground = Ground::new(row).await;
        let raw = ground.endpoint.client_credentials(&scopes(&["read"])).await.unwrap();
        let tokens = ground.read(&raw).unwrap();
        ground.good_for(&tokens, CLIENT).await;
        assert_eq!(tokens.scopes, Some(scopes(&["read"])));
    }
}

#[tokio::test]
async fn an_assertion_buys_a_token_for_whom_it_is_about() {
    let google = "{type: jwt_bearer, token_url: https://oauth2.googleapis.com/token,
                   dialect: {assertion: {scopes: claim}}}";
    let ground = Ground::new(of("google's service account", profiles::google(), google)).await;
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let robot = "robot@project.iam.gserviceaccount.test";
    ground.issuer.key(robot, &key.public_key_pem());
    let file = json!({
        "type": "service_account", "client_email": robot, "private_key": key.serialize_pem(), "private_key_id": "k1",
    });
    let file = Secret::new(file.to_string().into_bytes());
    let asserter = Asserter::service_account(&file, Some("alice@acme.test".to_owned())).unwrap();
    let assertion = ground.endpoint.assert(&asserter, &scopes(&["read"])).unwrap();
    let tokens =
        ground.read(&ground.endpoint.jwt_bearer(&assertion, &scopes(&["read"])).await.unwrap()).unwrap();
    ground.good_for(&tokens, "alice@acme.test").await;
    assert_eq!(tokens.scopes, Some(scopes(&["read"])), "they were in the assertion");
    let again = ground.endpoint.jwt_bearer(&assertion, &[]).await.unwrap();
    assert!(matches!(ground.read(&again), Err(Failure::Definitive(_))), "an assertion is good once");
}

#[tokio::test]
async fn a_token_buys_another_that_is_good_for_no_more() {
    let rfc = "{type: token_exchange, token_url: https://auth.provider.test/token}";
    let entra =
        "{type: token_exchange, token_url: https://login.microsoftonline.com/common/oauth2/v2.0/token,
                  dialect: {client_auth: body, exchange: on_behalf_of}}";
    for row in [of("RFC 8693", Profile::default(), rfc), of("on behalf of", profiles::microsoft(), entra)] {
        let ground = Ground::new(row).await;
        let subject = ground.issuer.consent("acme", &["read"]).access;
        let subject = TypedToken {
            token: Secret::new(subject.into_bytes()),
            r#type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        };
        let mut exchange = Exchange { subject, actor: None, audience: None, scopes: scopes(&["read"]) };
        let tokens = ground.read(&ground.endpoint.token_exchange(&exchange).await.unwrap()).unwrap();
        ground.good_for(&tokens, "acme").await;
        exchange.scopes = scopes(&["read", "write"]);
        let wider = ground.read(&ground.endpoint.token_exchange(&exchange).await.unwrap());
        assert!(matches!(wider, Err(Failure::App(_))), "{wider:?}");
    }
}

#[tokio::test]
async fn an_installation_token_is_narrowed_to_repositories_and_permissions() {
    let auth = "{type: github_app,
                 token_url: 'https://api.github.com/app/installations/{subdomain}/access_tokens',
                 dialect: {token_at: token, expiry: expires_at, client_auth: private_key_jwt}}";
    let profile = Profile {
        client_auth: ClientAuth::Assertion,
        expiry: Expiry::At("expires_at"),
        told_scopes: Told::Untold,
        ..profiles::github()
    };
    let ground = Ground::new(of("a GitHub App", profile, auth)).await;
    let permissions = BTreeMap::from([("issues".to_owned(), "write".to_owned())]);
    ground.issuer.install("acme", Installation { repositories: vec!["app".to_owned()], permissions });
    let narrowed = |permission: &str| Narrowed {
        repositories: vec!["app".to_owned()],
        permissions: vec![(permission.to_owned(), "read".to_owned())],
    };
    let raw = ground.endpoint.installation_token(&narrowed("issues")).await.unwrap();
    let tokens = ground.read(&raw).unwrap();
    ground.good_for(&tokens, "installation-acme").await;
    assert!(tokens.expires.is_some());
    let wider = ground.endpoint.installation_token(&narrowed("contents")).await.unwrap();
    assert!(ground.read(&wider).is_err(), "more than was installed");
}

#[tokio::test]
async fn a_standard_grant_is_revoked_by_either_token() {
    for hint in [Hint::AccessToken, Hint::RefreshToken] {
        let ground = Ground::new(super::table::standard(Profile::default())).await;
        let tokens = ground.connect().await;
        assert_eq!(ground.worth(&tokens.access).await, live(0));
        let token = if hint == Hint::AccessToken { &tokens.access } else { tokens.refresh.as_ref().unwrap() };
        assert_eq!(ground.endpoint.revoke(token, hint).await, Ok(true));
        assert_eq!(ground.worth(&tokens.access).await, Worth::Revoked);
        assert_eq!(ground.endpoint.revoke(token, hint).await, Ok(true), "again, RFC 7009 §2.2");
        assert!(plain(token).starts_with("kb-canary-"));
    }
}
