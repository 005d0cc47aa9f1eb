//! How an answer ends: whole, by the end of its connection, or cut off.

use http_body_util::BodyExt as _;
use keybearer::drain::Drain;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{empty, request, tunnel};
use crate::support::{
    provider::{TestAuthority, Validity},
    raw::{Raw, Script, message},
    server,
    stage::{HOST, POLICY, Stage, Staging},
};

const AGENTS: [&str; 2] = ["http/1.1", "h2"];

/// A stage whose provider does what the script says.
async fn before(script: Script) -> Stage {
    let raw = Raw::start(script).await;
    let cleartext = "spec:\n  cleartext: true\n  hosts: [\"api.crm.test:443\"]";
    let policy = POLICY.replace("spec:\n  hosts: [\"api.crm.test\"]", cleartext);
    Stage::set(Staging {
        policies: vec![("policy.yaml", policy)],
        resolve: vec![(HOST.to_owned(), raw.address())],
        ..Staging::default()
    })
    .await
}

/// Answers each connection's first request and ends TLS as Python's `http.server` does: not at all.
async fn answers_and_goes(listener: TcpListener, tls: TlsAcceptor) {
    while let Ok((socket, _)) = listener.accept().await {
        let mut stream = tls.accept(socket).await.unwrap();
        message(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\nx-a: 1\r\n\r\nall of it").await.unwrap();
        stream.flush().await.unwrap();
        let (socket, _): (TcpStream, _) = stream.into_inner();
        drop(socket);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_length_ends_with_its_connection_however_tls_ends() {
    let authority = TestAuthority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let leaf = authority.leaf(&[HOST.to_owned()], Validity::default());
    let tls = server::acceptor(leaf, vec![b"http/1.1".to_vec()]);
    Drain::default().spawn(answers_and_goes(listener, tls));
    let resolve = vec![(HOST.to_owned(), address)];
    let stage = Stage::set(Staging { resolve, authority, ..Staging::default() }).await;
    for alpn in AGENTS {
        let mut agent = tunnel(&stage, alpn).await;
        let answer = agent.call(empty(request(&agent, "GET", "/echo"))).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "all of it"), "{alpn}");
        assert_eq!(answer.headers["x-a"], "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_of_the_proxys_own_version() {
    let stage = before(Script::AnswerAndClose("HTTP/1.0 200 OK\r\n\r\nbody")).await;
    let mut agent = tunnel(&stage, "http/1.1").await;
    let response = agent.send(empty(request(&agent, "GET", "/echo"))).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    // So that its end can be told from its being cut off.
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_an_answer_that_breaks_off_reaches_the_agent() {
    let stage = before(Script::AnswerAndClose("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n1234567")).await;
    for alpn in AGENTS {
        let asked = (0..40).map(async |_| {
            let mut agent = tunnel(&stage, alpn).await;
            let response = agent.send(empty(request(&agent, "GET", "/echo"))).await.unwrap();
            let id = response.headers()["keybearer-action"].to_str().unwrap().to_owned();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "1234567", "{alpn}");
            assert!(body.frame().await.unwrap().is_err());
            id
        });
        for id in futures_util::future::join_all(asked).await {
            let event = stage.action(&id).await;
            assert_eq!((&event["error"], &event["bytes_out"]), (&"upstream_unreachable".into(), &7.into()));
        }
    }
}
