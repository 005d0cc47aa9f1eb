//! The HTTPS provider behind every proxy: a small and a large answer, h1 and h2, for the right credential only.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use bytes::Bytes;
use http::{Response, StatusCode, header::AUTHORIZATION};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    certs::Certs,
    sections::{CREDENTIAL, Item},
    wire::{self, Buffer},
};

/// The two addresses of a running provider; it ends when this is dropped.
pub(crate) struct Provider {
    /// Speaks HTTP/1.1 only.
    pub(crate) h1: SocketAddr,
    /// Speaks h2, and HTTP/1.1 to those who cannot.
    pub(crate) h2: SocketAddr,
    _listeners: JoinSet<()>,
}

impl Provider {
    pub(crate) async fn start(certs: &Certs) -> Result<Self> {
        let mut listeners = JoinSet::new();
        let h1 = TcpListener::bind("127.0.0.1:0").await?;
        let h2 = TcpListener::bind("127.0.0.1:0").await?;
        let provider = (h1.local_addr()?, h2.local_addr()?);
        let answers = Arc::new(Answers::new());
        listeners.spawn(accept(h1, certs.server(&[b"http/1.1"])?, Arc::clone(&answers)));
        listeners.spawn(accept(h2, certs.server(&[b"h2", b"http/1.1"])?, answers));
        Ok(Self { h1: provider.0, h2: provider.1, _listeners: listeners })
    }
}

/// Bodies, and whole h1 answers ready to write.
struct Answers {
    bodies: [Bytes; 2],
    whole: [Bytes; 2],
    refusal: Bytes,
}

impl Answers {
    fn new() -> Self {
        let bodies = [Item::Small, Item::Large].map(|item| Bytes::from(vec![b'x'; item.length()]));
        let whole = bodies.clone().map(|body| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            answer.extend_from_slice(&body);
            Bytes::from(answer)
        });
        let refusal = Bytes::from_static(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        Self { bodies, whole, refusal }
    }
}

/// Which answer, or none for a request that lacks the credential.
fn choose(path: &str, authorization: Option<&str>) -> Option<usize> {
    let permitted = authorization.and_then(|value| value.strip_prefix("Bearer ")) == Some(CREDENTIAL);
    permitted.then(|| usize::from(path.ends_with(Item::Large.name())))
}

async fn accept(listener: TcpListener, tls: Arc<ServerConfig>, answers: Arc<Answers>) {
    let tls = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(connection(stream, tls.clone(), Arc::clone(&answers)));
        while connections.try_join_next().is_some() {}
    }
}

/// A connection that fails has simply ended: what was lost shows as an error in the load generator.
async fn connection(stream: TcpStream, tls: TlsAcceptor, answers: Arc<Answers>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(stream) = tls.accept(stream).await else { return };
    let _ended = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        h2(stream, &answers).await
    } else {
        h1(stream, &answers).await
    };
}

async fn h1<S>(mut stream: S, answers: &Answers) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = Buffer::new();
    while let Some(head) = buffer.head(&mut stream).await? {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let path = std::str::from_utf8(line)?.split(' ').nth(1).unwrap_or_default();
        let answer = match choose(path, wire::header(head, "authorization")) {
            Some(which) => &answers.whole[which],
            None => &answers.refusal,
        };
        stream.write_all(answer).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn h2<S>(stream: S, answers: &Answers) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .max_concurrent_streams(1024)
        .max_send_buffer_size(4 << 20)
        .handshake(stream)
        .await?;
    while let Some(asked) = connection.accept().await {
        let (request, mut respond) = asked?;
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(which) = choose(request.uri().path(), authorization) else {
            let refusal = Response::builder().status(StatusCode::UNAUTHORIZED).body(())?;
            respond.send_response(refusal, true)?;
            continue;
        };
        let body = answers.bodies[which].clone();
        let head = Response::builder().header("content-length", body.len()).body(())?;
        // The library queues what the peer's window does not yet allow; nothing here waits for capacity.
        respond.send_response(head, false)?.send_data(body, true)?;
    }
    Ok(())
}
