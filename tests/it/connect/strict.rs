//! The callback before a strict provider: what may go wrong there, what the person and the operator are told of it, and
//! what stays as it was.

use axum::body::Body;
use http::{Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use keybearer::{
    admin::{Command, Error, Listed, Reply},
    id::AccountKey,
    vault::{Account, Grant, Material, NewAccount},
};
use serde_json::json;

use super::{ACCOUNT, asked, call, code, execute};
use crate::support::{
    direct::Direct,
    issuer::{CLIENT, CLIENT_SECRET, Cause, Expiry, Issuer, Profile, Step, Why},
    provider::TestAuthority,
    stage::{Stage, Staging},
};

const URL: &str = "http://api.provider.test/me";
const WHERE: &str = "https://auth.provider.test/token";

/// A proxy before the strict issuer.
pub(super) struct Ground {
    pub(super) stage: Stage,
    pub(super) issuer: Issuer,
}

impl Ground {
    /// With the connector's dialect.
    pub(super) async fn new(profile: Profile, dialect: &str) -> Self {
        Self::at(profile, dialect, WHERE).await
    }

    async fn at(profile: Profile, dialect: &str, token_url: &str) -> Self {
        let authority = TestAuthority::new();
        let issuer = Issuer::start(&authority, profile).await;
        let closed = "127.0.0.1:1".parse().unwrap();
        let stage = Stage::set(Staging {
            policies: vec![("policy.yaml", policy(dialect, token_url))],
            config: app(),
            resolve: vec![
                ("auth.provider.test".to_owned(), issuer.address()),
                ("api.provider.test".to_owned(), issuer.address()),
                ("closed.provider.test".to_owned(), closed),
            ],
            accounts: vec![],
            authority,
            files: vec![("app", CLIENT_SECRET)],
            ..Staging::default()
        })
        .await;
        Self { stage, issuer }
    }

    async fn execute(&self, command: Command) -> Result<Reply, Error> {
        execute(&self.stage, command).await
    }

    /// A person consents and is sent back: the page that they read, and what whoever waits is told.
    async fn consent(&self) -> (String, Result<Reply, Error>) {
        let asked = asked(&self.stage).await;
        let page = open(&visit(&self.issuer, &self.stage.authority, &asked.url).await).await;
        (page, self.execute(Command::Consent { id: asked.id }).await)
    }

    async fn connected(&self) -> Listed {
        let (page, told) = self.consent().await;
        let Ok(Reply::Account(account)) = told else { panic!("{told:?}: {page}") };
        *account
    }

    /// A consent that connects nothing, with this code, and with this said to both.
    async fn refused(&self, error: &str, says: &str) {
        let (page, told) = self.consent().await;
        assert!(page.starts_with("HTTP/1.1 400") && page.contains("The account was not connected"), "{page}");
        assert!(page.contains(says) && page.contains("Nothing was changed"), "{says}: {page}");
        let told = told.unwrap_err();
        assert!(told.to_string().contains(says), "{says}: {told}");
        assert_eq!(code(Err(told)), error);
        let event = self.stage.events().await.pop().unwrap();
        assert_eq!((&event["event"], &event["error"]), (&"account.not_connected".into(), &error.into()));
        assert_eq!(event["account"], ACCOUNT);
    }

    /// The account's grant in the vault.
    async fn stored(&self) -> (Account, Grant) {
        let key: AccountKey = ACCOUNT.parse().unwrap();
        let account = self.stage.app().vault.account(&key).await.unwrap().unwrap();
        let Material::Oauth(grant) = account.material.clone() else { panic!("it is a grant") };
        (account, *grant)
    }

    /// As if the access token's time were over.
    async fn end_token(&self) {
        let (account, mut grant) = self.stored().await;
        grant.access.as_mut().unwrap().expires = Some(Timestamp::now() - SignedDuration::from_mins(1));
        let Account { key, scopes, metadata, authorization, .. } = account;
        let material = Material::Oauth(Box::new(grant));
        let new = NewAccount { key, material, scopes, metadata, authorization };
        self.stage.app().vault.connect(new).await.unwrap();
    }

    async fn accounts(&self) -> Reply {
        self.execute(Command::List { tenant: None }).await.unwrap()
    }
}

/// The configuration's app.
pub(super) fn app() -> String {
    format!("oauth: {{apps: {{crm: {{client_id: {CLIENT}, client_secret: {{file: app}}}}}}}}\n")
}

pub(super) fn policy(dialect: &str, token_url: &str) -> String {
    format!(
        r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {{name: crm}}
spec:
  hosts: ["api.provider.test", "{{instance}}.crm.test"]
  auth:
    type: oauth2
    authorize_url: https://auth.provider.test/authorize
    token_url: {token_url}
    pkce: S256
    dialect: {dialect}
  inject: [{{header: Authorization, value: "Bearer {{token}}"}}]
  scopes: {{records:read: [read], records:write: [write]}}
  operations:
    - {{name: record.read, request: "GET /me", scopes: [records:read]}}
    - {{name: record.write, request: "POST /me", scopes: [records:write]}}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {{name: researcher}}
spec:
  tenants: ["*"]
  grants: [{{connector: crm, as: role, scopes: [records:read, records:write]}}]
"#
    )
}

/// Opens an authorization URL; the issuer's person answers at once. Where they are sent back to.
pub(super) async fn visit(issuer: &Issuer, authority: &TestAuthority, url: &str) -> String {
    let (host, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let mut direct = Direct::connect(issuer.address(), authority, host, &["http/1.1"]).await.unwrap();
    let answer = direct.send(Request::get(format!("/{path}")).body(Body::empty()).unwrap()).await.unwrap();
    answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

/// Opens the URL that a person is sent back to.
pub(super) async fn open(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    call(host.parse().unwrap(), host, "GET", &format!("/{path}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_fails_is_told_to_both_and_changes_nothing() {
    let ground = Ground::new(Profile::default(), "{}").await;
    ground.connected().await;
    let before = ground.accounts().await;
    for (step, says) in [
        (Step::cut(), "no answer says whether it was carried out"),
        (Step::status(503), "refused for now; begin again"),
        (Step::too_many("30"), "refused for now; begin again"),
        (Step::garbled(), "neither JSON nor a form; whoever runs the proxy has to mend that"),
        (Step::padded(1 << 20), "longer than 1048576 bytes"),
        (Step::redirect("https://auth.provider.test/followed"), "the token endpoint redirects"),
        (Step::refused(Why::Grant(Cause::Expired)), "refused for good"),
    ] {
        ground.issuer.script([step]);
        ground.refused("exchange_failed", says).await;
    }
    ground.issuer.secret(CLIENT, "kb-canary-another-secret");
    ground.refused("exchange_failed", "client id or secret is wrong or has expired (oauth.apps)").await;
    assert_eq!(ground.accounts().await, before);
    let served = ground.stage.get("acme", "researcher", URL).await;
    assert_eq!(served.status, StatusCode::OK, "the account works as it did");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_is_down_is_named_and_nothing_is_stored() {
    let ground = Ground::at(Profile::default(), "{}", "https://closed.provider.test/token").await;
    ground.refused("exchange_failed", "nothing was sent: cannot connect to the token endpoint").await;
    assert_eq!(ground.accounts().await, Reply::Accounts(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_of_another_issuer_is_refused_before_its_code_goes_anywhere() {
    for iss in [Some("https://evil.provider.test"), None] {
        let profile = Profile { iss, ..Profile::default() };
        let ground = Ground::new(profile, "{issuer: 'https://auth.provider.test'}").await;
        ground.refused("consent_refused", "another server than the connector").await;
        assert!(ground.issuer.posts().is_empty());
        assert_eq!(ground.accounts().await, Reply::Accounts(vec![]));
    }
    let profile = Profile { iss: Some("https://auth.provider.test"), ..Profile::default() };
    Ground::new(profile, "{issuer: 'https://auth.provider.test'}").await.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_comes_with_the_tokens_is_taken_where_it_must_be_and_refused_elsewhere() {
    let dialect = r#"{host_from: instance_url, host_must_match: ["{instance}.crm.test"]}"#;
    let ground = Ground::new(Profile::default(), dialect).await;
    for foreign in ["https://na47.crm.test.evil.test", "https://evil.test", "https://169.254.169.254"] {
        ground.issuer.says("instance_url", json!(foreign));
        ground.refused("host_refused", "host_must_match does not allow").await;
    }
    assert_eq!(ground.accounts().await, Reply::Accounts(vec![]));
    for (number, instance) in [(1, "na47"), (2, "na48")] {
        ground.issuer.says("instance_url", json!(format!("https://{instance}.crm.test")));
        let account = ground.connected().await;
        assert_eq!((account.generation, account.metadata["instance"].as_str()), (number, instance));
    }
    let before = ground.accounts().await;
    ground.issuer.says("instance_url", json!("https://evil.test"));
    ground.refused("host_refused", "host_must_match does not allow").await;
    assert_eq!(ground.accounts().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_connects_an_account_anew() {
    let ground = Ground::new(Profile::default(), "{subject_from: team.id}").await;
    ground.issuer.says("team", json!({"id": "T1"}));
    ground.connected().await;
    let before = ground.accounts().await;
    for (team, error, says) in [
        (json!({"id": "T2"}), "other_subject", "another"),
        (json!({"id": ""}), "subject_missing", "does not say whose account it is"),
        (json!({}), "subject_missing", "does not say whose account it is"),
    ] {
        ground.issuer.says("team", team);
        ground.refused(error, says).await;
    }
    assert_eq!(ground.accounts().await, before);
    ground.issuer.says("team", json!({"id": "T1"}));
    assert_eq!(ground.connected().await.generation, 2);
}

/// GitLab wants `redirect_uri` with each refresh. It is the callback's, also where nobody configured one.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_says_where_the_consent_was_sent_back_to_and_actions_say_which_consent_it_was() {
    let profile = Profile { refresh_repeats: &["redirect_uri"], ..Profile::default() };
    let ground = Ground::new(profile, r#"{refresh_extra: {redirect_uri: "{redirect_uri}"}}"#).await;
    let consent = ground.connected().await.authorization.unwrap();
    ground.end_token().await;
    let served = ground.stage.get("acme", "researcher", URL).await;
    assert_eq!((served.status, &served.json()["generation"]), (StatusCode::OK, &json!(1)));
    let posts = ground.issuer.posts();
    let callback = format!("http://{}/oauth/callback", ground.stage.app().admin);
    assert_eq!(posts.last().unwrap().grant_type, "refresh_token");
    assert_eq!(posts.last().unwrap().params["redirect_uri"], callback);
    let events = ground.stage.events().await;
    let connected = events.iter().find(|event| event["event"] == "account.connected").unwrap();
    assert_eq!((&connected["id"], &connected["authorization"]), (&json!(consent), &json!(consent)));
    let again = ground.stage.get("acme", "researcher", URL).await;
    let action = ground.stage.action(again.headers["keybearer-action"].to_str().unwrap()).await;
    assert_eq!((&action["authorization"], &action["generation"]), (&json!(consent), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_clock_ten_minutes_off_takes_nothing_from_a_tokens_life() {
    for clock_off in [-600, 600] {
        let profile = Profile { clock_off, expiry: Expiry::AtEpoch("expires_at"), ..Profile::default() };
        let ground = Ground::new(profile, "{expiry: expires_at}").await;
        ground.connected().await;
        let (_, grant) = ground.stored().await;
        let left = grant.access.unwrap().expires.unwrap().duration_since(Timestamp::now());
        let hour = SignedDuration::from_hours(1);
        assert!(left <= hour && left > hour - SignedDuration::from_mins(2), "{clock_off}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_behind_a_reconnect_url_says_how_an_owner_is_asked() {
    let ground = Ground::new(Profile::default(), "{}").await;
    let refused = ground.stage.get("acme", "researcher", URL).await;
    assert_eq!(refused.error().as_deref(), Some("account_missing"));
    let url = refused.json()["reconnect_url"].as_str().unwrap().to_owned();
    let page = open(&url).await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("content-type: text/html"), "{page}");
    assert!(
        page.contains("keybearer account connect --tenant acme --connector crm --role researcher<"),
        "{page}"
    );
    assert!(!page.contains("account add") && !page.contains("<script") && !page.contains("<form"), "{page}");
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let (at, path) = (host.parse().unwrap(), format!("/{path}"));
    let looked = call(at, host, "HEAD", &path).await;
    assert!(looked.starts_with("HTTP/1.1 200") && looked.ends_with("\r\n\r\n"), "{looked}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in [&path, "/oauth/callback?state=x&code=y"] {
            let refused = call(at, host, method, path).await;
            assert!(
                refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET"),
                "{method}: {refused}"
            );
        }
    }
    let looked = call(at, host, "HEAD", "/oauth/callback?state=x&code=y").await;
    assert!(looked.starts_with("HTTP/1.1 405") && looked.contains("allow: GET"), "{looked}");
}
