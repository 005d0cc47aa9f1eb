//! The open connections of one tenant to one endpoint: those in use over HTTP/2, and those that are idle.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Request, Uri, Version, header,
    uri::{self, Authority, Scheme},
};
use http_body::Body as _;
use hyper::client::conn::http2;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{Endpoint, Error, http1::Connection};
use crate::proxy::body::RequestBody;

/// How long an idle connection is kept. Shorter than the load balancers of the large providers keep it.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// Idle connections kept for one endpoint of one tenant; more are closed.
const IDLE_PER_ENDPOINT: usize = 256;
/// Connections kept for all tenants: idle ones, and those over HTTP/2.
const KEPT: usize = 1024;

/// What a provider may send of one answer before its reader takes it, in bytes: 17 MB/s at 30 ms.
pub(super) const STREAM_WINDOW: u32 = 512 * 1024;
/// Requests at a time on one HTTP/2 connection. Few providers take more than 100, and a lost packet stops them all.
const STREAMS: u32 = 32;
/// As much as all of them together may leave unread, so that no reader keeps another's bytes from it (RFC 9113 §5.2.1: the
/// connection's window counts what is unread of every stream).
pub(super) const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// HTTP/2 connections to one endpoint. When all are full, the one with the fewest requests takes more.
const MULTIPLEXED: usize = 16;

/// Connections to one endpoint.
pub(super) struct Connections {
    /// The endpoint as requests name it, made once.
    scheme: Scheme,
    authority: Authority,
    pub(super) host: HeaderValue,
    open: Mutex<Open>,
    /// Held while dialling a provider known to speak HTTP/2, where one connection serves many.
    pub(super) dialling: tokio::sync::Mutex<()>,
    seats: Seats,
}

#[derive(Default)]
struct Open {
    idle: Vec<Idle>,
    multiplexed: Vec<Multiplexed>,
    speaks_h2: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
    _seat: OwnedSemaphorePermit,
}

struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    /// Shared with each of its requests, until the end of the answer.
    stream: Stream,
    used: Instant,
    _seat: OwnedSemaphorePermit,
}

/// A place among the streams of a connection, until it is dropped.
#[derive(Clone, Default)]
pub(super) struct Stream(Arc<()>);

/// A connection to send one request on.
pub(super) enum Sender {
    H1 { connection: Connection, is_reused: bool },
    H2(http2::SendRequest<RequestBody>, Stream),
}

/// Room for connections that are kept, of all tenants.
#[derive(Clone)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    exhausted: Arc<Notify>,
}

impl Default for Seats {
    fn default() -> Self {
        Self::new(KEPT)
    }
}

impl Seats {
    fn new(room: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(room)), exhausted: Arc::default() }
    }

    /// Waits until there was no room for one.
    pub(super) async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        let seat = Arc::clone(&self.free).try_acquire_owned().ok();
        if seat.is_none() {
            self.exhausted.notify_one();
        }
        seat
    }
}

impl Connections {
    /// None yet.
    ///
    /// # Errors
    /// Where the endpoint cannot stand in a URL.
    pub(super) fn to(endpoint: &Endpoint, seats: &Seats) -> Result<Self, Error> {
        let text = endpoint.authority();
        let unnameable = |_| Error::Resolve(io::Error::other("the host cannot stand in a URL"));
        Ok(Self {
            scheme: if endpoint.cleartext { Scheme::HTTP } else { Scheme::HTTPS },
            authority: text.parse().map_err(unnameable)?,
            host: HeaderValue::try_from(text)
                .map_err(|_| Error::Resolve(io::Error::other("the host is no header value")))?,
            open: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            seats: seats.clone(),
        })
    }

    /// Addresses the request: `Host` and the path alone in HTTP/1.1, all of it in the URI in HTTP/2.
    pub(super) fn address(&self, request: &mut Request<RequestBody>, version: Version) {
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

    /// Whether the endpoint agreed on HTTP/2 before.
    pub(super) fn speaks_h2(&self) -> bool {
        self.open().speaks_h2
    }

    /// One that a request may be sent on.
    pub(super) fn take(&self) -> Option<Sender> {
        self.open().take()
    }

    /// Keeps a connection that an exchange has ended on, if there is room.
    pub(super) fn put_back(&self, connection: Connection) {
        let mut open = self.open();
        if open.idle.len() < IDLE_PER_ENDPOINT
            && let Some(seat) = self.seats.take()
        {
            open.idle.push(Idle { connection, since: Instant::now(), _seat: seat });
        }
    }

    /// A new connection, for one request; kept for others where those that are kept are full.
    pub(super) fn keep(&self, sender: http2::SendRequest<RequestBody>) -> Sender {
        let mut open = self.open();
        open.speaks_h2 = true;
        let stream = Stream::default();
        if !open.has_room()
            && let Some(seat) = self.seats.take()
        {
            let (sender, stream) = (sender.clone(), stream.clone());
            open.multiplexed.push(Multiplexed { sender, stream, used: Instant::now(), _seat: seat });
        }
        Sender::H2(sender, stream)
    }

    /// Closes what nobody used since `before`, and what the provider closed. Says whether none is left.
    pub(super) fn sweep(&self, before: Instant) -> bool {
        let mut open = self.open();
        open.idle.retain_mut(|idle| idle.since > before && idle.connection.is_quiet());
        let in_use = |kept: &Multiplexed| kept.used > before || kept.streams() > 0;
        open.multiplexed.retain(|kept| in_use(kept) && !kept.sender.is_closed());
        open.idle.is_empty() && open.multiplexed.is_empty()
    }
}

impl Multiplexed {
    /// How many requests it has.
    fn streams(&self) -> usize {
        Arc::strong_count(&self.stream.0) - 1
    }

    fn is_full(&self) -> bool {
        self.streams() >= STREAMS as usize
    }
}

impl Open {
    /// Whether those that are kept take another request, or are as many as may be.
    fn has_room(&self) -> bool {
        self.multiplexed.len() >= MULTIPLEXED || self.multiplexed.iter().any(|kept| !kept.is_full())
    }

    /// The HTTP/2 connection that was opened first and has room, or the connection used last that is still open.
    fn take(&mut self) -> Option<Sender> {
        if !self.multiplexed.is_empty() {
            self.multiplexed.retain(|kept| !kept.sender.is_closed());
            if self.has_room()
                && let Some(kept) = self
                    .multiplexed
                    .iter_mut()
                    .min_by_key(|kept| if kept.is_full() { kept.streams() } else { 0 })
            {
                kept.used = Instant::now();
                return Some(Sender::H2(kept.sender.clone(), kept.stream.clone()));
            }
        }
        while let Some(Idle { mut connection, since, .. }) = self.idle.pop() {
            if since.elapsed() <= IDLE_LIMIT && connection.is_quiet() {
                return Some(Sender::H1 { connection, is_reused: true });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        host::{Host, Target},
        proxy::upstream::io::Io,
    };

    fn connections(seats: &Seats) -> Connections {
        let target = Target { host: Host::parse("api.example").unwrap(), port: 443 };
        Connections::to(&Endpoint { target, cleartext: true }, seats).unwrap()
    }

    /// A kept connection, and the provider's end of it.
    async fn kept(connections: &Connections) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        connections.put_back(Connection::new(Io::Plain(ours)));
        listener.accept().await.unwrap().0
    }

    /// One more connection over HTTP/2, which stays open with what is returned beside its first request.
    async fn multiplexed(connections: &Connections) -> (Stream, impl Sized) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(ours)).await.unwrap();
        (stream(connections.keep(sender)), (connection, theirs))
    }

    /// The place of a request over HTTP/2.
    fn stream(sender: Sender) -> Stream {
        let Sender::H2(_, stream) = sender else { panic!("it is HTTP/2") };
        stream
    }

    #[tokio::test]
    async fn a_kept_connection_that_the_provider_closed_or_spoke_on_is_let_go() {
        let connections = connections(&Seats::default());
        let quiet = kept(&connections).await;
        let closed = kept(&connections).await;
        let spoke = kept(&connections).await;
        drop(closed);
        spoke.try_write(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        let long_ago = Instant::now().checked_sub(IDLE_LIMIT).unwrap();
        while connections.open().idle.len() > 1 {
            tokio::task::yield_now().await;
            assert!(!connections.sweep(long_ago));
        }
        assert!(matches!(connections.take(), Some(Sender::H1 { is_reused: true, .. })));
        assert!(connections.take().is_none());
        drop(quiet);
    }

    #[tokio::test]
    async fn a_full_connection_is_joined_by_another_and_the_last_by_none() {
        let connections = connections(&Seats::default());
        let (mut streams, mut alive) = (Vec::new(), Vec::new());
        for _ in 0..MULTIPLEXED {
            assert!(connections.take().is_none());
            let (first, open) = multiplexed(&connections).await;
            alive.push(open);
            streams.push(first);
            streams.extend((1..STREAMS).map(|_| stream(connections.take().unwrap())));
        }
        // All are full: one more goes where there are fewest, and so does what comes when another has ended.
        let one_more = stream(connections.take().unwrap());
        let ended = streams.pop().unwrap();
        let last = Arc::as_ptr(&ended.0);
        drop(ended);
        assert_eq!(Arc::as_ptr(&stream(connections.take().unwrap()).0), last);
        drop(one_more);
        // Of each it is known when it is no longer in use.
        assert!(!connections.sweep(Instant::now()));
        assert_eq!(connections.open().multiplexed.len(), MULTIPLEXED);
        drop(streams);
        assert!(connections.sweep(Instant::now()));
        drop(alive);
    }

    #[tokio::test]
    async fn no_more_connections_are_kept_than_there_is_room_for_whosever_they_are() {
        let seats = Seats::new(3);
        let (acme, globex) = (connections(&seats), connections(&seats));
        let _providers = [kept(&acme).await, kept(&acme).await];
        let (_stream, _open) = multiplexed(&globex).await;
        let (refused, _open) = multiplexed(&acme).await;
        assert_eq!(Arc::strong_count(&refused.0), 1); // it serves one request
        let _closed = kept(&globex).await;
        assert_eq!((acme.open().idle.len(), globex.open().idle.len()), (2, 0));
        seats.exhausted().await;
        assert!(acme.sweep(Instant::now()));
        let _provider = kept(&globex).await;
        assert_eq!(globex.open().idle.len(), 1);
    }
}
