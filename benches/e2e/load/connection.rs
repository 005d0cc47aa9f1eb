//! One client's connection, whichever way it goes.

use anyhow::{Context as _, Result, bail, ensure};
use h2::client::SendRequest;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Load, Request};
use crate::{
    sections::Way,
    wire::{self, Buffer},
};

pub(super) enum Connection {
    Plain(H1<TcpStream>),
    Tls(Box<H1<TlsStream<TcpStream>>>),
    H2(H2),
}

impl Connection {
    pub(super) async fn open(load: &Load) -> Result<Self> {
        let mut stream = TcpStream::connect(load.proxy).await.context("connect")?;
        stream.set_nodelay(true)?;
        if load.way == Way::Absolute {
            return Ok(Self::Plain(H1 { stream, buffer: Buffer::new() }));
        }
        let host = load.way.host();
        connect(&mut stream, host).await.context("CONNECT")?;
        let tls = TlsConnector::from(load.tls.clone());
        let stream = tls.connect(ServerName::try_from(host)?, stream).await.context("TLS")?;
        if load.way != Way::TunnelH2 {
            return Ok(Self::Tls(Box::new(H1 { stream, buffer: Buffer::new() })));
        }
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "ALPN did not choose h2");
        Ok(Self::H2(H2::handshake(stream).await?))
    }

    /// Sends the request and reads the whole answer; anything but a 200 of the right length is an error.
    pub(super) async fn exchange(&mut self, request: &Request) -> Result<()> {
        match self {
            Self::Plain(h1) => h1.exchange(request).await,
            Self::Tls(h1) => h1.exchange(request).await,
            Self::H2(h2) => h2.exchange(request).await,
        }
    }

    /// Ends it as clients do: `close_notify`, FIN.
    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Plain(mut h1) => h1.stream.shutdown().await?,
            Self::Tls(mut h1) => h1.stream.shutdown().await?,
            Self::H2(_) => {}
        }
        Ok(())
    }
}

async fn connect(stream: &mut TcpStream, host: &str) -> Result<()> {
    let request = format!("CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Buffer::new();
    let head = buffer.head(stream).await?.context("the proxy hung up")?;
    match wire::status(head)? {
        200 => Ok(()),
        status => bail!("answered {status}"),
    }
}

pub(super) struct H1<S> {
    stream: S,
    buffer: Buffer,
}

impl<S> H1<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn exchange(&mut self, request: &Request) -> Result<()> {
        self.stream.write_all(&request.h1).await.context("send")?;
        self.stream.flush().await.context("send")?;
        let head = self.buffer.head(&mut self.stream).await.context("answer")?;
        let head = head.context("the connection ended before the answer")?;
        let (status, length) = (wire::status(head)?, wire::content_length(head)?);
        ensure!(status == 200 && length == request.length, "answered {status} with {length} bytes");
        Ok(self.buffer.skip(&mut self.stream, length).await?)
    }
}

pub(super) struct H2 {
    requests: SendRequest<bytes::Bytes>,
    _connection: JoinSet<()>,
}

impl H2 {
    async fn handshake(stream: TlsStream<TcpStream>) -> Result<Self> {
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 21)
            .initial_connection_window_size(1 << 24)
            .enable_push(false)
            .handshake(stream)
            .await
            .context("h2 preface")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its end shows in the request that waits for it.
            let _ended = connection.await;
        });
        Ok(Self { requests, _connection: tasks })
    }

    async fn exchange(&mut self, request: &Request) -> Result<()> {
        std::future::poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (answer, _) = self.requests.send_request(request.h2.clone(), true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut length = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            length += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
        }
        ensure!(
            head.status == 200 && length == request.length,
            "answered {} with {length} bytes",
            head.status
        );
        Ok(())
    }
}
