//! What the plain agent cannot do: bytes written by hand, bodies sent piece by piece, and a provider whose
//! answers a test decides.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keybearer::id::{AccountKey, ConnectorName, Principal, TenantId};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    agent::{Answer, Body, Connection, identity, inside},
    provider::{TestAuthority, Validity},
    stage::{HOST, SECRETS, Stage},
};

pub(super) const ACME: &str = SECRETS[0].1;

/// HTTP versions by their ALPN names.
pub(crate) const ALPNS: [&str; 2] = ["http/1.1", "h2"];

/// A request from acme's researcher without a body, for the default host.
pub(crate) fn asks(connection: &Connection, method: &str, path: &str) -> Request<Body> {
    inside(connection, method, HOST, path)
        .header("agent-identity", identity("acme", "researcher"))
        .body(Body::default())
        .unwrap()
}

/// A tenant's own account of a connector.
pub(crate) fn key(tenant: &str, connector: &str) -> AccountKey {
    AccountKey {
        tenant: TenantId::new(tenant).unwrap(),
        connector: ConnectorName::new(connector).unwrap(),
        principal: Principal::Tenant,
    }
}

/// Waits for something that no channel tells of. Fails after ten seconds.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut found: impl FnMut() -> F) -> T {
    for _ in 0..2000 {
        if let Some(found) = found().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain: {what}");
}

/// The events of actions, once there are so many of them.
pub(super) async fn actions(stage: &Stage, count: usize) -> Vec<Value> {
    until(&format!("{count} actions"), async || {
        let actions = stage.actions().await;
        (actions.len() >= count).then_some(actions)
    })
    .await
}

/// The event of an answered action. An answer may be read whole before its event is handed over.
pub(super) async fn event(stage: &Stage, id: &str) -> Value {
    until(&format!("the event of {id}"), async || {
        stage.actions().await.into_iter().find(|event| event["id"] == id)
    })
    .await
}

/// The id of an answer's action.
pub(super) fn id(answer: &Answer) -> &str {
    answer.headers["keybearer-action"].to_str().unwrap()
}

/// The id of an answer that was read by hand.
pub(super) fn id_by_hand(answer: &str) -> &str {
    answer.split("keybearer-action: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap()
}

/// Writes bytes to the proxy and reads until it closes: a request by hand must say `Connection: close`.
pub(super) async fn by_hand(stage: &Stage, bytes: impl AsRef<[u8]>) -> String {
    talk(TcpStream::connect(stage.proxy()).await.unwrap(), bytes).await
}

/// The same inside a tunnel to the default host.
pub(super) async fn by_hand_inside(stage: &Stage, bytes: impl AsRef<[u8]>) -> String {
    let tcp = stage.connected(&format!("{HOST}:443"), "").await;
    talk(stage.tls(tcp, HOST, &["http/1.1"]).await, bytes).await
}

async fn talk<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, bytes: impl AsRef<[u8]>) -> String {
    io.write_all(bytes.as_ref()).await.unwrap();
    io.flush().await.unwrap();
    let mut answer = Vec::new();
    // A connection that is closed without a TLS goodbye has said all the same.
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer read by hand; 0 where there is none.
pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The code of a refusal read by hand.
pub(super) fn error(answer: &str) -> Option<String> {
    let body = answer.split_once("\r\n\r\n")?.1;
    let problem: Value = serde_json::from_str(body).ok()?;
    Some(problem["error"].as_str()?.to_owned())
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A body of frames.
pub(super) type Frames = UnsyncBoxBody<Bytes, Infallible>;

/// Feeds a body that is being sent; dropped, the body ends.
pub(super) struct Feed(mpsc::UnboundedSender<Frame<Bytes>>);

impl Feed {
    pub(super) fn data(&self, bytes: impl Into<Bytes>) {
        let _ = self.0.send(Frame::data(bytes.into()));
    }

    pub(super) fn trailers(&self, trailers: HeaderMap) {
        let _ = self.0.send(Frame::trailers(trailers));
    }
}

/// A body that is sent as it is fed.
pub(super) fn fed() -> (Feed, Frames) {
    let (feed, frames) = mpsc::unbounded_channel();
    let frames = stream::unfold(frames, async |mut frames| Some((Ok(frames.recv().await?), frames)));
    (Feed(feed), StreamBody::new(frames).boxed_unsync())
}

/// A body of these pieces, each a frame of its own.
pub(super) fn pieces(pieces: impl IntoIterator<Item = Vec<u8>>) -> Frames {
    let (feed, body) = fed();
    pieces.into_iter().for_each(|piece| feed.data(piece));
    body
}

pub(super) fn nothing() -> Frames {
    Empty::new().boxed_unsync()
}

/// A connection to the default host whose requests have bodies of frames.
pub(super) enum Wide {
    One(http1::SendRequest<Frames>),
    Two(http2::SendRequest<Frames>),
}

impl Wide {
    /// Opens a tunnel.
    pub(super) async fn open(stage: &Stage, alpn: &str) -> Self {
        let tcp = stage.connected(&format!("{HOST}:443"), "").await;
        let tls = stage.tls(tcp, HOST, &[alpn]).await;
        if alpn == "h2" {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) =
                builder.timer(TokioTimer::new()).handshake(TokioIo::new(tls)).await.unwrap();
            keybearer::drain::Drain::default().spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
            keybearer::drain::Drain::default().spawn(connection.with_upgrades());
            Self::One(sender)
        }
    }

    /// A request of acme's publisher.
    pub(super) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let request = match self {
            Self::One(_) => Request::builder().uri(path).header("host", HOST),
            Self::Two(_) => Request::builder().uri(format!("https://{HOST}{path}")),
        };
        request.method(method).header("agent-identity", identity("acme", "publisher"))
    }

    pub(super) async fn send(&mut self, request: Request<Frames>) -> hyper::Result<Response<Incoming>> {
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
}

/// A provider that answers as the test says. Its address is known before the stage is set.
pub(super) struct Script {
    listener: TcpListener,
    requests: Arc<AtomicUsize>,
}

impl Script {
    pub(super) async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), requests: Arc::default() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Serves with a certificate of the authority's; returns the count of requests seen.
    pub(super) fn serve(
        self,
        authority: &TestAuthority,
        (names, validity): (&[&str], Validity),
        alpn: &str,
        answer: impl Fn(Request<Incoming>) -> Response<Frames> + Clone + Send + Sync + 'static,
    ) -> Arc<AtomicUsize> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (chain, key) = authority.leaf(&names, validity);
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let (tls, is_h2) = (TlsAcceptor::from(Arc::new(config)), alpn == "h2");
        let Self { listener, requests } = self;
        let counted = Arc::clone(&requests);
        keybearer::drain::Drain::default().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (tls, answer, requests) = (tls.clone(), answer.clone(), Arc::clone(&requests));
                keybearer::drain::Drain::default().spawn(async move {
                    let io = TokioIo::new(tls.accept(socket).await?);
                    let service = service_fn(move |request| {
                        requests.fetch_add(1, Ordering::SeqCst);
                        let response = answer(request);
                        async { Ok::<_, Infallible>(response) }
                    });
                    let served = if is_h2 {
                        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        http.timer(TokioTimer::new()).serve_connection(io, service).await
                    } else {
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                    };
                    served.map_err(io::Error::other)
                });
            }
        });
        counted
    }
}
