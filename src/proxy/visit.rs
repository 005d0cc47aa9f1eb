//! What goes on on an agent's connection: whether anything does, and what cannot be read there.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use super::{Proxy, arrival::Entry, refusal::Refusal, serve::refused};

/// An agent's connection.
pub(super) struct Visit {
    /// How it reached us.
    pub(super) entry: Entry,
    begun: AtomicUsize,
    open: AtomicUsize,
    told: AtomicBool,
}

/// A request and its answer, to the answer's end.
pub(super) struct Exchange(Arc<Visit>);

impl Visit {
    pub(super) fn new(entry: Entry) -> Arc<Self> {
        let (begun, open, told) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { entry, begun, open, told })
    }

    /// One more request has come.
    pub(super) fn exchange(self: &Arc<Self>) -> Exchange {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Exchange(Arc::clone(self))
    }

    /// How many requests have come, where none of them is open.
    fn at_rest(&self) -> Option<usize> {
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.begun.load(Ordering::Relaxed))
    }

    /// Ends when nothing went on for so long, and up to twice that.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let before = self.at_rest();
            sleep(limit).await;
            if before.is_some() && self.at_rest() == before {
                return;
            }
        }
    }

    /// Whether the agent was told that its request cannot be read.
    pub(super) fn was_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}

impl Exchange {
    /// How its connection reached us.
    pub(super) fn entry(&self) -> &Entry {
        &self.0.entry
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses in our words what hyper cannot read as HTTP/1 and answers by itself, with a status and nothing else.
///
/// What is written while nothing is open and all before it has gone out can only be such an answer. One to a request
/// that was sent behind another, whose answer has not gone out yet, stays hyper's own.
pub(super) struct InOurWords<I> {
    io: I,
    proxy: Proxy,
    visit: Arc<Visit>,
    /// How many requests had come when all had been answered and written.
    at_rest: Option<usize>,
    telling: Telling,
}

/// Of a head that is not HTTP.
pub(super) const UNREADABLE: &str = "the request could not be read as HTTP";

enum Telling {
    Nothing,
    Recording(BoxFuture<'static, Bytes>),
    Writing(Bytes),
}

impl<I> InOurWords<I> {
    pub(super) const fn new(io: I, proxy: Proxy, visit: Arc<Visit>) -> Self {
        Self { io, proxy, visit, at_rest: Some(0), telling: Telling::Nothing }
    }

    /// The connection itself, when it becomes something else.
    pub(super) fn into_inner(self) -> I {
        self.io
    }

    /// Whether hyper says this by itself; it is begun to be told in our words then.
    fn rewords(&mut self, written: &[u8]) -> bool {
        if !matches!(self.telling, Telling::Nothing) {
            return true;
        }
        if self.at_rest.is_none() || self.at_rest != self.visit.at_rest() {
            return false;
        }
        let status = written.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|code| StatusCode::from_bytes(code).ok());
        let Some(status) = status.filter(StatusCode::is_client_error) else { return false };
        let (proxy, visit) = (self.proxy.clone(), Arc::clone(&self.visit));
        self.telling = Telling::Recording(Box::pin(async move { proxy.unreadable(&visit, status).await }));
        true
    }
}

impl<I: AsyncWrite + Unpin> InOurWords<I> {
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.telling {
                Telling::Nothing => return Poll::Ready(Ok(())),
                Telling::Recording(recorded) => {
                    self.telling = Telling::Writing(ready!(recorded.as_mut().poll(cx)));
                }
                Telling::Writing(words) => {
                    while !words.is_empty() {
                        let written = ready!(Pin::new(&mut self.io).poll_write(cx, words))?;
                        words.advance(written);
                    }
                    self.telling = Telling::Nothing;
                }
            }
        }
    }
}

impl Proxy {
    /// Records and words the refusal of a head that hyper could not read.
    async fn unreadable(&self, visit: &Visit, status: StatusCode) -> Bytes {
        visit.told.store(true, Ordering::Relaxed);
        let refusal = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Refusal::long_head(self.limits.header_bytes),
            other => Refusal::bad_request(UNREADABLE).with_status(other),
        };
        let mut record = self.record().await;
        record.led_to(visit.entry.target());
        on_the_wire(&refused(record, &refusal, &visit.entry))
    }
}

/// The last answer of a connection, as HTTP/1.1 writes it.
fn on_the_wire(response: &Response<Bytes>) -> Bytes {
    let status = response.status();
    let mut text = BytesMut::new();
    let reason = status.canonical_reason().unwrap_or_default();
    let _ = write!(text, "HTTP/1.1 {} {reason}\r\nconnection: close\r\n", status.as_u16());
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    let _ = write!(text, "content-length: {}\r\n\r\n", response.body().len());
    text.extend_from_slice(response.body());
    text.freeze()
}

impl<I: AsyncRead + Unpin> AsyncRead for InOurWords<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for InOurWords<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.rewords(buf) {
            ready!(self.poll_told(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.at_rest = self.visit.at_rest();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.first().is_some_and(|first| self.rewords(first)) {
            ready!(self.poll_told(cx))?;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
