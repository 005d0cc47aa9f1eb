//! Upstream connections, kept and shared within one tenant and never across two (law 3).

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
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
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Endpoint, Error, Outbound, dial::Dialer};
use crate::{
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
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// A connection to send one request on.
enum Sender {
    H1 { sender: http1::SendRequest<RequestBody>, is_reused: bool },
    H2(http2::SendRequest<RequestBody>),
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer, roots: Arc<RootCertStore>, drain: Drain) -> Self {
        Self { shared: Arc::new(Shared { dialer, roots, drain, tenants: RwLock::default() }) }
    }

    async fn send(self, outbound: Outbound) -> Result<Response<Body>, Error> {
        let Outbound { tenant, endpoint, upgrade, mut request } = outbound;
        let tenant = self.tenant(&tenant);
        let connections = tenant.connections(&endpoint)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sender = if upgrade {
                self.dial(&endpoint, &tenant.h1_only, &connections).await?
            } else {
                self.checkout(&endpoint, &tenant.any, &connections).await?
            };
            match sender.send(request, &connections).await {
                Ok(response) => return Ok(response),
                // The connection was closing: nothing was sent, or it may be sent again.
                Err(Unsent { request: Some(unsent), .. }) if attempts < MAX_ATTEMPTS => request = *unsent,
                Err(Unsent { error, .. }) => return Err(Error::Http(error)),
            }
        }
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
        config: &Arc<ClientConfig>,
        connections: &Arc<Connections>,
    ) -> Result<Sender, Error> {
        if let Some(sender) = connections.take() {
            return Ok(sender);
        }
        if !connections.open().speaks_h2 {
            return self.dial(endpoint, config, connections).await;
        }
        let _one_dials = connections.dialling.lock().await;
        match connections.take() {
            Some(sender) => Ok(sender),
            None => self.dial(endpoint, config, connections).await,
        }
    }

    async fn dial(
        &self,
        endpoint: &Endpoint,
        config: &Arc<ClientConfig>,
        connections: &Connections,
    ) -> Result<Sender, Error> {
        let Endpoint { target, cleartext } = endpoint;
        if *cleartext {
            return self.open_h1(self.shared.dialer.tcp(target).await?).await;
        }
        let tls = self.shared.dialer.tls(target, Arc::clone(config)).await?;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            return self.open_h2(tls, connections).await;
        }
        self.open_h1(tls).await
    }

    async fn open_h1<I>(&self, io: I) -> Result<Sender, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(io)).await.map_err(Error::Http)?;
        self.shared.drain.detach(connection.with_upgrades().map(drop));
        Ok(Sender::H1 { sender, is_reused: false })
    }

    async fn open_h2<I>(&self, io: I, connections: &Connections) -> Result<Sender, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .keep_alive_interval(Duration::from_secs(20))
            .handshake(TokioIo::new(io))
            .await
            .map_err(Error::Http)?;
        self.shared.drain.detach(connection.map(drop));
        let mut open = connections.open();
        open.speaks_h2 = true;
        if open.multiplexed.as_ref().is_none_or(http2::SendRequest::is_closed) {
            open.multiplexed = Some(sender.clone());
        }
        Ok(Sender::H2(sender))
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

    fn put_back(&self, sender: http1::SendRequest<RequestBody>) {
        let mut open = self.open();
        if open.idle.len() < IDLE_PER_ENDPOINT {
            open.idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

impl Open {
    /// The connection used last that is ready now. One that has answered but is still being tidied up by its
    /// task is passed over, not lost.
    fn take(&mut self) -> Option<Sender> {
        if let Some(sender) = &self.multiplexed {
            if !sender.is_closed() {
                return Some(Sender::H2(sender.clone()));
            }
            self.multiplexed = None;
        }
        if self.idle.first().is_some_and(|oldest| oldest.since.elapsed() > IDLE_LIMIT) {
            self.idle.retain(|idle| idle.since.elapsed() <= IDLE_LIMIT);
        }
        for at in (0..self.idle.len()).rev() {
            let sender = &self.idle[at].sender;
            if sender.is_closed() {
                self.idle.remove(at);
            } else if sender.is_ready() {
                return Some(Sender::H1 { sender: self.idle.remove(at).sender, is_reused: true });
            }
        }
        None
    }
}

/// A request that got no answer, and the request itself where it can be sent once more.
struct Unsent {
    request: Option<Box<Request<RequestBody>>>,
    error: hyper::Error,
}

impl From<TrySendError<Request<RequestBody>>> for Unsent {
    fn from(mut error: TrySendError<Request<RequestBody>>) -> Self {
        Self { request: error.take_message().map(Box::new), error: error.into_error() }
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
                    return Err(Unsent { request: Some(Box::new(request)), error });
                }
                connections.address(&mut request, Version::HTTP_2);
                let response = sender.try_send_request(request).await?;
                Ok(response.map(|inner| Body { inner, give_back: None }))
            }
            Self::H1 { mut sender, is_reused } => {
                connections.address(&mut request, Version::HTTP_11);
                // The provider may just now be closing a kept connection, however short it was kept.
                let spare = if is_reused { repeatable(&request) } else { None };
                let response = match (sender.try_send_request(request).await, spare) {
                    (Ok(response), _) => response,
                    (Err(error), None) => return Err(error.into()),
                    (Err(error), Some(spare)) => {
                        return Err(Unsent { request: Some(Box::new(spare)), error: error.into_error() });
                    }
                };
                let give_back = Some((sender, Arc::clone(connections)));
                Ok(response.map(|inner| Body { inner, give_back }))
            }
        }
    }
}

/// A copy, where sending twice does no more than sending once (RFC 9110 §9.2.2) and there is no body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// A provider's answer as it arrives. At its end the connection goes back to the pool; dropped before, the
/// connection is closed.
pub struct Body {
    inner: Incoming,
    give_back: Option<(http1::SendRequest<RequestBody>, Arc<Connections>)>,
}

impl Body {
    fn at_end(&mut self) {
        if let Some((sender, connections)) = self.give_back.take()
            && !sender.is_closed()
        {
            connections.put_back(sender);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.give_back = None,
            Some(Ok(_)) if !self.inner.is_end_stream() => {}
            _ => self.at_end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Body {
    /// An answer without a body is never polled, so its end is seen here.
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.at_end();
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
