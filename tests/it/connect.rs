//! `account connect` against a real authorization server, with a person at a real browser; before a strict one
//! ([`strict`]); and as a command ([`command`]).

use std::net::SocketAddr;

use http::StatusCode;
use keybearer::{
    admin::{Asked, Client, Command, Error, Reply},
    drain::Drain,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    authorization_server::{Answer, AuthorizationServer, CLIENT, HOST, SECRET, walk},
    browser::Browser,
    provider::TestAuthority,
    stage::{Stage, Staging},
};

mod command;
mod strict;

const ACCOUNT: &str = "acme/crm/role:researcher";
const ROLE: &str = r#"
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: crm, as: role, scopes: [records:read, records:write]}]
"#;

struct Ground {
    stage: Stage,
    callback: String,
    _server: AuthorizationServer,
    _drain: Drain,
}

impl Ground {
    async fn new() -> Self {
        let authority = TestAuthority::new();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callback = format!("http://{}/oauth/callback", front.local_addr().unwrap());
        let server = AuthorizationServer::start(&authority, &callback).await;
        let stage = Stage::set(Staging {
            policies: vec![("policy.yaml", connector(&server.issuer()) + ROLE)],
            config: format!(
                "oauth: {{redirect_url: '{callback}', apps: {{crm: {{client_id: {CLIENT}, client_secret: {{file: app}}}}}}}}\n"
            ),
            resolve: vec![(HOST.to_owned(), server.address())],
            accounts: vec![],
            authority,
            files: vec![("app", SECRET)],
            ..Staging::default()
        })
        .await;
        let (drain, admin) = (Drain::default(), stage.app().admin);
        let each = drain.clone();
        // What a load balancer would be: people come back to another address than the listener's.
        drain.detach(async move {
            while let Ok((mut person, _)) = front.accept().await {
                let mut ours = TcpStream::connect(admin).await.unwrap();
                each.spawn(async move { copy_bidirectional(&mut person, &mut ours).await });
            }
        });
        Self { stage, callback, _server: server, _drain: drain }
    }

    async fn execute(&self, command: Command) -> Result<Reply, Error> {
        execute(&self.stage, command).await
    }

    /// A person answers. Where they landed, what they read, and what whoever waits is told.
    async fn answered(&self, name: &str, answer: Answer<'_>) -> (String, String, Result<Reply, Error>) {
        let asked = asked(&self.stage).await;
        let browser = Browser::start(&self.stage.authority).await;
        let landed = walk(&browser, &asked.url, &self.callback, name, answer).await;
        let page = browser.text("body").await;
        (landed, page, self.execute(Command::Consent { id: asked.id }).await)
    }

    /// Comes back with a query.
    async fn back(&self, query: &str) -> String {
        self.come("GET", query).await
    }

    async fn come(&self, method: &str, query: &str) -> String {
        call(self.stage.app().admin, "kb.example", method, &format!("/oauth/callback?{query}")).await
    }
}

async fn execute(stage: &Stage, command: Command) -> Result<Reply, Error> {
    let socket = stage.dir().join("data/admin.sock");
    let client = Client::find(&socket, &Drain::default()).await.unwrap().unwrap();
    client.execute(&command).await
}

/// A consent that somebody is asked for, with its URL.
async fn asked(stage: &Stage) -> Asked {
    let command = Command::Connect { account: ACCOUNT.parse().unwrap(), metadata: [].into() };
    match execute(stage, command).await {
        Ok(Reply::Asked(asked)) => *asked,
        other => panic!("{other:?}"),
    }
}

/// Calls the admin listener under a name.
async fn call(at: SocketAddr, host: &str, method: &str, path: &str) -> String {
    let mut io = TcpStream::connect(at).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

fn connector(issuer: &str) -> String {
    format!(
        r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {{name: crm}}
spec:
  hosts: ["api.crm.test"]
  auth:
    type: oauth2
    authorize_url: {issuer}/auth
    token_url: {issuer}/token
    pkce: S256
    dialect:
      issuer: {issuer}
      offline_scopes: [offline_access]
      authorize_extra: {{prompt: consent}}
      subject_from: id_token.sub
      subject_scopes: [openid]
  inject: [{{header: Authorization, value: "Bearer {{token}}"}}]
  scopes: {{records:read: ["records:read"], records:write: ["records:write"]}}
  operations:
    - {{name: record.read, request: "GET /echo", scopes: [records:read]}}
    - {{name: record.write, request: "POST /echo", scopes: [records:write]}}
"#
    )
}

fn code(told: Result<Reply, Error>) -> String {
    told.unwrap_err().code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_consents_and_requests_carry_the_token() {
    let ground = Ground::new().await;
    let (landed, page, told) = ground.answered("alice", Answer::AllowWithout(&[])).await;
    assert!(page.contains("is connected") && page.contains("records:read, records:write"), "{page}");
    let Ok(Reply::Account(account)) = told else { panic!("{told:?}") };
    ground.stage.get("acme", "researcher", "http://api.crm.test/echo").await;
    let seen = ground.stage.provider.requests();
    assert!(seen.last().unwrap().head_contains("Bearer "), "the token went along");
    let events = ground.stage.events().await;
    let connected = events.iter().find(|event| event["event"] == "account.connected").unwrap();
    assert_eq!(connected["id"].as_str(), account.authorization.as_deref());
    assert_eq!(ground.stage.last_action().await["authorization"], connected["id"]);
    let again = ground.back(landed.split_once('?').unwrap().1).await;
    assert!(again.contains("400 Bad Request") && again.contains("no question of ours is open"), "{again}");
    let (_, page, told) = ground.answered("mallory", Answer::AllowWithout(&[])).await;
    assert!(page.contains("not connected"), "{page}");
    assert_eq!(code(told), "other_subject");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_granted_is_missing_in_the_account() {
    let ground = Ground::new().await;
    let (_, page, told) = ground.answered("alice", Answer::AllowWithout(&["records:write"])).await;
    assert!(page.contains("not granted: records:write"), "{page}");
    assert!(matches!(told, Ok(Reply::Account(_))), "{told:?}");
    let refused = ground.stage.ask("POST", "acme", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(
        (refused.status, refused.error().as_deref()),
        (StatusCode::FORBIDDEN, Some("insufficient_scope"))
    );
    assert_eq!(refused.json()["missing_in"], "account");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declines_or_was_not_asked_connects_nothing() {
    let ground = Ground::new().await;
    let (_, page, told) = ground.answered("alice", Answer::Deny).await;
    assert!(page.contains("declined") && page.contains("access_denied"), "{page}");
    assert_eq!(code(told), "consent_declined");
    for forged in ["", "code=x", "code=x&state=guess", "state=a&state=b&code=x"] {
        assert!(ground.back(forged).await.starts_with("HTTP/1.1 400"), "{forged}");
    }
    assert_eq!(ground.execute(Command::List { tenant: None }).await.unwrap(), Reply::Accounts(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_only_looks_at_the_callback_does_not_use_it_up() {
    let ground = Ground::new().await;
    let asked = asked(&ground.stage).await;
    let state = asked.url.split(['?', '&']).find(|pair| pair.starts_with("state=")).unwrap();
    let query = format!("{state}&code=x");
    assert!(ground.come("HEAD", &query).await.starts_with("HTTP/1.1 405"));
    let known = ground.back(&query).await;
    assert!(!known.contains("no question of ours is open"), "{known}");
    let used_up = ground.back(&query).await;
    assert!(used_up.contains("no question of ours is open"), "{used_up}");
}
