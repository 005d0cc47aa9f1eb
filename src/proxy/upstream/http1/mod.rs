//! HTTP/1.1 to a provider (RFC 9112), driven by the request itself.
//!
//! hyper's client gives a connection a task of its own: each request crosses to that task and its answer crosses
//! back, piece by piece. Here nothing crosses: whoever owns a [`Connection`] moves its bytes, first the exchange
//! until the answer's head is read, then the answer's [`Received`] body, which has the connection back at its end.
//!
//! Nothing is guessed. An answer that has two readings (two lengths, a length beside chunks, a coding besides
//! `chunked`) is an error, or the last one on its connection.

mod chunks;
mod head;
mod received;
mod sending;

use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response};
use tokio_util::io::poll_read_buf;

use self::{head::Head, sending::Sending};
pub(super) use self::{head::MAX_FIELDS, received::Received};
use super::{Error, io::Io};
use crate::proxy::body::RequestBody;

/// What is read at once: most answers are smaller, head and all.
const READ: usize = 4096;
/// The longest head of an answer.
const MAX_HEAD: usize = 256 * 1024;

/// One connection to a provider, between two exchanges.
pub(super) struct Connection {
    io: Io,
    /// What was read and is not yet taken. Empty between exchanges.
    read: BytesMut,
    /// Whether the provider takes no more bytes.
    is_cut: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Broken {
    /// Whether not a byte of an answer came, as on a connection that the provider was closing already.
    pub(super) unanswered: bool,
    /// What happened.
    pub(super) error: io::Error,
}

impl Connection {
    /// A connection on which nothing was said yet.
    pub(super) fn new(io: Io) -> Self {
        Self { io, read: BytesMut::new(), is_cut: false }
    }

    /// Whether the provider has neither closed it nor said something unasked.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.poll_read(&mut Context::from_waker(Waker::noop()), 1).is_pending()
    }

    /// Sends the request and reads the answer's head. The body is taken out of the request; what is left may be
    /// sent again on another connection, where there was none.
    pub(super) async fn exchange(
        mut self,
        request: &mut Request<RequestBody>,
        host: &HeaderValue,
    ) -> Result<Response<Received>, Broken> {
        let mut sending = Some(Sending::new(request, host));
        let method = request.method();
        let answered = poll_fn(|cx| self.poll_answer(cx, &mut sending, method)).await;
        match answered {
            Ok(Head { response, framing, is_last }) => {
                Ok(response.map(|()| Received::new(self, sending, framing, is_last)))
            }
            Err(error) => {
                let unanswered = self.read.is_empty() && error.kind() != ErrorKind::InvalidData;
                Err(Broken { unanswered, error })
            }
        }
    }

    /// Sends on while waiting: a provider may answer before it has taken the whole body.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Option<Sending>,
        method: &Method,
    ) -> Poll<io::Result<Head>> {
        match sending.as_mut().map(|sending| sending.poll(cx, &mut self.io)) {
            None | Some(Poll::Pending) => {}
            Some(Poll::Ready(Ok(()))) => *sending = None,
            Some(Poll::Ready(Err(sending::Error::Body(error)))) => return Poll::Ready(Err(error)),
            // The provider takes no more. It may have said why; reading tells.
            Some(Poll::Ready(Err(sending::Error::Write))) => {
                *sending = None;
                self.is_cut = true;
            }
        }
        loop {
            match Head::read(&mut self.read, method)? {
                Some(head) if head.is_interim() => {}
                Some(head) => {
                    let is_last = head.is_last || self.is_cut;
                    return Poll::Ready(Ok(Head { is_last, ..head }));
                }
                None if self.read.len() > MAX_HEAD => {
                    return Poll::Ready(Err(invalid("the head of the answer is too long")));
                }
                None if ready!(self.poll_read(cx, READ))? == 0 => {
                    return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
                }
                None => {}
            }
        }
    }

    /// Reads what is there; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let Self { io, read, .. } = self;
        if read.capacity() - read.len() < room {
            read.reserve(room);
        }
        poll_read_buf(Pin::new(io), cx, read)
    }
}

/// What is wrong with what the provider said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Invalid(&'static str);

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Invalid(what))
}

impl From<Broken> for Error {
    fn from(Broken { error, .. }: Broken) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Invalid(what)) => Self::Unreadable(what),
            None => Self::Http(Box::new(error)),
        }
    }
}
