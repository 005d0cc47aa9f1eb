//! A request on its way: the head, then the body as it comes.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::invalid;
use crate::proxy::body::RequestBody;

/// Room for most heads.
const HEAD: usize = 1024;
/// So much of a body is gathered before it is written.
const GATHERED: usize = 64 * 1024;

/// What is still to be sent of a request.
pub(super) struct Sending {
    /// To be written next.
    bytes: BytesMut,
    body: Option<RequestBody>,
    framing: Framing,
    is_flushed: bool,
}

#[derive(Clone, Copy)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

/// Why not all was sent.
pub(super) enum Error {
    /// The agent's body broke off.
    Body(io::Error),
    /// The provider takes no more.
    Write,
}

impl Sending {
    /// Writes the head down, and takes the body.
    pub(super) fn new(request: &mut Request<RequestBody>, host: &HeaderValue) -> Self {
        let body = std::mem::replace(request.body_mut(), RequestBody::empty());
        let framing = body.size_hint().exact().map_or(Framing::Chunked, Framing::Length);
        let body = (!body.is_end_stream()).then_some(body);
        let mut bytes = BytesMut::with_capacity(HEAD);
        write_head(&mut bytes, request, host, framing);
        Self { bytes, body, framing, is_flushed: false }
    }

    /// Sends what can be sent; ready when all is.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), Error>> {
        loop {
            // What is there of the body goes with the head, in one write.
            let is_waiting = self.gather(cx).map_err(Error::Body)?;
            while !self.bytes.is_empty() {
                self.is_flushed = false;
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.bytes)) {
                    Ok(count @ 1..) => self.bytes.advance(count),
                    Ok(0) | Err(_) => return Poll::Ready(Err(Error::Write)),
                }
            }
            if self.body.is_some() && !is_waiting {
                continue;
            }
            if !self.is_flushed {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Error::Write)?;
                self.is_flushed = true;
            }
            return if is_waiting { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
    }

    /// Takes of the body what is there, up to a bound; says whether more has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.bytes.len() < GATHERED {
            let Some(body) = &mut self.body else { return Ok(false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => self.encode(frame)?,
                Poll::Pending => return Ok(true),
            }
        }
        Ok(false)
    }

    fn encode(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> io::Result<()> {
        let trailers = match frame.transpose().map_err(io::Error::other)?.map(Frame::into_data) {
            Some(Ok(data)) => return self.encode_data(&data),
            Some(Err(frame)) => frame.into_trailers().unwrap_or_default(),
            None => HeaderMap::new(),
        };
        self.body = None;
        match self.framing {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(invalid("the body is shorter than its length")),
            Framing::Chunked => {
                self.bytes.extend_from_slice(b"0\r\n");
                for (name, value) in &trailers {
                    write_field(&mut self.bytes, name, value);
                }
                self.bytes.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    fn encode_data(&mut self, data: &Bytes) -> io::Result<()> {
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| invalid("the body is longer than its length"))?;
                self.bytes.extend_from_slice(data);
            }
            Framing::Chunked if data.is_empty() => {} // a chunk of no length would be the last
            Framing::Chunked => {
                let _ = write!(self.bytes, "{:X}\r\n", data.len()); // writing to memory does not fail
                self.bytes.extend_from_slice(data);
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

/// The request line and the fields; `Host` first (RFC 9110 §7.2), and the body's length as it will be sent,
/// whatever the fields say of it.
fn write_head(out: &mut BytesMut, request: &Request<RequestBody>, host: &HeaderValue, framing: Framing) {
    let is_said = request.headers().contains_key(header::CONTENT_LENGTH);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(request.uri().path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(out, &header::HOST, host);
    for (name, value) in request.headers() {
        match (name, framing) {
            (&header::CONTENT_LENGTH, Framing::Length(length)) => write_length(out, length),
            (&header::HOST | &header::TRANSFER_ENCODING | &header::CONTENT_LENGTH, _) => {}
            _ => write_field(out, name, value),
        }
    }
    match framing {
        Framing::Chunked => {
            write_field(out, &header::TRANSFER_ENCODING, &HeaderValue::from_static("chunked"));
        }
        Framing::Length(length) if !is_said && (length > 0 || has_content(request.method())) => {
            write_length(out, length);
        }
        Framing::Length(_) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a length of zero has to be said (RFC 9110 §8.6).
fn has_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn write_length(out: &mut BytesMut, length: u64) {
    let _ = write!(out, "content-length: {length}\r\n"); // writing to memory does not fail
}

fn write_field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a request with these fields, without its request line and `Host`.
    fn head(method: &str, fields: &[(&str, &str)], framing: Framing) -> String {
        let mut request = Request::builder().method(method).uri("/x?y=1");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut out = BytesMut::new();
        let host = HeaderValue::from_static("api.example");
        write_head(&mut out, &request.body(RequestBody::empty()).unwrap(), &host, framing);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let begin = format!("{method} /x?y=1 HTTP/1.1\r\nhost: api.example\r\n");
        text.strip_prefix(&begin).unwrap().strip_suffix("\r\n").unwrap().replace("\r\n", "|")
    }

    #[test]
    fn the_length_that_is_sent_is_the_bodys_own() {
        let lies = &[("content-length", "7"), ("x-a", "1"), ("host", "other.example")][..];
        let chunked = &[("transfer-encoding", "gzip"), ("content-length", "7")][..];
        for (method, fields, framing, expected) in [
            ("GET", &[][..], Framing::Length(0), ""),
            ("POST", &[], Framing::Length(0), "content-length: 0|"),
            ("GET", &[("content-length", "0")], Framing::Length(0), "content-length: 0|"),
            ("DELETE", &[], Framing::Length(3), "content-length: 3|"),
            ("PUT", lies, Framing::Length(3), "content-length: 3|x-a: 1|"),
            ("PUT", chunked, Framing::Chunked, "transfer-encoding: chunked|"),
        ] {
            assert_eq!(head(method, fields, framing), expected);
        }
    }

    #[test]
    fn a_body_is_neither_shorter_nor_longer_than_its_length() {
        let sending = |length| Sending {
            bytes: BytesMut::new(),
            body: None,
            framing: Framing::Length(length),
            is_flushed: false,
        };
        let frame = || Some(Ok(Frame::data(Bytes::from_static(b"abc"))));
        assert!(sending(2).encode(frame()).is_err());
        let mut exact = sending(3);
        assert!(exact.encode(frame()).is_ok() && exact.encode(None).is_ok());
        assert!(sending(3).encode(None).is_err());
    }

    #[test]
    fn an_empty_frame_does_not_end_a_body_in_chunks() {
        let mut sending =
            Sending { bytes: BytesMut::new(), body: None, framing: Framing::Chunked, is_flushed: false };
        for text in ["abc", "", "defghijklmno"] {
            sending.encode(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))).unwrap();
        }
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from(1))]);
        sending.encode(Some(Ok(Frame::trailers(trailers)))).unwrap();
        assert_eq!(sending.bytes, "3\r\nabc\r\nC\r\ndefghijklmno\r\n0\r\nx-sum: 1\r\n\r\n");
    }
}
