//! Upstream connections, kept and shared within one tenant and never across two (law 3).
//!
//! HTTP/1.1 is [`http1`]'s; HTTP/2, and the connections that become web sockets, are hyper's.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1 as upgradable, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::{
    Endpoint, Error, Outbound,
    connections::{CONNECTION_WINDOW, Connections, IDLE_LIMIT, STREAM_WINDOW, Seats, Sender, Stream},
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

/// How often it is looked for idle connections at most, however many there are.
const BREATH: Duration = Duration::from_secs(1);
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
    seats: Seats,
}

/// One tenant's connections, and its own TLS session store: not even a ticket is shared.
struct Tenant {
    any: Arc<ClientConfig>,
    h1_only: Arc<ClientConfig>,
    endpoints: Mutex<HashMap<Endpoint, Arc<Connections>>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer, roots: Arc<RootCertStore>, drain: Drain) -> Self {
        let tenants = RwLock::default();
        let shared = Arc::new(Shared { dialer, roots, drain, tenants, seats: Seats::default() });
        shared.drain.detach(sweep(Arc::downgrade(&shared), shared.seats.clone()));
        Self { shared }
    }

    async fn send(self, outbound: Outbound) -> Result<Response<Body>, Error> {
        let Outbound { tenant, endpoint, upgrade, mut request } = outbound;
        let tenant = self.tenant(&tenant);
        let connections = tenant.connections(&endpoint, &self.shared.seats)?;
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
        let broken = |error: hyper::Error| {
            if error.is_parse() {
                Error::Unreadable("the answer cannot be read as HTTP")
            } else {
                Error::Http(Box::new(error))
            }
        };
        let mut builder = upgradable::Builder::new();
        let (mut sender, connection) =
            builder.max_headers(MAX_FIELDS).handshake(TokioIo::new(io)).await.map_err(broken)?;
        self.shared.drain.detach(connection.with_upgrades().map(drop));
        connections.address(&mut request, Version::HTTP_11);
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(response.map(|body| Body::hyper(body, None)))
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
        if !connections.speaks_h2() {
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
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(Duration::from_secs(20))
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Error::Http(Box::new(error)))?;
        self.shared.drain.detach(connection.map(drop));
        Ok(connections.keep(sender))
    }
}

/// Closes what nobody used for long, also where nobody asks any more; where there are too many, what nobody used since
/// it last looked. Ends with the pool.
async fn sweep(pool: Weak<Shared>, seats: Seats) {
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(BREATH).await;
        let crowded = tokio::time::timeout(IDLE_LIMIT, seats.exhausted()).await.is_ok();
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        pool.sweep(if crowded { looked } else { now.checked_sub(IDLE_LIMIT).unwrap_or(looked) });
        looked = now;
    }
}

impl Shared {
    /// Closes what is idle since `before`, and forgets endpoints and tenants of which nothing is left: whoever may invent
    /// tenants makes as many as it likes.
    fn sweep(&self, before: Instant) {
        let tenants: Vec<_> =
            self.tenants.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for tenant in tenants {
            tenant.sweep(before);
        }
        // Nobody can take one while it is looked at, and whoever has taken one keeps it.
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, tenant| Arc::strong_count(tenant) > 1 || !tenant.is_empty());
    }
}

impl Tenant {
    fn connections(&self, endpoint: &Endpoint, seats: &Seats) -> Result<Arc<Connections>, Error> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = endpoints.get(endpoint) {
            return Ok(Arc::clone(connections));
        }
        let connections = Arc::new(Connections::to(endpoint, seats)?);
        endpoints.insert(endpoint.clone(), Arc::clone(&connections));
        Ok(connections)
    }

    fn sweep(&self, before: Instant) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.retain(|_, connections| {
            let is_empty = connections.sweep(before);
            !is_empty || Arc::strong_count(connections) > 1
        });
    }

    fn is_empty(&self) -> bool {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
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
            Self::H2(mut sender, stream) => {
                if let Err(error) = sender.ready().await {
                    let error = Error::Http(Box::new(error));
                    return Err(Unsent { request: Some(Box::new(request)), error });
                }
                connections.address(&mut request, Version::HTTP_2);
                let response = sender.try_send_request(request).await?;
                Ok(response.map(|body| Body::hyper(body, Some(stream))))
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
    /// Over HTTP/2 with its place among its connection's streams.
    Hyper {
        body: Incoming,
        _stream: Option<Stream>,
    },
    /// The connection is back in the pool.
    Over,
}

impl Body {
    fn http1(body: Received, home: &Arc<Connections>) -> Self {
        let mut body = Self(Source::Http1 { body: Box::new(body), home: Arc::clone(home) });
        body.give_back();
        body
    }

    const fn hyper(body: Incoming, stream: Option<Stream>) -> Self {
        Self(Source::Hyper { body, _stream: stream })
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
            Source::Hyper { body, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
            }
            Source::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1 { body, .. } => body.is_end_stream(),
            Source::Hyper { body, .. } => body.is_end_stream(),
            Source::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1 { body, .. } => body.size_hint(),
            Source::Hyper { body, .. } => body.size_hint(),
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
    use super::*;
    use crate::{
        dial::AddressGuard,
        host::{Host, Target},
    };

    #[tokio::test]
    async fn a_tenant_of_which_nothing_is_left_is_forgotten() {
        let dialer = Dialer::new(HashMap::new(), AddressGuard::new(&[]), Duration::from_secs(1));
        let pool = Pool::new(dialer, Arc::new(RootCertStore::empty()), Drain::default());
        let endpoint = Endpoint {
            target: Target { host: Host::parse("api.example").unwrap(), port: 443 },
            cleartext: true,
        };
        let asked = |tenant: &str| {
            pool.tenant(&TenantId::new(tenant).unwrap()).connections(&endpoint, &pool.shared.seats).unwrap()
        };
        let left = || {
            pool.shared.sweep(Instant::now());
            let tenants = pool.shared.tenants.read().unwrap();
            let mut names: Vec<_> = tenants.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        let in_use = asked("acme");
        for invented in 0..100 {
            drop(asked(&format!("invented-{invented}")));
        }
        assert_eq!(left(), ["acme"]);
        assert!(Arc::ptr_eq(&in_use, &asked("acme")));
        drop(in_use);
        let tenant = pool.tenant(&TenantId::new("globex").unwrap());
        assert_eq!(left(), ["globex"]);
        drop(tenant);
        assert!(left().is_empty());
    }
}
