//! `Expect: 100-continue` (RFC 9110 §10.1.1): a body is asked for when there is a provider to take it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    raw::message,
    stage::{HOST, Stage, Staging},
};

async fn asked(
    stage: &Stage,
    line: &str,
    role: &str,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let stream = stage.connected("api.crm.test:443", "").await;
    let mut tls = stage.tls(stream, HOST, &["http/1.1"]).await;
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {HOST}\r\nAgent-Identity: tenant=acme, role={role}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    tls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_expected_is_asked_for_before_it_is_sent() {
    let stage = Stage::open().await;
    let mut tls = asked(&stage, "PUT /upload", "researcher").await;
    let interim = String::from_utf8(message(&mut tls).await.unwrap()).unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 Continue\r\n"), "{interim}");
    tls.write_all(b"abc").await.unwrap();
    let answer = String::from_utf8(message(&mut tls).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"len\":3"), "{answer}");
    assert!(!stage.provider.requests()[0].headers.contains_key("expect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_answered_without_asking_for_its_body() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Staging { resolve: vec![(HOST.to_owned(), closed)], ..Staging::default() };
    for (stage, line, role, status) in [
        (Stage::open().await, "PATCH /echo", "researcher", "403"),
        (Stage::open().await, "PUT /nowhere", "researcher", "403"),
        (Stage::open().await, "PUT /up%2fload", "researcher", "400"),
        (Stage::set(gone).await, "PUT /upload", "researcher", "502"),
    ] {
        let mut tls = asked(&stage, line, role).await;
        let answer = String::from_utf8(message(&mut tls).await.unwrap()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        // The body was never read, so nothing after it could be told from it: the connection ends.
        let mut rest = Vec::new();
        let _end = tls.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
        assert_eq!(stage.provider.requests().len(), 0);
    }
}
