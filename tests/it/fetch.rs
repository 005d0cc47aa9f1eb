//! `fetch::get` against servers that misbehave.

use std::{sync::Arc, time::Duration};

use keybearer::{
    drain::Drain,
    fetch::{self, Error, Unanswered},
    host::Host,
    tls::{Alpn, Authority, Downstream, Leaves, Metrics, Roots, upstream_config},
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

const LONG: Duration = Duration::from_secs(20);

/// An HTTPS server that answers every request with the same bytes, and tells what it was asked.
struct Server {
    port: u16,
    asked: mpsc::UnboundedReceiver<String>,
    client: Arc<ClientConfig>,
}

impl Server {
    async fn answering(answer: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(Some(dir.path())).unwrap());
        let roots = Roots::File(dir.path().join("ca.pem")).load().unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let downstream = Downstream::new(Arc::new(Leaves::new(authority, 8, &metrics))).unwrap();
        let acceptor = TlsAcceptor::from(downstream.config_for(&Host::parse("127.0.0.1").unwrap()));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = mpsc::unbounded_channel();
        let answer = answer.to_owned();
        Drain::default().spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut request = vec![0; 4096];
                let n = tls.read(&mut request).await.unwrap();
                tell.send(String::from_utf8_lossy(&request[..n]).into_owned()).unwrap();
                tls.write_all(answer.as_bytes()).await.unwrap();
                tls.flush().await.unwrap();
                let _until_the_client_goes = tls.read(&mut request).await;
            }
        });
        Self { port, asked, client: Arc::new(upstream_config(&roots, Alpn::Any)) }
    }

    async fn get(&self, limit_bytes: usize, limit: Duration) -> Result<Vec<u8>, Error> {
        let url = format!("https://127.0.0.1:{}/keys?v=1", self.port);
        fetch::get(&url, &self.client, limit_bytes, limit).await
    }
}

#[tokio::test]
async fn the_body_of_a_200_is_given() {
    let mut server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nkeys").await;
    assert_eq!(server.get(4, LONG).await.unwrap(), b"keys", "of just the limit");
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", server.port)), "{asked}");
}

#[tokio::test]
async fn a_body_without_length_ends_with_the_chunks() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nke\r\n2\r\nys\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(server.get(4, LONG).await.unwrap(), b"keys");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nke\r\n2\r\nys\r\n",
    ] {
        let server = Server::answering(answer).await;
        assert!(
            matches!(server.get(3, LONG).await, Err(Error::Unanswered(Unanswered::TooLong { limit: 3, .. }))),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_answer() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nkeys").await;
    assert!(matches!(server.get(9, Duration::from_millis(150)).await, Err(Error::Timeout(_))));
    let server = Server::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await;
    assert!(matches!(server.get(9, LONG).await, Err(Error::Unanswered(Unanswered::Broken(_)))));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut server =
        Server::answering("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").await;
    assert!(matches!(server.get(99, LONG).await, Err(Error::Redirect(status)) if status == 302));
    server.asked.recv().await.unwrap();
    assert!(server.asked.try_recv().is_err(), "asked once only");
}

#[tokio::test]
async fn a_status_other_than_200_is_refused() {
    for status in [201_u16, 204, 404, 500] {
        let server = Server::answering(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")).await;
        assert!(matches!(server.get(99, LONG).await, Err(Error::Status(got)) if got == status));
    }
}

#[tokio::test]
async fn a_slow_answer_times_out() {
    let server = Server::answering("").await;
    let limit = Duration::from_millis(150);
    assert!(matches!(server.get(99, limit).await, Err(Error::Timeout(said)) if said == limit));
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_for_another_name_is_refused_before_anything_is_asked() {
    let mut server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let stranger = Arc::new(upstream_config(&Roots::Webpki.load().unwrap(), Alpn::H1));
    let url = format!("https://127.0.0.1:{}/", server.port);
    assert!(matches!(fetch::get(&url, &stranger, 9, LONG).await, Err(Error::Tls(_))));
    let other_name = format!("https://localhost:{}/", server.port);
    assert!(matches!(fetch::get(&other_name, &server.client, 9, LONG).await, Err(Error::Tls(_))));
    assert!(server.asked.try_recv().is_err());
}

#[tokio::test]
async fn nobody_listening_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    drop(listener);
    let client = Arc::new(upstream_config(&Roots::Webpki.load().unwrap(), Alpn::H1));
    assert!(matches!(fetch::get(&url, &client, 9, LONG).await, Err(Error::Connect(_))));
}

#[tokio::test]
async fn cleartext_to_loopback_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    Drain::default().spawn(async move {
        let (mut tcp, _) = listener.accept().await?;
        tcp.read_exact(&mut [0; 16]).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    });
    let client = Arc::new(upstream_config(&Roots::Webpki.load().unwrap(), Alpn::H1));
    assert_eq!(fetch::get(&url, &client, 9, LONG).await.unwrap(), b"ok");
}
