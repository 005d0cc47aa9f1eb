//! Eight processes over one PostgreSQL, and sixty-four agents before each, want the same account at once: its refresh
//! token is spent once.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use keybearer::{
    drain::Drain,
    id::{AccountKey, ConnectorName, Principal, TenantId},
    secret::Secret,
    vault::{Access, Grant, GrantState, Material, NewAccount},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::support::{
    agent::{absolute, identity},
    issuer::{CLIENT, CLIENT_SECRET, Issuer, OldAccess, Profile, Sold},
    postgres::Postgres,
    provider::TestAuthority,
    stage::{Stage, Staging},
};

const PROCESSES: usize = 8;
const TASKS: usize = 64;
const ACCOUNTS: usize = 4;
const URL: &str = "http://api.provider.test/me";

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: records}
spec:
  hosts: ["api.provider.test"]
  auth:
    type: oauth2
    authorize_url: https://auth.provider.test/authorize
    token_url: https://auth.provider.test/token
    dialect: {rotation: {rotates: always, old_access_dies: true}}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {records:read: [read]}
  operations: [{name: me, request: "GET /me", scopes: [records:read]}]
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: ["*"]
  grants: [{connector: records, as: tenant, scopes: [records:read]}]
"#;

/// A proxy as a process of its own; it is killed when dropped.
struct Process {
    proxy: SocketAddr,
    _child: Child,
    _dir: TempDir,
}

impl Process {
    async fn start(vault: &str, issuer: &Issuer, authority: &TestAuthority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write("roots.pem", &authority.pem());
        write("client.secret", CLIENT_SECRET);
        write("policy.yaml", POLICY);
        let address = issuer.address();
        write(
            "keybearer.yaml",
            &format!(
                "data_dir: data\nlisten: {{proxy: '127.0.0.1:0', admin: '127.0.0.1:0'}}\npolicies: [policy.yaml]\n\
                 egress:\n  roots: {{file: roots.pem}}\n  allow_addresses: [127.0.0.0/8]\n  resolve:\n    \
                 auth.provider.test: '{address}'\n    api.provider.test: '{address}'\n\
                 oauth: {{apps: {{records: {{client_id: {CLIENT}, client_secret: {{file: client.secret}}}}}}}}\n{vault}"
            ),
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_keybearer"))
            .args(["proxy", "--log", "warn"])
            .current_dir(dir.path())
            .env_clear()
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let greeting = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("agents at http://") {
                    return rest.split(',').next().unwrap().parse().unwrap();
                }
                eprintln!("{line}");
            }
            panic!("it did not start");
        };
        let proxy = timeout(Duration::from_mins(1), greeting).await.expect("it starts in a minute");
        Drain::default().detach(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
            }
        });
        Self { proxy, _child: child, _dir: dir }
    }
}

/// An account whose access token is over.
fn expired(tenant: &str, sold: Sold) -> NewAccount {
    let secret = |text: String| Secret::new(text.into_bytes());
    let ago = |hours| Timestamp::now() - SignedDuration::from_hours(hours);
    NewAccount {
        key: AccountKey {
            tenant: TenantId::new(tenant).unwrap(),
            connector: ConnectorName::new("records").unwrap(),
            principal: Principal::Tenant,
        },
        material: Material::Oauth(Box::new(Grant {
            access: Some(Access { token: secret(sold.access), expires: Some(ago(1)), obtained: ago(2) }),
            refresh: sold.refresh.map(secret),
            refresh_expires: None,
            deadline: None,
            subject: None,
            provider_scopes: vec!["read".to_owned()],
            used: None,
            state: GrantState::Fresh,
        })),
        scopes: None,
        metadata: std::collections::BTreeMap::default(),
        authorization: None,
    }
}

/// Asks until it is served: to be asked to come again while the refresh takes its time is no failure. Anything else
/// is, and so is another account's answer. How often it had to come again.
async fn served(proxy: SocketAddr, tenant: String) -> usize {
    const PATIENCE: usize = 20;
    let stream = TcpStream::connect(proxy).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let drain = Drain::default();
    drain.spawn(connection);
    for again in 0..PATIENCE {
        sender.ready().await.unwrap();
        let request = absolute("GET", URL).header("agent-identity", identity(&tenant, "researcher"));
        let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if head.status == StatusCode::OK {
            let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&told["account"], &told["generation"]), (&tenant.as_str().into(), &1.into()));
            return again;
        }
        let text = String::from_utf8_lossy(&body);
        assert!(head.headers.contains_key("retry-after"), "{}: {text}", head.status);
    }
    panic!("{tenant} was asked to come again {PATIENCE} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_and_sixty_four_tasks_each_spend_a_refresh_token_once() {
    let folder = tempfile::tempdir().unwrap();
    let vault = format!(
        "vault: {{backend: postgres, url: '{}', key: {{file: {}}}, timeout: 1m}}\n",
        Postgres::shared().database().await,
        folder.path().join("key").display()
    );
    let authority = TestAuthority::new();
    let profile = Profile { old_access: OldAccess::Dies, ..Profile::default() };
    let issuer = Issuer::start(&authority, profile).await;
    // It makes the vault and adds the accounts; its own rules know nothing of their connector.
    let desk =
        Stage::set(Staging { config: vault.clone(), accounts: Vec::new(), ..Staging::default() }).await;
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        processes.push(Process::start(&vault, &issuer, &authority).await);
    }
    for number in 0..ACCOUNTS {
        let tenant = format!("tenant-{number}");
        desk.app().vault.add(expired(&tenant, issuer.consent(&tenant, &["read"]))).await.unwrap();
        let drain = Drain::default();
        let agents: Vec<_> = processes
            .iter()
            .flat_map(|process| (0..TASKS).map(|_| drain.spawn(served(process.proxy, tenant.clone()))))
            .collect();
        let mut again = 0;
        for agent in agents {
            again += agent.await.unwrap();
        }
        println!("{tenant}: {} agents were served, {again} had to come again", PROCESSES * TASKS);
        assert_eq!(issuer.presented(&tenant), [1], "one POST for one generation");
    }
}
