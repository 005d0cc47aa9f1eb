//! A listener over real TLS, h1 or h2 by ALPN: what every server of the tests stands on.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keybearer::drain::Drain;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

/// The connection a request came by. One upstream connection must never carry two tenants, so tests count these.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) connection: u64,
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<String>,
}

/// What answers requests. An error of its cuts the connection without an answer.
pub(crate) trait Answers:
    Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error: Into<Box<dyn Error + Send + Sync>>,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Answers for S where
    S: Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error: Into<Box<dyn Error + Send + Sync>>,
            Future: Send,
        > + Clone
        + Send
        + 'static
{
}

pub(crate) fn acceptor(
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    alpn: Vec<Vec<u8>>,
) -> TlsAcceptor {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn;
    TlsAcceptor::from(Arc::new(config))
}

/// Serves every connection in a task of its own. Without an acceptor it speaks HTTP/1.1 in the clear.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    drain: Drain,
    service: impl Answers,
) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        drain.spawn(greet(socket, tls.clone(), connection, service.clone()));
    }
}

/// A failed handshake ends here: whether there should be one is the test's to say, from the client's side.
async fn greet(socket: TcpStream, tls: Option<TlsAcceptor>, connection: u64, service: impl Answers) {
    let Some(tls) = tls else {
        return serve(socket, Peer { connection, sni: None, alpn: None }, service).await;
    };
    let Ok(stream) = tls.accept(socket).await else { return };
    let session = stream.get_ref().1;
    let sni = session.server_name().map(str::to_owned);
    let alpn = session.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
    serve(stream, Peer { connection, sni, alpn }, service).await;
}

async fn serve<S>(stream: S, peer: Peer, service: impl Answers)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let h2 = peer.alpn.as_deref() == Some("h2");
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().call(request)
    });
    let io = TokioIo::new(stream);
    let _ = if h2 {
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).enable_connect_protocol().serve_connection(io, service).await
    } else {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        http.serve_connection(io, service).with_upgrades().await
    };
}
