//! A real TLS provider on loopback: h1 and h2 by ALPN, real protocols, every request written down.
//!
//! | path | what it is |
//! |---|---|
//! | `/echo`, `/anything` | the request told back as JSON; the second takes its credential in any header or parameter |
//! | `/upload` | sha256 and length of a body |
//! | `/bytes/{n}`, `/trailers` | a body of n bytes; a body with a trailer |
//! | `/slow-head` | no answer before [`Pace::step`] |
//! | `/stream/{n}`, `/stream/{n}/paced` | n server-sent events at once, or one a step |
//! | `/ws` | a WebSocket that echoes, h1 and h2 |
//! | `/echo.Echo/Unary`, `/echo.Echo/Stream` | gRPC, the message once or three times |
//! | `/v1/chat/completions`, `/v1/responses` | `OpenAI` |
//! | `/v1/messages` | Anthropic |
//! | `/acme/app.git/` | git over smart HTTP |
//!
//! Each wants a credential of the table where the real provider wants it, and answers 401 otherwise. Every other
//! answer names the tenant in `x-provider-tenant`.

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router, middleware,
    routing::{any, get, post, put},
};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keybearer::drain::Drain;
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

mod access;
mod anthropic;
mod cert;
mod git;
mod grpc;
mod openai;
mod plain;
mod seen;
mod stream;
mod ws;

pub(crate) use access::Credentials;
pub(crate) use cert::{TestAuthority, Validity};
pub(crate) use seen::{Journal, Peer, Seen};
pub(crate) use stream::Pace;

/// What kind of provider to be.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// The names on its certificate.
    pub(crate) names: Vec<String>,
    pub(crate) credentials: Credentials,
    pub(crate) speaks: Speaks,
    pub(crate) validity: Validity,
}

/// The protocols a provider offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Speaks {
    #[default]
    Http1AndHttp2,
    Http1,
    Http2,
    /// HTTP/1.1 without TLS.
    Cleartext,
}

impl Speaks {
    fn alpn(self) -> Vec<Vec<u8>> {
        let (h2, h1) = (b"h2".to_vec(), b"http/1.1".to_vec());
        match self {
            Self::Http1AndHttp2 => vec![h2, h1],
            Self::Http2 => vec![h2],
            Self::Http1 | Self::Cleartext => vec![h1],
        }
    }
}

/// A running provider; it stops when dropped.
pub(crate) struct Provider {
    address: SocketAddr,
    shared: Shared,
    accepting: JoinHandle<()>,
}

impl Provider {
    /// Listens on a free port of 127.0.0.1 with a certificate of the authority's.
    pub(crate) async fn start(authority: &TestAuthority, setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = (setup.speaks != Speaks::Cleartext).then(|| acceptor(authority, &setup));
        let git_root = tempfile::tempdir().unwrap();
        git::seed(git_root.path(), "acme/app").await;
        let shared = Shared(Arc::new(State {
            credentials: setup.credentials,
            journal: Journal::default(),
            pace: Pace::default(),
            git_root,
            drain: Drain::default(),
        }));
        let accepting = shared.drain.spawn(accept(listener, tls, shared.clone()));
        Self { address, shared, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, also the refused ones, in order of arrival.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.journal.all()
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.shared.pace
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all requests share.
#[derive(Clone)]
struct Shared(Arc<State>);

struct State {
    credentials: Credentials,
    journal: Journal,
    pace: Pace,
    git_root: TempDir,
    drain: Drain,
}

impl Deref for Shared {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

fn acceptor(authority: &TestAuthority, setup: &Setup) -> TlsAcceptor {
    let (chain, key) = authority.leaf(&setup.names, setup.validity);
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = setup.speaks.alpn();
    TlsAcceptor::from(Arc::new(config))
}

fn endpoints(shared: &Shared) -> Router {
    Router::new()
        .route("/echo", any(plain::echo))
        .route("/anything", any(plain::echo))
        .route("/upload", put(plain::upload).post(plain::upload))
        .route("/bytes/{count}", get(plain::bytes))
        .route("/trailers", get(plain::trailers))
        .route("/slow-head", get(plain::slow_head))
        .route("/stream/{count}", get(stream::free))
        .route("/stream/{count}/paced", get(stream::paced))
        .route("/ws", any(ws::upgrade))
        .route("/echo.Echo/Unary", post(grpc::unary))
        .route("/echo.Echo/Stream", post(grpc::streaming))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/responses", post(openai::responses))
        .route("/v1/messages", post(anthropic::messages))
        .fallback(git::serve)
        .layer(middleware::from_fn_with_state(shared.clone(), access::admit))
        .with_state(shared.clone())
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Shared) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let endpoints = endpoints(&shared);
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        shared.drain.spawn(greet(socket, tls.clone(), connection, endpoints.clone()));
    }
}

/// A failed handshake ends here: whether there should be one is the test's to say, from the client's side.
async fn greet(socket: TcpStream, tls: Option<TlsAcceptor>, connection: u64, endpoints: Router) {
    let Some(tls) = tls else {
        return serve(socket, Peer { connection, sni: None, alpn: None }, endpoints).await;
    };
    let Ok(stream) = tls.accept(socket).await else { return };
    let session = stream.get_ref().1;
    let sni = session.server_name().map(str::to_owned);
    let alpn = session.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into_owned());
    serve(stream, Peer { connection, sni, alpn }, endpoints).await;
}

async fn serve<S>(stream: S, peer: Peer, endpoints: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let h2 = peer.alpn.as_deref() == Some("h2");
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        endpoints.clone().call(request)
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
