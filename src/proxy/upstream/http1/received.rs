//! The body of an answer, read as it is asked for.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Connection, chunks::Taken, head::Framing, sending::Sending};

/// What is read at once of a body of which more is to come.
const READ_MORE: usize = 64 * 1024;

/// A body as it arrives, and the connection it arrives on.
pub(in crate::proxy::upstream) struct Received {
    connection: Connection,
    /// What the provider did not wait for.
    sending: Option<Sending>,
    framing: Framing,
    is_last: bool,
    is_over: bool,
}

impl Received {
    pub(super) fn new(
        connection: Connection,
        sending: Option<Sending>,
        framing: Framing,
        is_last: bool,
    ) -> Self {
        let is_over = matches!(framing, Framing::Length(0));
        Self { connection, sending, framing, is_last, is_over }
    }

    /// The connection, where the body is over and another exchange may follow.
    pub(in crate::proxy::upstream) fn into_idle(self) -> Option<Connection> {
        let is_idle = self.is_over && !self.is_last && self.sending.is_none();
        Some(self.connection).filter(|connection| is_idle && connection.read.is_empty())
    }

    /// The rest of the request; what becomes of it no longer matters to the answer.
    fn send_on(&mut self, cx: &mut Context<'_>) {
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(sent) = sending.poll(cx, &mut self.connection.io)
        {
            self.sending = None;
            self.is_last |= sent.is_err();
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = match &self.framing {
            Framing::Length(left) => usize::try_from(*left).unwrap_or(READ_MORE).min(READ_MORE),
            Framing::Chunked(_) | Framing::UntilEnd => super::READ,
        };
        self.connection.poll_read(cx, room)
    }

    fn end(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.is_over = true;
        Poll::Ready(None)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        this.send_on(cx);
        loop {
            let read = &mut this.connection.read;
            match &mut this.framing {
                Framing::Length(left) if !read.is_empty() => {
                    let taken = read.split_to(read.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
                    *left -= taken.len() as u64;
                    this.is_over = *left == 0;
                    return Poll::Ready(Some(Ok(Frame::data(taken.freeze()))));
                }
                Framing::UntilEnd if !read.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(read.split().freeze()))));
                }
                Framing::Length(_) | Framing::UntilEnd => {}
                Framing::Chunked(chunks) => match chunks.take(read)? {
                    Taken::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Taken::End(trailers) if trailers.is_empty() => return this.end(),
                    Taken::End(trailers) => {
                        this.is_over = true;
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Taken::Nothing => {}
                },
            }
            match ready!(this.poll_more(cx)) {
                Ok(0) if matches!(this.framing, Framing::UntilEnd) => return this.end(),
                // TLS ended without close_notify, which is how many a small server closes. nginx, HAProxy and Envoy take
                // it for the end, too. Whoever can cut the connection can so cut the answer short (RFC 9112 §9.8), which
                // an answer without a length has to live with: with a length or chunks it is an error.
                Err(error)
                    if error.kind() == ErrorKind::UnexpectedEof
                        && matches!(this.framing, Framing::UntilEnd) =>
                {
                    return this.end();
                }
                Ok(0) => return Poll::Ready(Some(Err(ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        match &self.framing {
            _ if self.is_over => SizeHint::with_exact(0),
            Framing::Length(left) => SizeHint::with_exact(*left),
            Framing::Chunked(_) | Framing::UntilEnd => SizeHint::default(),
        }
    }
}
