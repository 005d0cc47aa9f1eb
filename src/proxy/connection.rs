//! One connection from an agent: HTTP/1.1 or HTTP/2, until it ends or the proxy drains.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request};
use hyper::{body::Incoming, ext, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    Limits, Proxy,
    arrival::Entry,
    opening::announced,
    prefixed::Prefixed,
    refusal::Refusal,
    serve::refuse,
    visit::{InOurWords, UNREADABLE, Visit},
};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, by ALPN or for want of it.
    H1,
    /// HTTP/2, by ALPN or by its preface.
    H2,
}

/// What each HTTP/2 stream and connection may have in flight, in bytes: enough for a gigabit at 30 ms.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAMS: u32 = 250;

/// Serves a connection without TLS, where there is no ALPN. `read` was read of it already.
pub(super) async fn sniff<I>(proxy: &Proxy, mut io: I, read: Bytes, entry: Entry)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // HTTP's own limits hold only once it is known which version is spoken.
    if let Ok(Ok((protocol, read))) = timeout(proxy.limits.idle_timeout, announced(&mut io, read)).await {
        serve(proxy, Prefixed::new(read, io), entry, protocol).await;
    }
}

/// Serves a connection. Once a drain begins, requests that have begun are finished and no new one is taken.
pub(super) async fn serve<I>(proxy: &Proxy, io: I, entry: Entry, protocol: Protocol)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let visit = Visit::new(entry);
    let service = {
        let (proxy, visit) = (proxy.clone(), Arc::clone(&visit));
        service_fn(move |request: Request<Incoming>| {
            let (proxy, exchange) = (proxy.clone(), visit.exchange());
            async move {
                let answer = if opens_tunnel(exchange.entry(), &request) {
                    proxy.connect(request, exchange).await
                } else {
                    proxy.serve(request, exchange).await
                };
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let builder = builder(&proxy.limits, protocol);
    let io = TokioIo::new(InOurWords::new(io, proxy.clone(), Arc::clone(&visit)));
    let connection = builder.serve_connection_with_upgrades(io, service);
    let idle = async {
        match protocol {
            Protocol::H1 => std::future::pending().await, // hyper looks after it
            Protocol::H2 => visit.idle(proxy.limits.idle_timeout).await,
        }
    };
    let ended = proxy.drain.served_until(connection, idle, proxy.limits.handshake_timeout).await;
    let is_parse = |error: &hyper::Error| error.is_parse();
    if !visit.was_told() && ended.is_err_and(|error| error.downcast_ref().is_some_and(is_parse)) {
        malformed(proxy, &visit.entry).await;
    }
}

/// A CONNECT that is not an extended one (RFC 8441).
fn opens_tunnel(entry: &Entry, request: &Request<Incoming>) -> bool {
    entry.addresses_proxy()
        && request.method() == Method::CONNECT
        && request.extensions().get::<ext::Protocol>().is_none()
}

/// A head that hyper could not read and has answered by itself, behind another request's answer: it is recorded like every
/// refusal.
async fn malformed(proxy: &Proxy, entry: &Entry) {
    let refusal = Refusal::bad_request(UNREADABLE);
    drop(refuse(proxy.record().await, &refusal, entry));
}

fn builder(limits: &Limits, protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        // What is longer than it may be is refused, and recorded, where all requests are. What is much longer is
        // answered with a bare 431.
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX).saturating_mul(4))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol();
    match protocol {
        Protocol::H1 => builder.http1_only(),
        Protocol::H2 => builder.http2_only(),
    }
}
