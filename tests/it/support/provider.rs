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
//! | `/repos/{owner}/{repo}`, `.../issues` | GitHub's REST API: the request told back |
//!
//! A host of [`Registries`] serves its files instead, to anybody. Each of the above wants a credential of the table where the real provider wants it, and answers 401 otherwise. Every other
//! answer names the tenant in `x-provider-tenant`.

use std::{net::SocketAddr, ops::Deref, sync::Arc};

use axum::{
    Router, middleware,
    routing::{any, get, post, put},
};
use keybearer::drain::Drain;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use super::server;

mod access;
mod anthropic;
mod cert;
mod git;
mod grpc;
mod openai;
mod plain;
mod registries;
mod seen;
mod stream;
mod ws;

pub(crate) use access::Credentials;
pub(crate) use cert::{TestAuthority, Validity};
pub(crate) use registries::Registries;
pub(crate) use seen::{Journal, Seen, hex};
pub(crate) use stream::Pace;

/// What kind of provider to be.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// The names on its certificate.
    pub(crate) names: Vec<String>,
    pub(crate) credentials: Credentials,
    pub(crate) speaks: Speaks,
    pub(crate) validity: Validity,
    pub(crate) registries: Registries,
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
        Self::listening(TcpListener::bind("127.0.0.1:0").await.unwrap(), authority, setup).await
    }

    /// Listens where the test does.
    pub(crate) async fn listening(listener: TcpListener, authority: &TestAuthority, setup: Setup) -> Self {
        let address = listener.local_addr().unwrap();
        let tls = (setup.speaks != Speaks::Cleartext)
            .then(|| server::acceptor(authority.leaf(&setup.names, setup.validity), setup.speaks.alpn()));
        let git_root = tempfile::tempdir().unwrap();
        git::seed(git_root.path(), "acme/app").await;
        let shared = Shared(Arc::new(State {
            credentials: setup.credentials,
            registries: setup.registries,
            journal: Journal::default(),
            pace: Pace::default(),
            git_root,
            drain: Drain::default(),
        }));
        let serving = server::accept(listener, tls, shared.drain.clone(), endpoints(&shared));
        let accepting = shared.drain.spawn(serving);
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
    registries: Registries,
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
        .route("/repos/{owner}/{repo}", any(plain::echo))
        .route("/repos/{owner}/{repo}/issues", any(plain::echo))
        .fallback(git::serve)
        .layer(middleware::from_fn_with_state(shared.clone(), access::admit))
        .with_state(shared.clone())
}
