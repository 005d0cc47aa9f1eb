//! Absolute-form, connector names, HTTP/2 without TLS, plain HTTP in a tunnel, and what the proxy answers itself.

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keybearer::drain::Drain;
use keybearer::id::Principal;
use tokio::net::TcpStream;

use super::{empty, request};
use crate::support::{
    agent::{Answer, Body, Connection, Tunnel, absolute, identity, inside},
    stage::{HOST, POLICY, Stage, Staging, account},
};

/// HTTP/2 from the first byte (RFC 9113 §3.3).
pub(super) async fn prior_knowledge(stage: &Stage) -> Connection {
    let stream = TcpStream::connect(stage.proxy()).await.unwrap();
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    Drain::default().spawn(connection);
    Connection::Two(sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_leads_to_tls_whatever_its_scheme() {
    let stage = Stage::open().await;
    for url in [
        "http://api.crm.test/echo",
        "https://api.crm.test/echo",
        "https://api.crm.test:443/echo",
        "http://api.crm.test:443/echo",
    ] {
        let answer = stage.get("acme", "researcher", url).await;
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
        let seen = stage.provider.requests().pop().unwrap();
        assert_eq!((seen.peer.sni.as_deref(), seen.authority.as_deref()), (Some(HOST), Some(HOST)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_needs_no_upgrade_on_the_proxys_port() {
    let stage = Stage::open().await;
    let mut agent = prior_knowledge(&stage).await;
    for url in ["http://api.crm.test/echo", "https://api.crm.test/echo"] {
        let asked = http::Request::get(url).header("agent-identity", identity("acme", "researcher"));
        assert_eq!(agent.call(asked.body(Body::default()).unwrap()).await.status, 200, "{url}");
    }
    let anonymous = http::Request::get("http://api.crm.test/echo").body(Body::default()).unwrap();
    assert_eq!(agent.call(anonymous).await.status, 407);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_in_http2_opens_a_tunnel_too() {
    let stage = Stage::open().await;
    let mut agent = prior_knowledge(&stage).await;
    let asked =
        http::Request::connect("api.crm.test:443").header("agent-identity", identity("acme", "researcher"));
    let response = agent.send(asked.body(Body::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(io)).await.unwrap();
    Drain::default().spawn(connection);
    let asked = http::Request::get("/echo").header("host", HOST).body(Body::default()).unwrap();
    let answer = Answer::read(sender.send_request(asked).await.unwrap()).await;
    assert_eq!(answer.headers["x-provider-tenant"], "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_in_a_tunnel_to_443_goes_out_by_tls() {
    let stage = Stage::open().await;
    let stream = stage.connected("api.crm.test:443", "").await;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    Drain::default().spawn(connection);
    let mut agent = Connection::One(sender);
    let answer = agent.call(empty(request(&agent, "GET", "/echo"))).await;
    assert_eq!(answer.headers["x-provider-tenant"], "acme");
    assert_eq!(stage.provider.requests()[0].peer.sni.as_deref(), Some(HOST));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_may_be_entered_without_a_server_name() {
    let stage = Stage::open().await;
    let roots = {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(stage.app().ca_pem.as_bytes()).unwrap()).unwrap();
        roots
    };
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = false;
    let stream = stage.connected("api.crm.test:443", "").await;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tls = connector.connect(HOST.try_into().unwrap(), stream).await.unwrap();
    let mut agent = crate::support::agent::http_over(tls).await;
    assert_eq!(agent.call(empty(request(&agent, "GET", "/echo"))).await.status, 200);
}

/// A connector whose host has the account's instance in it.
async fn fleet() -> Stage {
    let policy = POLICY.replace("hosts: [\"api.crm.test\"]", "hosts: [\"{instance}.fleet.test\"]");
    let mut mine = account("acme", "crm", Principal::Tenant, "kb-canary-fleet-77b0c2a914");
    mine.metadata.insert("instance".to_owned(), "na47".to_owned());
    let without = account("globex", "crm", Principal::Tenant, "kb-canary-nowhere-1d3f5b7a");
    let names = ["na47.fleet.test", "eu1.fleet.test"].map(str::to_owned).to_vec();
    let credentials = vec![("kb-canary-fleet-77b0c2a914".to_owned(), "acme".to_owned())];
    let staging = Staging {
        policies: vec![("policy.yaml", policy)],
        accounts: vec![mine, without],
        names,
        credentials,
        ..Staging::default()
    };
    Stage::set(staging).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connectors_name_leads_to_the_accounts_own_host() {
    let stage = fleet().await;
    let name = "crm.connector.internal";
    let mut answers = Vec::new();
    for url in
        [format!("http://{name}/echo"), format!("https://{name}/echo"), format!("http://{name}:80/echo")]
    {
        answers.push(stage.get("acme", "researcher", &url).await);
    }
    for alpn in ["http/1.1", "h2"] {
        let mut agent = stage.tunnel(name, alpn).await;
        let asked =
            inside(&agent, "GET", name, "/echo").header("agent-identity", identity("acme", "researcher"));
        answers.push(agent.call(asked.body(Body::default()).unwrap()).await);
    }
    for answer in answers {
        assert_eq!(answer.headers["x-provider-tenant"], "acme", "{}", answer.text());
        let event = stage.action(answer.headers["keybearer-action"].to_str().unwrap()).await;
        assert_eq!(event["connector"], "crm");
    }
    for seen in stage.provider.requests() {
        assert_eq!(
            (seen.peer.sni.as_deref(), seen.authority.as_deref()),
            (Some("na47.fleet.test"), Some("na47.fleet.test"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_used_for_its_own_instance_only() {
    let stage = fleet().await;
    let own = stage.get("acme", "researcher", "http://NA47.fleet.test/echo").await;
    assert_eq!(own.status, 200, "{}", own.text());
    for (tenant, url) in [
        ("acme", "http://eu1.fleet.test/echo"),
        ("acme", "http://x.na47.fleet.test/echo"),
        ("globex", "http://na47.fleet.test/echo"),
        ("globex", "http://crm.connector.internal/echo"),
        ("acme", "http://other.connector.internal/echo"),
    ] {
        let answer = stage.get(tenant, "researcher", url).await;
        assert_eq!(answer.error().as_deref(), Some("destination_denied"), "{tenant} {url}");
        assert_eq!(answer.json()["why"], "no_connector");
    }
    assert_eq!(stage.provider.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_had_without_an_identity_and_is_the_one_that_signs() {
    let stage = Stage::open().await;
    let mut agent = stage.direct().await;
    let answer =
        agent.call(absolute("GET", "http://keybearer.internal/ca.pem").body(Body::default()).unwrap()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), stage.app().ca_pem);
    let tunnel =
        Tunnel { connect: "keybearer.internal:443", sni: "keybearer.internal", alpn: &["h2"], headers: "" };
    let mut agent = stage.tunnel_with(tunnel).await;
    let asked = inside(&agent, "GET", "keybearer.internal", "/ca.pem").body(Body::default()).unwrap();
    assert_eq!(agent.call(asked).await.text(), stage.app().ca_pem);
    for (method, path) in [("POST", "/ca.pem"), ("GET", "/"), ("GET", "/ca.key")] {
        let answer =
            stage.ask(method, "acme", "researcher", &format!("http://keybearer.internal{path}")).await;
        assert_eq!(answer.error().as_deref(), Some("operation_unknown"), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timing_is_told_to_who_asks() {
    let stage = Stage::open().await;
    for (asks, told) in [(None, false), (Some("?1"), true), (Some("?0"), false), (Some("1"), false)] {
        let mut asked = absolute("GET", "http://api.crm.test/echo")
            .header("agent-identity", identity("acme", "researcher"));
        if let Some(value) = asks {
            asked = asked.header("keybearer-timing", value);
        }
        let answer = stage.direct().await.call(asked.body(Body::default()).unwrap()).await;
        let timing = answer.headers.get("server-timing").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(timing.is_some(), told, "{asks:?} {timing:?}");
        assert!(
            timing.is_none_or(|text| text.starts_with("keybearer;dur=") && text.contains(", upstream;dur="))
        );
        assert!(!stage.provider.requests().pop().unwrap().headers.contains_key("keybearer-timing"));
    }
}
