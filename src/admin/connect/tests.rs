//! Consents at a desk: their bound and their end, and what is stored of one that cannot be recorded.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::Registry;
use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::advance,
};

use super::*;
use crate::{
    admin::Command,
    audit::{self, Audit, Filter, Kind},
    credential::Resolver,
    dial::{AddressGuard, Dialer},
    drain::Drain,
    host::Host,
    oauth::{Apps, Transport},
    ruleset::{Rules, Ruleset},
    tls::{self, Alpn},
    vault::Vault,
};

const LIFE: Duration = Duration::from_mins(10);
const TOKENS: &str =
    r#"{"access_token": "kb-canary-access-1", "refresh_token": "kb-canary-refresh-1", "team": {"id": "T1"}}"#;

struct Ground {
    desk: Desk,
    folder: TempDir,
}

impl Ground {
    /// A desk whose audit log has room for so many events at a time, before a token endpoint that always answers this.
    async fn new(room: usize, answer: &'static str) -> Self {
        tls::init_crypto();
        let (drain, folder) = (Drain::default(), tempfile::tempdir().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let policy = policy(listener.local_addr().unwrap().port());
        std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
        drain.detach(answers(listener, answer));
        let vault = Vault::in_memory(&drain).await.unwrap();
        let config = audit::Config { room, patience: Duration::from_millis(20), ..audit::Config::default() };
        let metrics = audit::Metrics::register(&Registry::new()).unwrap();
        let audit = Audit::open(&config, folder.path(), &metrics).unwrap();
        let rules = Rules::fixed(Ruleset::load(&[folder.path().join("policy.yaml")]).unwrap());
        let resolver = Resolver::new(vault.clone().into());
        let desk = Desk::new(vault, audit, rules, resolver, Some(consents()), drain);
        Self { desk, folder }
    }

    async fn ask(&self) -> Result<Asked, Error> {
        let account = "acme/crm/role:researcher".parse().unwrap();
        match self.desk.execute(Command::Connect { account, metadata: BTreeMap::new() }).await? {
            Reply::Asked(asked) => Ok(*asked),
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&self, asked: &Asked) -> Result<Connected, Refused> {
        let state = asked.url.split(['?', '&']).find(|pair| pair.starts_with("state=")).unwrap();
        self.desk.called_back(&format!("{state}&code=kb-canary-code")).await
    }

    async fn accounts(&self) -> Reply {
        self.desk.execute(Command::List { tenant: None }).await.unwrap()
    }

    /// The account events so far: what happened, by which id, for which authorization.
    fn recorded(&self) -> Vec<(String, String, Option<String>)> {
        let filter = Filter { kind: Some(Kind::Account), ..Filter::default() };
        let log = self.folder.path().join(self.desk.audit().path());
        let found = audit::query(&log, &filter, usize::MAX).unwrap();
        let told = |event: audit::Event| {
            let authorization = event.authorization.map(|id| id.to_string());
            (event.event.unwrap().into_owned(), event.id.unwrap().to_string(), authorization)
        };
        found.events.into_iter().map(|found| told(found.event)).collect()
    }
}

fn policy(port: u16) -> String {
    format!(
        r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {{name: crm}}
spec:
  hosts: ["api.crm.test"]
  cleartext: true
  auth:
    type: oauth2
    authorize_url: https://auth.crm.test/authorize
    token_url: http://auth.crm.test:{port}/token
    dialect: {{subject_from: team.id}}
  inject: [{{header: Authorization, value: "Bearer {{token}}"}}]
  scopes: {{records:read: [read]}}
  operations: [{{name: record.read, request: "GET /records", scopes: [records:read]}}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {{name: researcher}}
spec: {{tenants: ["*"], grants: [{{connector: crm, as: role, scopes: [records:read]}}]}}
"#
    )
}

fn consents() -> Consents {
    let apps = serde_json::json!({
        "redirect_url": "https://kb.test/oauth/callback", "apps": {"crm": {"client_id": "keybearer"}}
    });
    let apps = Apps::load(&serde_json::from_value(apps).unwrap()).unwrap();
    let ours = (Host::parse("auth.crm.test").unwrap(), "127.0.0.1".to_owned().try_into().unwrap());
    let guard = AddressGuard::new(&["127.0.0.0/8".parse().unwrap()]);
    let dialer = Dialer::new([ours].into(), guard, LIFE);
    let tls = tls::upstream_config(&Arc::new(RootCertStore::empty()), Alpn::H1);
    Consents::new(apps, Transport::new(dialer, Arc::new(tls), LIFE))
}

async fn answers(listener: TcpListener, answer: &'static str) {
    while let Ok((mut io, _)) = listener.accept().await {
        let mut asked = vec![0; 4096];
        let mut length = 0;
        while !asked[..length].windows(19).any(|text| text == b"code=kb-canary-code") {
            length += io.read(&mut asked[length..]).await.unwrap();
        }
        let length = answer.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        io.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
    }
}

/// Law 8.
#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_cannot_be_recorded_stores_nothing() {
    let ground = Ground::new(1, TOKENS).await;
    let the_only_room = ground.desk.audit().reserve().await.unwrap();
    let refused = ground.answer(&ground.ask().await.unwrap()).await.unwrap_err();
    assert_eq!((refused.code(), ground.accounts().await), ("audit_unavailable", Reply::Accounts(vec![])));
    drop(the_only_room);
    assert_eq!(ground.recorded(), []);
    let asked = ground.ask().await.unwrap();
    let account = ground.answer(&asked).await.unwrap().account;
    let id = asked.id.to_string();
    assert_eq!(account.authorization.as_ref(), Some(&id));
    assert_eq!(ground.recorded(), [("account.connected".to_owned(), id.clone(), Some(id))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_owner_the_provider_does_not_name_is_not_connected() {
    let ground = Ground::new(8, r#"{"access_token": "kb-canary-access-1"}"#).await;
    let refused = ground.answer(&ground.ask().await.unwrap()).await.unwrap_err();
    assert_eq!((refused.code(), ground.accounts().await), ("subject_missing", Reply::Accounts(vec![])));
    assert_eq!(ground.recorded()[0].0, "account.not_connected");
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_ten_minutes_is_told_that_it_is_late() {
    let ground = Ground::new(8, TOKENS).await;
    let asked = ground.ask().await.unwrap();
    assert!(asked.until <= Timestamp::now() + LIFE);
    advance(LIFE).await;
    let refused = ground.answer(&asked).await.unwrap_err();
    assert_eq!((refused.code(), &refused.fault()), ("consent_over", &Fault::over()));
    let told = ground.desk.execute(Command::Consent { id: asked.id }).await.unwrap_err();
    assert_eq!((told.code(), told.to_string()), ("consent_over", Fault::over().detail));
}

#[tokio::test(start_paused = true)]
async fn so_many_questions_are_open_at_a_time_and_those_that_are_over_make_room() {
    let ground = Ground::new(8, TOKENS).await;
    let mut asked = Vec::new();
    for _ in 0..256 {
        asked.push(ground.ask().await.unwrap());
    }
    let refused = ground.ask().await.unwrap_err();
    assert_eq!(refused.code(), "too_many_consents");
    assert!(refused.to_string().starts_with("256 consents are asked for"), "{refused}");
    let withdrawn = ground.desk.execute(Command::Withdraw { id: asked[7].id }).await.unwrap();
    assert_eq!(withdrawn, Reply::Withdrawn(asked[7].id));
    ground.ask().await.unwrap();
    assert!(ground.ask().await.is_err());
    advance(LIFE).await;
    ground.ask().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_withdrawn_takes_no_answer_and_one_that_is_answered_is_not_withdrawn() {
    let ground = Ground::new(8, TOKENS).await;
    let asked = ground.ask().await.unwrap();
    let (told, withdrawn) = tokio::join!(
        ground.desk.execute(Command::Consent { id: asked.id }),
        ground.desk.execute(Command::Withdraw { id: asked.id }),
    );
    assert_eq!(
        (told.unwrap_err().code(), withdrawn.unwrap()),
        ("consent_withdrawn", Reply::Withdrawn(asked.id))
    );
    let refused = ground.answer(&asked).await.unwrap_err();
    assert!(refused.to_string().contains("no question of ours is open"), "{refused}");
    assert_eq!(ground.accounts().await, Reply::Accounts(vec![]));
    let asked = ground.ask().await.unwrap();
    ground.answer(&asked).await.unwrap();
    let connected = ground.desk.execute(Command::Withdraw { id: asked.id }).await.unwrap();
    assert!(matches!(connected, Reply::Account(_)), "{connected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pasted_secret_takes_the_place_of_a_consent() {
    let ground = Ground::new(8, TOKENS).await;
    ground.answer(&ground.ask().await.unwrap()).await.unwrap();
    let before = ground.accounts().await;
    let secret = crate::secret::Secret::new(b"kb-canary-pasted".to_vec());
    let secrets = crate::admin::Secrets([("token".to_owned(), secret)].into());
    let account = "acme/crm/role:researcher".parse().unwrap();
    let refused = ground.desk.execute(Command::Rotate { account, secrets }).await.unwrap_err();
    assert_eq!(refused.code(), "account_consented");
    assert!(
        refused.to_string().contains("`keybearer account connect acme/crm/role:researcher`"),
        "{refused}"
    );
    assert_eq!((ground.accounts().await, ground.recorded().len()), (before, 1));
}
