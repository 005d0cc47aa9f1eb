//! `egress.tunnel`: passed through as it is, without a credential, on record.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::stage::{HOST, Stage, Staging};

const PIPE: &str = "files.pipe.test";

async fn stage() -> Stage {
    let names = [HOST, PIPE, "pipe.test", "api.pipe.test"].map(str::to_owned).to_vec();
    // These lines go on with the section `egress`.
    let config = "  tunnel: [\"*.pipe.test\", \"api.crm.test\", \"odd.test:8443\"]\n".to_owned();
    Stage::set(Staging { config, names, ..Staging::default() }).await
}

/// TLS that trusts the provider's own authority and not the proxy's.
async fn through(stage: &Stage, request: &str) -> String {
    let stream = stage.connected("files.pipe.test:443", "").await;
    let roots = stage.authority.roots();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut tls = connector.connect(PIPE.try_into().unwrap(), stream).await.unwrap();
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_host_is_the_providers_own_end_to_end() {
    let stage = stage().await;
    let head = format!("GET /echo HTTP/1.1\r\nHost: {PIPE}\r\nConnection: close\r\n");
    let answer = through(&stage, &format!("{head}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("keybearer"), "{answer}");
    let answer =
        through(&stage, &format!("{head}Authorization: Bearer my-own\r\nAgent-Identity: x\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let seen = stage.provider.requests();
    assert!(!seen[0].headers.contains_key("authorization"));
    assert_eq!(seen[1].headers["authorization"], "Bearer my-own");
    assert_eq!(seen[1].headers["agent-identity"], "x");
    while stage.actions().await.len() < 2 {
        tokio::task::yield_now().await;
    }
    for event in stage.actions().await {
        assert_eq!((&event["method"], &event["host"]), (&"CONNECT".into(), &PIPE.into()));
        assert_eq!((&event["decision"], &event["rule"]), (&"allow".into(), &"egress.tunnel".into()));
        assert!(
            event["bytes_in"].as_u64().unwrap() > 200 && event["bytes_out"].as_u64().unwrap() > 500,
            "{event}"
        );
        assert!(event.get("account").is_none() && event.get("tenant").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opened_it_is_on_record_where_it_was_said() {
    let stage = stage().await;
    let identity = "Proxy-Authorization: Basic YWNtZS9yZXNlYXJjaGVyOng=\r\n";
    drop(stage.connected("files.pipe.test:443", identity).await);
    while stage.actions().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let event = stage.last_action().await;
    assert_eq!((&event["tenant"], &event["role"]), (&"acme".into(), &"researcher".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_listed_host_and_port_is_passed_through() {
    let stage = stage().await;
    // What a connector describes is never passed through, listed or not; and a tunnel is no way around TLS's port.
    for (connect, sni) in [
        ("api.crm.test:443", HOST),
        ("pipe.test:443", "pipe.test"),
        ("a.files.pipe.test:443", "a.files.pipe.test"),
        ("files.pipe.test:22", PIPE),
        ("odd.test:443", "odd.test"),
    ] {
        let stream = stage.connected(connect, "").await;
        // The handshake succeeds with the proxy's CA alone: it is the proxy that ends it.
        drop(stage.tls(stream, sni, &["h2"]).await);
    }
    let answer = stage.get("acme", "researcher", "http://files.pipe.test/echo").await;
    assert_eq!(answer.error().as_deref(), Some("destination_denied"));
    assert_eq!(stage.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_named_is_held_to_it() {
    let config =
        "  tunnel: [\"*.pipe.test\"]\nidentity: {mode: open, default: {tenant: acme, role: researcher}}\n";
    let staging = Staging { config: config.to_owned(), names: vec![PIPE.to_owned()], ..Staging::default() };
    let stage = Stage::set(staging).await;
    let connect = async |identity: &str| {
        let (status, head, _) = stage.connect("files.pipe.test:443", identity).await;
        (status, head)
    };
    let (status, head) = connect("").await;
    assert!(status == 200 && head.contains("keybearer-action: "), "{head}");
    while stage.actions().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let event = stage.last_action().await;
    assert_eq!((&event["tenant"], &event["role"]), (&"acme".into(), &"researcher".into()), "the default");
    assert_eq!(event["policy_revision"].as_str().unwrap().len(), 12);

    assert_eq!(connect("Agent-Identity: tenant=acme, role=researcher, chain=run-7\r\n").await.0, 200);
    let (status, head) = connect("Agent-Identity: tenant=globex, role=researcher, chain=run-7\r\n").await;
    assert!(status == 409 && head.contains("details=\"identity_drift\""), "{head}");
    let (status, head) = connect("Agent-Identity: tenant=acme, role=nobody\r\n").await;
    assert!(status == 403 && head.contains("details=\"policy_denied\""), "{head}");
}
