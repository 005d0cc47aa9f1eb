//! Law 12. A change of the policy, a binding or an account reaches open connections at their next request; a freeze
//! ends open streams, too.

use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use keybearer::{id::AccountKey, secret::Secret, vault::Vault};
use tokio_tungstenite::tungstenite::Message;

use super::{
    law_11_streams_stream::websocket,
    wire::{self, ACME, ALPNS, actions, asks, until},
};
use crate::support::{
    agent::{Body, Connection, absolute, identity},
    stage::{HOST, POLICY, Stage, Staging},
};

/// Waits until a change has reached the proxy's tasks, which are told of it and not waited for. Each time asks on a
/// connection of its own: an answer that was under way may be broken off, and its connection with it.
async fn becomes(stage: &Stage, status: u16, error: &str) {
    until(error, async || {
        let mut direct = stage.direct().await;
        let request = absolute("GET", "http://api.crm.test/echo")
            .header("agent-identity", identity("acme", "researcher"));
        let answer = direct.send(request.body(Body::default()).unwrap()).await.ok()?;
        let told =
            answer.headers().get("proxy-status").is_none_or(|told| told.to_str().unwrap().contains(error));
        (answer.status() == status && told).then_some(())
    })
    .await;
}

/// Fails where a stream goes on that must have ended.
async fn soon<F: Future>(end: F) -> F::Output {
    tokio::time::timeout(std::time::Duration::from_secs(10), end).await.expect("it goes on")
}

/// A tunnel of each version that has been used.
async fn tunnels(stage: &Stage) -> Vec<Connection> {
    let mut open = vec![stage.tunnel(HOST, ALPNS[0]).await, stage.tunnel(HOST, ALPNS[1]).await];
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (200, None));
    }
    open
}

async fn reloaded(stage: &Stage, file: &str, text: &str) {
    let before = stage.app().rules.current().revision.clone();
    stage.write_policy(file, text);
    until("the policy is reloaded", async || (stage.app().rules.current().revision != before).then_some(()))
        .await;
}

/// Asked once: what was decided by then holds for the very next request.
async fn at_once(connection: &mut Connection) -> (u16, Option<String>) {
    let request = asks(connection, "GET", "/echo");
    let answer = connection.call(request).await;
    (answer.status.as_u16(), answer.error())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_holds_for_the_next_request_on_an_open_tunnel() {
    let stage = Stage::open().await;
    let mut open = tunnels(&stage).await;
    let before = stage.provider.requests().len();
    let without_read = POLICY.replacen(
        "grants: [{connector: crm, as: tenant, scopes: [accounts:read]}]",
        "grants: [{connector: crm, as: tenant, scopes: [opportunities:write]}]",
        1,
    );
    reloaded(&stage, "policy.yaml", &without_read).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (403, Some("insufficient_scope".to_owned())));
    }
    let denied = POLICY.replacen(
        "scopes: [accounts:read]}]",
        "scopes: [accounts:read]}]\n  deny: [{connector: crm, operations: [account.read]}]",
        1,
    );
    reloaded(&stage, "policy.yaml", &denied).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (403, Some("policy_denied".to_owned())));
    }
    let elsewhere = POLICY.replacen("api.crm.test", "elsewhere.test", 1);
    reloaded(&stage, "policy.yaml", &elsewhere).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (403, Some("destination_denied".to_owned())));
    }
    assert_eq!(stage.provider.requests().len(), before);
    reloaded(&stage, "policy.yaml", POLICY).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (200, None), "and back again");
    }
    let revisions: std::collections::BTreeSet<String> =
        stage.actions().await.iter().map(|event| event["policy_revision"].to_string()).collect();
    assert_eq!(
        revisions.len(),
        4,
        "each event names the policy that decided: three revisions, and none where no connector was found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_injection_holds_for_the_next_request() {
    let stage = Stage::open().await;
    let mut open = tunnels(&stage).await;
    let other = POLICY.replacen(
        "Bearer {token}\"}]",
        "Bearer {token}\"}, {header: X-Second, value: \"second {token}\"}]",
        1,
    );
    reloaded(&stage, "policy.yaml", &other).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (200, None));
        let seen = stage.provider.requests().pop().unwrap();
        assert_eq!(seen.headers["x-second"], format!("second {ACME}"));
    }
}

const BINDING: &str = "apiVersion: keybearer.dev/v1\nkind: Binding\nmetadata: {name: crew}\nspec: {workloads: [{local: true}], tenants: [TENANTS], roles: [\"*\"], users: [\"*\"]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_binding_holds_for_the_next_request_on_an_open_tunnel() {
    let policies =
        vec![("policy.yaml", POLICY.to_owned()), ("binding.yaml", BINDING.replace("TENANTS", "acme"))];
    let stage = Stage::set(Staging {
        policies,
        config: "identity: {mode: bound}\n".to_owned(),
        ..Staging::default()
    })
    .await;
    let mut open = tunnels(&stage).await;
    let before = stage.provider.requests().len();
    reloaded(&stage, "binding.yaml", &BINDING.replace("TENANTS", "globex")).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (403, Some("identity_not_allowed".to_owned())));
    }
    assert_eq!(stage.provider.requests().len(), before);
    reloaded(&stage, "binding.yaml", &BINDING.replace("TENANTS", "acme, globex")).await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (200, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_an_account_holds_for_the_next_request_on_an_open_tunnel() {
    let stage = Stage::open().await;
    let mut open = tunnels(&stage).await;
    let (vault, key): (&Vault, AccountKey) = (&stage.app().vault, wire::key("acme", "crm"));

    vault.freeze(&key, "ops@acme").await.unwrap();
    becomes(&stage, 403, "account_frozen").await;
    let before = stage.provider.requests().len();
    for connection in &mut open {
        let request = asks(connection, "GET", "/echo");
        let answer = connection.call(request).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_deref()), (403, Some("account_frozen")));
        assert_eq!(answer.json()["by"], "ops@acme");
    }
    assert_eq!(stage.provider.requests().len(), before);

    vault.unfreeze(&key).await.unwrap();
    becomes(&stage, 200, "").await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (200, None));
    }
    vault.revoke(&key).await.unwrap();
    becomes(&stage, 401, "auth_revoked").await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (401, Some("auth_revoked".to_owned())));
    }
    vault.remove(&key).await.unwrap();
    becomes(&stage, 401, "account_missing").await;
    for connection in &mut open {
        assert_eq!(at_once(connection).await, (401, Some("account_missing".to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_used_for_the_next_request() {
    let second = "kb-canary-acme-second-91c0";
    let credentials = vec![(second.to_owned(), "acme-rotated".to_owned())];
    let stage = Stage::set(Staging { credentials, ..Staging::default() }).await;
    let mut open = tunnels(&stage).await;
    let fields = [("token".to_owned(), Secret::new(second.into()))];
    stage.app().vault.rotate(&wire::key("acme", "crm"), fields.into()).await.unwrap();
    for connection in &mut open {
        for attempt in 0.. {
            let request = asks(connection, "GET", "/echo");
            let answer = connection.call(request).await;
            assert_eq!(answer.status, 200);
            if answer.headers["x-provider-tenant"] == "acme-rotated" {
                break;
            }
            assert!(attempt < 1000, "the old secret is still used");
        }
    }
    let used: std::collections::BTreeSet<String> = actions(&stage, stage.provider.requests().len())
        .await
        .iter()
        .map(|event| event["generation"].to_string())
        .collect();
    assert!(used.contains("2"), "{used:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_of_one_account_touches_no_other() {
    let stage = Stage::open().await;
    stage.app().vault.freeze(&wire::key("acme", "crm"), "ops").await.unwrap();
    becomes(&stage, 403, "account_frozen").await;
    let answer = stage.get("globex", "researcher", "http://api.crm.test/echo").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_forbids_an_account_ends_its_open_streams() {
    for forbid in ["freeze", "revoke", "remove"] {
        let stage = Stage::open().await;
        let mut streams = Vec::new();
        for alpn in ALPNS {
            let mut tunnel = stage.tunnel(HOST, alpn).await;
            let answer = tunnel.send(asks(&tunnel, "GET", "/stream/9/paced")).await.unwrap();
            streams.push((alpn, answer, tunnel));
        }
        let (vault, key) = (&stage.app().vault, wire::key("acme", "crm"));
        match forbid {
            "freeze" => drop(vault.freeze(&key, "ops").await.unwrap()),
            "revoke" => drop(vault.revoke(&key).await.unwrap()),
            _ => vault.remove(&key).await.unwrap(),
        }
        for (alpn, answer, _tunnel) in streams {
            assert!(
                soon(answer.collect()).await.is_err(),
                "{forbid} {alpn}: it is broken off, not ended well"
            );
        }
        for event in actions(&stage, 2).await {
            assert_eq!(
                (&event["decision"], &event["error"], &event["status"]),
                (&"allow".into(), &"account_frozen".into(), &200.into()),
                "{forbid}: {event}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_ends_open_websockets() {
    let stage = Stage::open().await;
    let mut sockets = Vec::new();
    for alpn in ALPNS {
        let mut socket = websocket(&stage, alpn, &[]).await;
        futures_util::SinkExt::send(&mut socket, Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        sockets.push((alpn, socket));
    }
    stage.app().vault.freeze(&wire::key("acme", "crm"), "ops").await.unwrap();
    for (alpn, mut socket) in sockets {
        assert!(matches!(soon(socket.next()).await, Some(Err(_)) | None), "{alpn}");
    }
    for event in actions(&stage, 2).await {
        assert_eq!((&event["status"], &event["error"]), (&101.into(), &"account_frozen".into()), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_leaves_open_streams_alone() {
    let stage = Stage::open().await;
    let mut tunnel = stage.tunnel(HOST, "h2").await;
    let mut answer = tunnel.send(asks(&tunnel, "GET", "/stream/2/paced")).await.unwrap();
    let fields = [("token".to_owned(), Secret::new(b"kb-canary-acme-third-55aa".to_vec()))];
    stage.app().vault.rotate(&wire::key("acme", "crm"), fields.into()).await.unwrap();
    becomes(&stage, 401, "").await; // the provider does not know the new one
    for number in 0..2 {
        stage.provider.pace().step();
        assert_eq!(
            answer.frame().await.unwrap().unwrap().into_data().unwrap(),
            format!("data: event {number}\n\n")
        );
    }
    assert!(answer.collect().await.unwrap().to_bytes().is_empty());
}
