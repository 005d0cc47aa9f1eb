//! Eight processes over one PostgreSQL, and sixty-four agents before each, want the same account at once: its refresh
//! token is spent once.

use std::net::SocketAddr;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keybearer::drain::Drain;
use tokio::net::TcpStream;

use crate::support::{
    agent::{absolute, identity},
    issuer::{Issuer, OldAccess, Profile},
    postgres::Postgres,
    provider::TestAuthority,
    records::{self, URL, expired},
    sidecar::Sidecar,
    stage::{Stage, Staging},
};

const PROCESSES: usize = 8;
const TASKS: usize = 64;
const ACCOUNTS: usize = 4;

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
    let vault = records::vault(&Postgres::shared().database().await, folder.path());
    let authority = TestAuthority::new();
    let profile = Profile { old_access: OldAccess::Dies, ..Profile::default() };
    let issuer = Issuer::start(&authority, profile).await;
    // It makes the vault and adds the accounts; its own rules know nothing of their connector.
    let desk =
        Stage::set(Staging { config: vault.clone(), accounts: Vec::new(), ..Staging::default() }).await;
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        processes.push(Sidecar::start(&vault, &issuer, &authority).await);
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
