//! TCP as TLS wants it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::io::poll_read_buf;

/// What is read at once where much comes: four TLS records.
const BULK: usize = 64 * 1024;

/// A TCP connection under TLS, read in large pieces when much comes.
///
/// rustls asks for 4 KiB at a time, which would be five system calls for each full record of a large answer. Once an
/// answer has filled one such read, the next goes to a buffer of its own; small answers never need it.
pub struct Tcp {
    stream: TcpStream,
    ahead: BytesMut,
    is_bulk: bool,
}

impl Tcp {
    /// Takes the connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: BytesMut::new(), is_bulk: false }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() && !this.is_bulk {
            let room = buffer.remaining();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            this.is_bulk = room > 0 && buffer.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            this.ahead.reserve(BULK);
            let read = ready!(poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.ahead))?;
            this.is_bulk = read >= BULK / 4;
        }
        let taken = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..taken]);
        this.ahead.advance(taken);
        if this.ahead.is_empty() && !this.is_bulk {
            this.ahead = BytesMut::new(); // an idle connection keeps no buffer
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// One slice, as most writes have, costs less as a plain write.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [one] => Pin::new(&mut self.stream).poll_write(cx, one),
            several => Pin::new(&mut self.stream).poll_write_vectored(cx, several),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
