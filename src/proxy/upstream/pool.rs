//! Upstream connections, kept and shared within one tenant and never across two (law 3).
//!
//! HTTP/1.1 is [`http1`]'s; HTTP/2, and the connections that become web sockets, are hyper's.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{
    HeaderValue, Request, Response, Uri, Version, header,
    uri::{self, Authority, Scheme},
};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1 as upgradable, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::{
    Endpoint, Error, Outbound,
    http1::{Connection, MAX_FIELDS, Received},
    io::Io,
};
use crate::{
    dial::Dialer,
    drain::Drain,
    id::TenantId,
    proxy::body::RequestBody,
    tls::{self, Alpn},
};

/// Idle connections kept for one endpoint of one tenant; more are closed.
const IDLE_PER_ENDPOINT: usize = 256;
/// How long an idle connection is kept. Shorter than the load balancers of the large providers keep it.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// How many connections one request is tried on, when those before turned out to be closing.
const MAX_ATTEMPTS: usize = 3;

/// The pool of upstream connections. Cloning is cheap.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    roots: Arc<RootCertStore>,
    drain: Drain,
    tenants: RwLock<HashMap<TenantId, Arc<Tenant>>>,
}

/// One tenant's connections, and its own TLS session store: not even a ticket is shared.
struct Tenant {
    any: Arc<ClientConfig>,
    h1_only: Arc<ClientConfig>,
    endpoints: Mutex<HashMap<Endpoint, Arc<Connections>>>,
}

struct Connections {
    /// The endpoint as requests name it, made once.
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    open: Mutex<Open>,
    /// Held while dialling a provider known to speak HTTP/2, where one connection serves all.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Open {
    idle: Vec<Idle>,
    multiplexed: Option<http2::SendRequest<RequestBody>>,
    speaks_h2: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to send one request on.
enum Sender {
    H1 { connection: Connection, is_reused: bool },
    H2(http2::SendRequest<RequestBody>),
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer, roots: Arc<RootCertStore>, drain: Drain) -> Self {
        let shared = Arc::new(Shared { dialer, roots, drain, tenants: RwLock::default() });
        shared.drain.detach(sweep(Arc::downgrade(&shared)));
        Self { shared }
    }

    async fn send(self, outbound: Outbound) -> Result<Response<Body>, Error> {
        let Outbound { tenant, endpoint, upgrade, mut request } = outbound;
        let tenant = self.tenant(&tenant);
        let connections = tenant.connections(&endpoint)?;
        if upgrade {
            return self.upgrade(request, &endpoint, &tenant, &connections).await;
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sender = self.checkout(&endpoint, &tenant, &connections).await?;
            match sender.send(request, &connections).await {
                Ok(response) => return Ok(response),
                // The connection was closing: nothing was sent, or it may be sent again.
                Err(Unsent { request: Some(unsent), .. }) if attempts < MAX_ATTEMPTS => request = *unsent,
                Err(Unsent { error, .. }) => return Err(error),
            }
        }
    }

    /// A request whose connection may become something else than HTTP, on a connection of its own.
    async fn upgrade(
        &self,
        mut request: Request<RequestBody>,
        endpoint: &Endpoint,
        tenant: &Tenant,
        connections: &Connections,
    ) -> Result<Response<Body>, Error> {
        let (io, _) = self.dial(endpoint, &tenant.h1_only).await?;
        let broken = |error: hyper::Error| match error.is_parse() {
            true => Error::Unreadable("the answer cannot be read as HTTP"),
            false => Error::Http(Box::new(error)),
        };
        let mut builder = upgradable::Builder::new();
        let (mut sender, connection) =
            builder.max_headers(MAX_FIELDS).handshake(TokioIo::new(io)).await.map_err(broken)?;
        self.shared.drain.detach(connection.with_upgrades().map(drop));
        connections.address(&mut request, Version::HTTP_11);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(response.map(Body::hyper))
    }

    fn tenant(&self, id: &TenantId) -> Arc<Tenant> {
        let tenants = &self.shared.tenants;
        if let Some(tenant) = tenants.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Arc::clone(tenant);
        }
        let mut tenants = tenants.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Tenant {
                any: Arc::new(tls::upstream_config(&self.shared.roots, Alpn::Any)),
                h1_only: Arc::new(tls::upstream_config(&self.shared.roots, Alpn::H1)),
                endpoints: Mutex::default(),
            })
        };
        Arc::clone(tenants.entry(id.clone()).or_insert_with(new))
    }

    /// An open connection, or a new one.
    async fn checkout(
        &self,
        endpoint: &Endpoint,
        tenant: &Tenant,
        connections: &Connections,
    ) -> Result<Sender, Error> {
        if let Some(sender) = connections.take() {
            return Ok(sender);
        }
        if !connections.open().speaks_h2 {
            return self.open(endpoint, tenant, connections).await;
        }
        let _one_dials = connections.dialling.lock().await;
        match connections.take() {
            Some(sender) => Ok(sender),
            None => self.open(endpoint, tenant, connections).await,
        }
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        tenant: &Tenant,
        connections: &Connections,
    ) -> Result<Sender, Error> {
        match self.dial(endpoint, &tenant.any).await? {
            (io, Version::HTTP_2) => self.open_h2(io, connections).await,
            (io, _) => Ok(Sender::H1 { connection: Connection::new(io), is_reused: false }),
        }
    }

    /// A new stream to the endpoint, and what is spoken on it.
    async fn dial(&self, endpoint: &Endpoint, config: &Arc<ClientConfig>) -> Result<(Io, Version), Error> {
        let Endpoint { target, cleartext } = endpoint;
        if *cleartext {
            return Ok((Io::Plain(self.shared.dialer.tcp(target).await?), Version::HTTP_11));
        }
        let tls = self.shared.dialer.tls(target, Arc::clone(config)).await?;
        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Io::Tls(Box::new(tls)), if is_h2 { Version::HTTP_2 } else { Version::HTTP_11 }))
    }

    async fn open_h2(&self, io: Io, connections: &Connections) -> Result<Sender, Error> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(Duration::from_secs(20))
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Error::Http(Box::new(error)))?;
        self.shared.drain.detach(connection.map(drop));
        let mut open = connections.open();
        open.speaks_h2 = true;
        if open.multiplexed.as_ref().is_none_or(http2::SendRequest::is_closed) {
            open.multiplexed = Some(sender.clone());
        }
        Ok(Sender::H2(sender))
    }
}

/// Closes what nobody used for long, also where nobody asks any more; ends with the pool.
async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE_LIMIT).await;
        let Some(shared) = shared.upgrade() else { return };
        let tenants: Vec<_> =
            shared.tenants.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for tenant in tenants {
            let endpoints = tenant.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            endpoints.values().for_each(|connections| connections.open().sweep());
        }
    }
}

impl Tenant {
    fn connections(&self, endpoint: &Endpoint) -> Result<Arc<Connections>, Error> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = endpoints.get(endpoint) {
            return Ok(Arc::clone(connections));
        }
        let connections = Arc::new(Connections::to(endpoint)?);
        endpoints.insert(endpoint.clone(), Arc::clone(&connections));
        Ok(connections)
    }
}

impl Connections {
    fn to(endpoint: &Endpoint) -> Result<Self, Error> {
        let text = endpoint.authority();
        let unnameable = |_| Error::Resolve(io::Error::other("the host cannot stand in a URL"));
        Ok(Self {
            scheme: if endpoint.cleartext { Scheme::HTTP } else { Scheme::HTTPS },
            authority: text.parse().map_err(unnameable)?,
            host: HeaderValue::try_from(text)
                .map_err(|_| Error::Resolve(io::Error::other("the host is no header value")))?,
            open: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        })
    }

    /// Addresses the request: `Host` and the path alone in HTTP/1.1, all of it in the URI in HTTP/2.
    fn address(&self, request: &mut Request<RequestBody>, version: Version) {
        let mut uri = uri::Parts::default();
        uri.path_and_query = request.uri().path_and_query().cloned();
        if version == Version::HTTP_2 {
            uri.scheme = Some(self.scheme.clone());
            uri.authority = Some(self.authority.clone());
            request.headers_mut().remove(header::HOST);
            request.headers_mut().remove(header::TRANSFER_ENCODING);
        } else {
            request.headers_mut().insert(header::HOST, self.host.clone());
            if request.body().size_hint().exact().is_none() {
                // Unless it is said, hyper takes a GET for one without a body and leaves the body out.
                request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = version;
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Sender> {
        self.open().take()
    }

    fn put_back(&self, connection: Connection) {
        let mut open = self.open();
        if open.idle.len() < IDLE_PER_ENDPOINT {
            open.idle.push(Idle { connection, since: Instant::now() });
        }
    }
}

impl Open {
    /// The connection used last that is still open.
    fn take(&mut self) -> Option<Sender> {
        if let Some(sender) = &self.multiplexed {
            if !sender.is_closed() {
                return Some(Sender::H2(sender.clone()));
            }
            self.multiplexed = None;
        }
        self.forget_old();
        while let Some(Idle { mut connection, .. }) = self.idle.pop() {
            if connection.is_quiet() {
                return Some(Sender::H1 { connection, is_reused: true });
            }
        }
        None
    }

    /// Closes what is old, and what the provider closed.
    fn sweep(&mut self) {
        self.forget_old();
        self.idle.retain_mut(|idle| idle.connection.is_quiet());
    }

    /// The oldest stand first.
    fn forget_old(&mut self) {
        if self.idle.first().is_some_and(|oldest| oldest.since.elapsed() > IDLE_LIMIT) {
            self.idle.retain(|idle| idle.since.elapsed() <= IDLE_LIMIT);
        }
    }
}

/// A request that got no answer, and the request itself where it can be sent once more.
struct Unsent {
    request: Option<Box<Request<RequestBody>>>,
    error: Error,
}

impl From<TrySendError<Request<RequestBody>>> for Unsent {
    fn from(mut error: TrySendError<Request<RequestBody>>) -> Self {
        let request = error.take_message().map(Box::new);
        Self { request, error: Error::Http(Box::new(error.into_error())) }
    }
}

impl Sender {
    async fn send(
        self,
        mut request: Request<RequestBody>,
        connections: &Arc<Connections>,
    ) -> Result<Response<Body>, Unsent> {
        match self {
            Self::H2(mut sender) => {
                if let Err(error) = sender.ready().await {
                    let error = Error::Http(Box::new(error));
                    return Err(Unsent { request: Some(Box::new(request)), error });
                }
                connections.address(&mut request, Version::HTTP_2);
                let response = sender.try_send_request(request).await?;
                Ok(response.map(Body::hyper))
            }
            Self::H1 { connection, is_reused } => {
                // The provider may just now be closing a kept connection, however short it was kept.
                let is_repeatable = is_reused && is_repeatable(&request);
                match connection.exchange(&mut request, &connections.host).await {
                    Ok(response) => Ok(response.map(|body| Body::http1(body, connections))),
                    Err(broken) => Err(Unsent {
                        request: (is_repeatable && broken.unanswered).then(|| Box::new(request)),
                        error: broken.into(),
                    }),
                }
            }
        }
    }
}

/// Whether sending twice does no more than sending once (RFC 9110 §9.2.2), and there is no body that would be gone.
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && request.body().is_end_stream()
}

/// A provider's answer as it arrives. At its end the connection goes back to the pool; dropped before, the
/// connection is closed.
pub struct Body(Source);

enum Source {
    Http1 {
        body: Box<Received>,
        home: Arc<Connections>,
    },
    Hyper(Incoming),
    /// The connection is back in the pool.
    Over,
}

impl Body {
    fn http1(body: Received, home: &Arc<Connections>) -> Self {
        let mut body = Self(Source::Http1 { body: Box::new(body), home: Arc::clone(home) });
        body.give_back();
        body
    }

    const fn hyper(body: Incoming) -> Self {
        Self(Source::Hyper(body))
    }

    /// Gives the connection back, if the body is over.
    fn give_back(&mut self) {
        if self.is_end_stream()
            && let Source::Http1 { body, home } = std::mem::replace(&mut self.0, Source::Over)
            && let Some(connection) = body.into_idle()
        {
            home.put_back(connection);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Source::Http1 { body, .. } => {
                let frame = ready!(Pin::new(&mut **body).poll_frame(cx));
                self.give_back();
                Poll::Ready(frame)
            }
            Source::Hyper(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
            }
            Source::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1 { body, .. } => body.is_end_stream(),
            Source::Hyper(body) => body.is_end_stream(),
            Source::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1 { body, .. } => body.size_hint(),
            Source::Hyper(body) => body.size_hint(),
            Source::Over => SizeHint::with_exact(0),
        }
    }
}

impl tower::Service<Outbound> for Pool {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, outbound: Outbound) -> Self::Future {
        Box::pin(self.clone().send(outbound))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::host::{Host, Target};

    /// A kept connection, and the provider's end of it.
    async fn kept(connections: &Connections) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        connections.put_back(Connection::new(Io::Plain(ours)));
        listener.accept().await.unwrap().0
    }

    #[tokio::test]
    async fn a_kept_connection_that_the_provider_closed_or_spoke_on_is_let_go() {
        let target = Target { host: Host::parse("api.example").unwrap(), port: 443 };
        let connections = Connections::to(&Endpoint { target, cleartext: true }).unwrap();
        let quiet = kept(&connections).await;
        let closed = kept(&connections).await;
        let spoke = kept(&connections).await;
        drop(closed);
        spoke.try_write(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        while connections.open().idle.len() > 1 {
            tokio::task::yield_now().await;
            connections.open().sweep();
        }
        assert!(matches!(connections.take(), Some(Sender::H1 { is_reused: true, .. })));
        assert!(connections.take().is_none());
        drop(quiet);
    }
}
