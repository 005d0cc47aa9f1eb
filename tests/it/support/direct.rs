//! A client without a proxy, in the HTTP version that ALPN gives it.

use std::{io, net::SocketAddr, sync::Arc};

use axum::body::Body;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keybearer::drain::Drain;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::provider::TestAuthority;

/// One connection to a server of the tests.
pub(crate) struct Direct {
    http: Http,
    name: String,
    credential: Option<String>,
    /// Owns the connection's task.
    _drain: Drain,
}

enum Http {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Direct {
    /// Connects by TLS as to `name`, offering the protocols, and speaks the one agreed on.
    pub(crate) async fn connect(
        address: SocketAddr,
        authority: &TestAuthority,
        name: &str,
        offer: &[&str],
    ) -> io::Result<Self> {
        let stream = tls(address, authority, name, offer).await?;
        let drain = Drain::default();
        let http = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder
                .timer(TokioTimer::new())
                .handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            drain.spawn(connection);
            Http::Two(sender)
        } else {
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            drain.spawn(connection.with_upgrades());
            Http::One(sender)
        };
        Ok(Self { http, name: name.to_owned(), credential: None, _drain: drain })
    }

    /// Sends the secret as a bearer token from now on.
    pub(crate) fn bearer(mut self, secret: &str) -> Self {
        self.credential = Some(format!("Bearer {secret}"));
        self
    }

    /// Sends a request whose URI is a path; name and credential are added.
    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        if let Some(credential) = &self.credential {
            request.headers_mut().insert(header::AUTHORIZATION, credential.parse().unwrap());
        }
        match &mut self.http {
            Http::One(sender) => {
                request.headers_mut().insert(header::HOST, self.name.parse().unwrap());
                sender.ready().await?;
                sender.send_request(request).await
            }
            Http::Two(sender) => {
                *request.uri_mut() = format!("https://{}{}", self.name, request.uri()).parse().unwrap();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A POST and the whole of its answer as text.
    pub(crate) async fn post(&mut self, path: &str, content_type: &str, body: impl Into<Body>) -> String {
        let request =
            Request::post(path).header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
        text(self.send(request).await.unwrap()).await
    }
}

/// The bare TLS connection, for tests that write their own bytes.
pub(crate) async fn tls(
    address: SocketAddr,
    authority: &TestAuthority,
    name: &str,
    offer: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(authority.roots()).with_no_client_auth();
    config.alpn_protocols = offer.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

pub(crate) async fn text(answer: Response<Incoming>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
