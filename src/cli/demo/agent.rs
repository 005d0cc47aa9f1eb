//! An agent as any other: it knows the proxy's address and its own name, and no credential.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    drain::Drain,
    tls::{self, Alpn},
};

/// How a request reaches the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Way {
    /// A plain `http://` URL sent to the proxy, which speaks TLS to the provider.
    #[serde(rename = "absolute-form")]
    Absolute,
    /// A tunnel, and TLS in it by the proxy's CA.
    #[serde(rename = "CONNECT, TLS")]
    Connect,
}

impl Way {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Absolute => "absolute-form",
            Self::Connect => "CONNECT, TLS",
        }
    }

    pub(super) const fn scheme(self) -> &'static str {
        match self {
            Self::Absolute => "http",
            Self::Connect => "https",
        }
    }
}

/// One request of an agent.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Call {
    pub(super) tenant: &'static str,
    pub(super) role: &'static str,
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) path: &'static str,
    pub(super) way: Way,
    /// What the agent sends as `Authorization` although nobody asked it to.
    #[serde(skip)]
    pub(super) authorization: Option<&'static str>,
}

impl Call {
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", self.way.scheme(), self.host, self.path)
    }
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What agents of this demo know.
pub(super) struct Agents {
    proxy: SocketAddr,
    trust: Arc<ClientConfig>,
    drain: Drain,
}

impl Agents {
    /// Agents that are told the proxy's address and CA.
    pub(super) fn new(proxy: SocketAddr, ca_pem: &str, drain: &Drain) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(
            CertificateDer::from_pem_slice(ca_pem.as_bytes()).context("the proxy's CA cannot be read")?,
        )?;
        let trust = Arc::new(tls::upstream_config(&Arc::new(roots), Alpn::H1));
        Ok(Self { proxy, trust, drain: drain.clone() })
    }

    /// Makes the call and reads the whole answer.
    pub(super) async fn call(&self, call: &Call) -> anyhow::Result<Answer> {
        let socket = TcpStream::connect(self.proxy).await.context("the proxy takes no connection")?;
        socket.set_nodelay(true)?;
        match call.way {
            Way::Absolute => {
                let identity = format!("tenant=\"{}\", role=\"{}\"", call.tenant, call.role);
                let request = request(call, call.url().parse()?).header("agent-identity", identity);
                self.send(socket, request.body(Full::default())?).await
            }
            Way::Connect => {
                let tunnel = self.tunnel(socket, call).await?;
                let name = ServerName::try_from(call.host)?;
                let connector = TlsConnector::from(Arc::clone(&self.trust));
                let stream = connector
                    .connect(name, tunnel)
                    .await
                    .context("the proxy's certificate is not trusted")?;
                self.send(stream, request(call, call.path.parse()?).body(Full::default())?).await
            }
        }
    }

    /// A tunnel, asked for as every HTTP client does whose proxy URL has a user name: `tenant/role`.
    async fn tunnel(
        &self,
        socket: TcpStream,
        call: &Call,
    ) -> anyhow::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        self.drain.detach(async move {
            let _ = connection.with_upgrades().await; // the request tells what went wrong
        });
        let authority = format!("{}:443", call.host);
        let user = BASE64_STANDARD.encode(format!("{}/{}:x", call.tenant, call.role));
        let request = Request::connect(&authority)
            .header(header::HOST, &authority)
            .header(header::PROXY_AUTHORIZATION, format!("Basic {user}"))
            .body(Full::<Bytes>::default())?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            bail!("CONNECT was answered {}", response.status());
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    async fn send<S>(&self, stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.drain.detach(async move {
            let _ = connection.await; // the request tells what went wrong
        });
        let response: Response<Incoming> = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

fn request(call: &Call, uri: Uri) -> http::request::Builder {
    let method = Method::from_bytes(call.method.as_bytes()).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(uri).header(header::HOST, call.host);
    if let Some(authorization) = call.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request
}
