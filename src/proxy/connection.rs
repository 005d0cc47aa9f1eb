//! One connection from an agent: HTTP/1.1 or HTTP/2, until it ends or the proxy drains.

use std::{convert::Infallible, sync::Arc};

use http::{Method, Request};
use hyper::{body::Incoming, ext, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Limits, Proxy, arrival::Entry, refusal::Refusal, serve::refuse};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, by ALPN or for want of it.
    H1,
    /// HTTP/2, by ALPN.
    H2,
    /// Without TLS there is no ALPN: HTTP/2 announces itself by its preface (RFC 9113 §3.4).
    Sniffed,
}

/// What each HTTP/2 stream and connection may have in flight, in bytes: enough for a gigabit at 30 ms.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAMS: u32 = 250;

/// Serves a connection. Once a drain begins, requests that have begun are finished and no new one is taken.
pub(super) async fn serve<I>(proxy: &Proxy, io: I, entry: Entry, protocol: Protocol)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let entry = Arc::new(entry);
    let service = {
        let (proxy, entry) = (proxy.clone(), Arc::clone(&entry));
        service_fn(move |request: Request<Incoming>| {
            let (proxy, entry) = (proxy.clone(), Arc::clone(&entry));
            async move {
                let answer = if opens_tunnel(&entry, &request) {
                    proxy.connect(request).await
                } else {
                    proxy.serve(&entry, request).await
                };
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let builder = builder(&proxy.limits, protocol);
    let ended = proxy.drain.served(builder.serve_connection_with_upgrades(TokioIo::new(io), service)).await;
    let is_parse = |error: &hyper::Error| error.is_parse();
    if ended.is_err_and(|error| error.downcast_ref().is_some_and(is_parse)) {
        malformed(proxy, &entry).await;
    }
}

/// A CONNECT that is not an extended one (RFC 8441).
fn opens_tunnel(entry: &Entry, request: &Request<Incoming>) -> bool {
    entry.addresses_proxy()
        && request.method() == Method::CONNECT
        && request.extensions().get::<ext::Protocol>().is_none()
}

/// A head that hyper could not read and has answered with 400 or 431: it is recorded like every refusal.
async fn malformed(proxy: &Proxy, entry: &Entry) {
    let refusal = Refusal::bad_request("the request could not be read as HTTP");
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
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol();
    match protocol {
        Protocol::H1 => builder.http1_only(),
        Protocol::H2 => builder.http2_only(),
        Protocol::Sniffed => builder,
    }
}
