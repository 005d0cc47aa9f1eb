//! Accounts whose tokens are minted, through the whole proxy: what is added, what is asked, what requests carry.

use std::collections::BTreeMap;

use http::StatusCode;
use keybearer::{
    admin::{Client, Command, Error, Reply, Secrets},
    drain::Drain,
    ruleset::Ruleset,
    secret::Secret,
};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::support::{
    authorization_server::{self, AuthorizationServer},
    issuer::{CLIENT, CLIENT_SECRET, ClientAuth, Expiry, Installation, Issuer, Profile, Told},
    provider::TestAuthority,
    stage::{Stage, Staging},
};

const URL: &str = "http://api.provider.test/me";
const ROLE: &str = r#"
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: records, as: tenant, scopes: [records:read]}]
"#;
/// A user whom a service account may act as.
const ALICE: &str = "alice@acme.test";
const ROBOT: &str = "robot@project.iam.gserviceaccount.test";
const INSTALLATION: &str = "type: github_app
    token_url: 'https://auth.provider.test/app/installations/{installation}/access_tokens'
    dialect: {token_at: token, expiry: expires_at}";

struct Ground {
    stage: Stage,
    issuer: Issuer,
    dir: tempfile::TempDir,
}

/// What somebody adds: secrets and metadata.
#[derive(Clone, Default)]
struct Added {
    secrets: Vec<(&'static str, String)>,
    metadata: Vec<(&'static str, String)>,
}

impl Added {
    fn secret(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.secrets.push((name, text.into()));
        self
    }

    fn meta(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.metadata.push((name, text.into()));
        self
    }
}

fn connector(host: &str, auth: &str, scope: &str) -> String {
    format!(
        r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {{name: records}}
spec:
  hosts: ["{host}"]
  auth:
    {auth}
  inject: [{{header: Authorization, value: "Bearer {{token}}"}}]
  scopes: {{records:read: ["{scope}"]}}
  operations: [{{name: me, request: ["GET /me", "GET /echo"], scopes: [records:read]}}]
"#
    )
}

impl Ground {
    async fn new(profile: Profile, auth: &str, scope: &str, app: &str) -> Self {
        let authority = TestAuthority::new();
        let issuer = Issuer::start(&authority, profile).await;
        let dir = tempfile::tempdir().unwrap();
        let names = ["auth.provider.test", "api.provider.test"];
        let stage = Stage::set(Staging {
            policies: vec![("policy.yaml", connector("api.provider.test", auth, scope) + ROLE)],
            config: app.to_owned(),
            resolve: names.map(|name| (name.to_owned(), issuer.address())).to_vec(),
            accounts: vec![],
            files: vec![("app", CLIENT_SECRET)],
            authority,
            ..Staging::default()
        })
        .await;
        Self { stage, issuer, dir }
    }

    async fn execute(&self, command: Command) -> Result<Reply, Error> {
        execute(&self.stage, command).await
    }

    async fn add(&self, tenant: &str, added: Added) -> Result<Reply, Error> {
        self.execute(add(tenant, added)).await
    }

    /// Whose a request's token is, as the API saw it.
    async fn whose(&self, tenant: &str) -> String {
        let answer = self.stage.get(tenant, "researcher", URL).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()["account"].as_str().unwrap().to_owned()
    }

    /// The code and the status of a refusal.
    async fn refusal(&self, tenant: &str) -> (StatusCode, String) {
        let answer = self.stage.get(tenant, "researcher", URL).await;
        (answer.status, answer.error().unwrap_or_else(|| answer.text()))
    }

    /// The different tokens that the API was shown.
    fn tokens(&self) -> Vec<String> {
        let shown =
            |call: &crate::support::issuer::Call| call.headers["authorization"].to_str().unwrap().to_owned();
        let mut tokens: Vec<String> = self.issuer.calls().iter().map(shown).collect();
        tokens.sort();
        tokens.dedup();
        tokens
    }

    async fn told(&self, event: &str) -> Value {
        let found = async {
            loop {
                if let Some(told) = self.stage.events().await.into_iter().find(|told| told["event"] == event)
                {
                    return told;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("it is told")
    }
}

async fn execute(stage: &Stage, command: Command) -> Result<Reply, Error> {
    let socket = stage.dir().join("data/admin.sock");
    let client = Client::find(&socket, &Drain::default()).await.unwrap().unwrap();
    client.execute(&command).await
}

fn add(tenant: &str, added: Added) -> Command {
    let secret = |(name, text): (&str, String)| (name.to_owned(), Secret::new(text.into_bytes()));
    Command::Add {
        account: format!("{tenant}/records/tenant").parse().unwrap(),
        secrets: Secrets(added.secrets.into_iter().map(secret).collect()),
        scopes: None,
        metadata: added.metadata.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
    }
}

fn own() -> Added {
    Added::default().secret("client_id", CLIENT).secret("client_secret", CLIENT_SECRET)
}

fn apps() -> Profile {
    Profile {
        client_auth: ClientAuth::Assertion,
        expiry: Expiry::At("expires_at"),
        told_scopes: Told::Untold,
        ..Profile::default()
    }
}

/// What is minted for the account is injected, until it may not be used.
async fn lives(ground: &Ground, added: Added, whose: &str) {
    ground.add("acme", added).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ground.whose("acme").await, whose);
    }
    assert_eq!(ground.tokens().len(), 1, "three requests share a token");
    let told = ground.told("account.minted").await;
    assert_eq!((told["tenant"].as_str(), told["connector"].as_str()), (Some("acme"), Some("records")));
    let account = || "acme/records/tenant".parse().unwrap();
    ground.execute(Command::Freeze { account: account(), by: "ops".to_owned() }).await.unwrap();
    assert_eq!(ground.refusal("acme").await, (StatusCode::FORBIDDEN, "account_frozen".to_owned()));
    ground.execute(Command::Unfreeze { account: account() }).await.unwrap();
    assert_eq!(ground.whose("acme").await, whose);
    assert_eq!(ground.tokens().len(), 2, "what was minted before the freeze is not used after it");
    assert_eq!(ground.refusal("globex").await, (StatusCode::UNAUTHORIZED, "account_missing".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_a_client_of_its_own_buys_its_tokens() {
    let auth = "type: client_credentials\n    token_url: https://auth.provider.test/token";
    let ground = Ground::new(Profile::default(), auth, "read", "").await;
    lives(&ground, own(), CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_holds_nothing_is_asked_for_by_the_configured_app() {
    let auth = "type: client_credentials\n    token_url: https://auth.provider.test/token";
    let app =
        format!("oauth: {{apps: {{records/acme: {{client_id: {CLIENT}, client_secret: {{file: app}}}}}}}}\n");
    let ground = Ground::new(Profile::default(), auth, "read", &app).await;
    let refused = ground.add("globex", Added::default()).await.unwrap_err();
    assert_eq!(refused.code(), "app_missing", "{refused}");
    lives(&ground, Added::default(), CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_acts_as_a_user() {
    let auth = "type: jwt_bearer\n    token_url: https://auth.provider.test/token\n    dialect: {assertion: {scopes: claim}}";
    let ground = Ground::new(Profile::default(), auth, "read", "").await;
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    ground.issuer.key(ROBOT, &key.public_key_pem());
    let file = |key: String| {
        json!({"type": "service_account", "client_email": ROBOT, "private_key": key}).to_string()
    };
    let torn = Added::default().secret("service_account", file("kb-canary-no-key".to_owned()));
    let refused = ground.add("acme", torn).await.unwrap_err();
    assert_eq!(refused.code(), "secret_invalid");
    assert!(refused.to_string().contains("write the JSON file that Google's console gives out"), "{refused}");
    let added = Added::default().secret("service_account", file(key.serialize_pem())).meta("subject", ALICE);
    lives(&ground, added, ALICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_signs_for_the_user_whom_the_account_names() {
    let auth = "type: jwt_bearer\n    token_url: https://auth.provider.test/token";
    let ground = Ground::new(Profile::default(), auth, "read", "").await;
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    ground.issuer.key("consumer-key", &key.public_key_pem());
    let signs = |pem: String| {
        Added::default().secret("client_id", "consumer-key").secret("private_key", pem).meta("subject", ALICE)
    };
    let refused = ground.add("acme", signs("kb-canary-no-key".to_owned())).await.unwrap_err();
    assert!(refused.to_string().starts_with("private_key does not sign"), "{refused}");
    let stranger = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    ground.add("globex", signs(stranger.serialize_pem())).await.unwrap();
    for _ in 0..10 {
        let refused = ground.refusal("globex").await;
        assert_eq!(
            refused,
            (StatusCode::UNAUTHORIZED, "auth_revoked".to_owned()),
            "a key that signs, and is not ours"
        );
    }
    assert_eq!(ground.issuer.posts().len(), 1);
    let told = ground.told("account.mint_refused").await;
    assert_eq!((told["tenant"].as_str(), told["error"].as_str()), (Some("globex"), Some("revoked")));
    ground.execute(Command::Remove { account: "globex/records/tenant".parse().unwrap() }).await.unwrap();
    lives(&ground, signs(key.serialize_pem()), ALICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_for_another() {
    for style in ["rfc8693", "on_behalf_of"] {
        let auth = format!(
            "type: token_exchange\n    token_url: https://auth.provider.test/token\n    dialect: {{exchange: {style}}}"
        );
        let ground = Ground::new(Profile::default(), &auth, "read", "").await;
        let none = ground.add("acme", own()).await.unwrap_err();
        assert!(none.to_string().starts_with("subject_token is missing"), "{none}");
        let subject = ground.issuer.consent("the-user", &["read"]).access;
        lives(&ground, own().secret("subject_token", subject), "the-user").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_narrowed_and_each_tenant_has_its_own() {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let ground = Ground::new(apps(), INSTALLATION, "issues:read", "").await;
    ground.issuer.key("app-1", &key.public_key_pem());
    let installed = || Installation {
        repositories: vec!["app".to_owned(), "site".to_owned()],
        permissions: BTreeMap::from([("issues".to_owned(), "write".to_owned())]),
    };
    ground.issuer.install("11", installed());
    ground.issuer.install("22", installed());
    let of = |installation: &str| {
        let key = Added::default().secret("client_id", "app-1").secret("private_key", key.serialize_pem());
        key.meta("installation", installation).meta("repositories", "app")
    };
    let unsaid = Added { metadata: vec![], ..of("11") };
    let refused = ground.add("acme", unsaid).await.unwrap_err();
    assert!(refused.to_string().contains("add --meta installation="), "{refused}");
    lives(&ground, of("11"), "installation-11").await;
    ground.add("globex", of("22")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ground.whose("globex").await, "installation-22");
        assert_eq!(ground.whose("acme").await, "installation-11");
    }
    assert_eq!(ground.tokens().len(), 3, "two of acme's, one of globex's");

    ground.execute(Command::Remove { account: "globex/records/tenant".parse().unwrap() }).await.unwrap();
    ground.add("globex", of("33")).await.unwrap();
    let answer = ground.stage.get("globex", "researcher", URL).await;
    assert_eq!(answer.error().as_deref(), Some("auth_revoked"));
    assert_eq!(answer.json()["cause"], "uninstalled");
    let more = Added { metadata: vec![], ..of("11") }
        .meta("installation", "11")
        .meta("permissions", "contents:write");
    ground.execute(Command::Remove { account: "globex/records/tenant".parse().unwrap() }).await.unwrap();
    ground.add("globex", more).await.unwrap();
    let answer = ground.stage.get("globex", "researcher", URL).await;
    assert_eq!(
        (answer.error().as_deref(), &answer.json()["cause"]),
        (Some("auth_expired"), &json!("policy"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_file_is_read_each_time_and_nothing_else_is_sent_from_there() {
    let auth = "type: token_exchange\n    token_url: https://auth.provider.test/token";
    let ground = Ground::new(Profile::default(), auth, "read", "").await;
    let file = ground.dir.path().join("token");
    std::fs::write(&file, "kb-canary-not-a-jwt").unwrap();
    let added = Added::default().meta("subject_token_file", file.to_str().unwrap());
    ground.add("acme", added).await.unwrap();
    let refused = ground.refusal("acme").await;
    assert_eq!(refused, (StatusCode::UNAUTHORIZED, "account_missing".to_owned()));
    assert!(ground.issuer.posts().is_empty());
    let relative = Added::default().meta("subject_token_file", "token");
    let refused = ground.add("globex", relative).await.unwrap_err();
    assert!(refused.to_string().contains("is not an absolute path"), "{refused}");
}

#[test]
fn the_examples_of_the_documentation_load() {
    let text = include_str!("../../docs/minting.md");
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 6);
    for block in blocks {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("connector.yaml"), block).unwrap();
        let loaded = Ruleset::load(&[dir.path().to_owned()]);
        assert_eq!(
            loaded.map_err(|error| error.to_string()).unwrap().catalog.connectors().count(),
            1,
            "{block}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_server_gives_a_client_is_injected() {
    let authority = TestAuthority::new();
    let server = AuthorizationServer::start(&authority, "https://keybearer.test/oauth/callback").await;
    let auth = format!("type: client_credentials\n    token_url: {}/token", server.issuer());
    let stage = Stage::set(Staging {
        policies: vec![("policy.yaml", connector("api.crm.test", &auth, "records:read") + ROLE)],
        resolve: vec![(authorization_server::HOST.to_owned(), server.address())],
        accounts: vec![],
        authority,
        ..Staging::default()
    })
    .await;
    let own = |secret: &str| {
        Added::default().secret("client_id", authorization_server::CLIENT).secret("client_secret", secret)
    };
    execute(&stage, add("acme", own(authorization_server::SECRET))).await.unwrap();
    stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    assert!(stage.provider.requests().last().unwrap().head_contains("Bearer "), "the token went along");
    execute(&stage, add("globex", own("kb-canary-wrong-secret"))).await.unwrap();
    let refused = stage.get("globex", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(refused.error().as_deref(), Some("auth_expired"), "{}", refused.text());
    assert_eq!(refused.json()["cause"], "wrong_client");
}
