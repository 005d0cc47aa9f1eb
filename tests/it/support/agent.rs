//! An agent that speaks HTTP by hand, so that a test decides every name and header that it sends.

use keybearer::drain::Drain;
use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{evidence, stage::Stage};

pub(crate) type Body = Full<Bytes>;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<http::HeaderMap>,
}

impl Answer {
    /// Collects an answer.
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        let head = format!("{:?}\n", parts.headers);
        let body = collected.to_bytes();
        evidence::keep("answer", &[head.as_bytes(), &body].concat());
        Self { status: parts.status, headers: parts.headers, body, trailers }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The refusal's code; `None` for the provider's own answers.
    pub(crate) fn error(&self) -> Option<String> {
        let ours = self.headers.get("proxy-status")?.to_str().unwrap().starts_with("keybearer;");
        (ours && self.headers[header::CONTENT_TYPE] == "application/problem+json")
            .then(|| self.json()["error"].as_str().unwrap().to_owned())
    }
}

/// Who asks, as a header value.
pub(crate) fn identity(tenant: &str, role: &str) -> String {
    format!("tenant=\"{tenant}\", role=\"{role}\"")
}

/// An HTTP connection, of either version, whose requests have bodies of one kind.
pub(crate) enum Connection<B = Body> {
    One(http1::SendRequest<B>),
    Two(http2::SendRequest<B>),
}

impl<B> Connection<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    /// Sends a request as it is.
    pub(crate) async fn send(&mut self, request: Request<B>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&mut self, request: Request<B>) -> Answer {
        Answer::read(self.send(request).await.unwrap()).await
    }
}

/// What a tunnel is opened with.
pub(crate) struct Tunnel<'a> {
    /// The CONNECT request's authority.
    pub(crate) connect: &'a str,
    /// The server name of the handshake.
    pub(crate) sni: &'a str,
    pub(crate) alpn: &'a [&'a str],
    /// More lines of the CONNECT request.
    pub(crate) headers: &'a str,
}

impl Stage {
    /// A connection that sends absolute-form requests.
    pub(crate) async fn direct(&self) -> Connection {
        let stream = TcpStream::connect(self.proxy()).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Drain::default().spawn(connection.with_upgrades());
        Connection::One(sender)
    }

    /// An absolute-form GET as tenant and role.
    pub(crate) async fn get(&self, tenant: &str, role: &str, url: &str) -> Answer {
        self.ask("GET", tenant, role, url).await
    }

    /// An absolute-form request without a body, as tenant and role.
    pub(crate) async fn ask(&self, method: &str, tenant: &str, role: &str, url: &str) -> Answer {
        let request = absolute(method, url).header("agent-identity", identity(tenant, role));
        self.direct().await.call(request.body(Body::default()).unwrap()).await
    }

    /// A tunnel to `host:443`, HTTP/1.1 or HTTP/2 inside.
    pub(crate) async fn tunnel(&self, host: &str, alpn: &str) -> Connection {
        let connect = format!("{host}:443");
        self.tunnel_with(Tunnel { connect: &connect, sni: host, alpn: &[alpn], headers: "" }).await
    }

    /// A tunnel whose every name the test chooses.
    pub(crate) async fn tunnel_with(&self, tunnel: Tunnel<'_>) -> Connection {
        let tls =
            self.tls(self.connected(tunnel.connect, tunnel.headers).await, tunnel.sni, tunnel.alpn).await;
        http_over(tls).await
    }

    /// A CONNECT that was answered 200.
    pub(crate) async fn connected(&self, authority: &str, headers: &str) -> TcpStream {
        let (status, _, stream) = self.connect(authority, headers).await;
        assert_eq!(status, 200);
        stream
    }

    /// A CONNECT: its status, the answer's head, and the connection.
    pub(crate) async fn connect(&self, authority: &str, headers: &str) -> (u16, String, TcpStream) {
        let mut stream = TcpStream::connect(self.proxy()).await.unwrap();
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer, stream)
    }

    /// TLS over a connection, trusting the proxy's CA and nobody else.
    pub(crate) async fn tls(&self, stream: TcpStream, sni: &str, alpn: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.app().ca_pem.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

/// HTTP in the version that ALPN agreed on.
pub(crate) async fn http_over<B>(tls: TlsStream<TcpStream>) -> Connection<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) =
            builder.timer(TokioTimer::new()).handshake(TokioIo::new(tls)).await.unwrap();
        Drain::default().spawn(connection);
        Connection::Two(sender)
    } else {
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        Drain::default().spawn(connection.with_upgrades());
        Connection::One(sender)
    }
}

/// A request in absolute form, with the `Host` that belongs to it.
pub(crate) fn absolute(method: &str, url: &str) -> http::request::Builder {
    let uri: Uri = url.parse().unwrap();
    let host = uri.authority().unwrap().as_str().rsplit('@').next().unwrap().to_owned();
    Request::builder().method(method).uri(uri).header("host", host)
}

/// A request as it stands inside a tunnel: origin form with `Host` for HTTP/1.1, the whole URL for HTTP/2.
pub(crate) fn inside<B>(
    connection: &Connection<B>,
    method: &str,
    host: &str,
    path: &str,
) -> http::request::Builder {
    match connection {
        Connection::One(_) => Request::builder().method(method).uri(path).header("host", host),
        Connection::Two(_) => Request::builder().method(method).uri(format!("https://{host}{path}")),
    }
}
