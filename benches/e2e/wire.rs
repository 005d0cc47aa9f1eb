//! The little HTTP/1.1 that the provider, the relay and the load generator need, so that core 0 is busy with
//! load and not with a library: heads up to the blank line, no bodies in requests, `Content-Length` in answers.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Enough for any head in this benchmark; a longer one is an error.
const HEAD: usize = 16 * 1024;

/// What was read of one direction of a connection and not yet used.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; HEAD].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Reads up to and including the next blank line and returns that head, or `None` where the peer has
    /// ended the connection between two heads.
    pub(crate) async fn head<S>(&mut self, stream: &mut S) -> Result<Option<&[u8]>, Error>
    where
        S: AsyncRead + Unpin,
    {
        loop {
            if let Some(at) = memchr::memmem::find(&self.bytes[self.start..self.end], b"\r\n\r\n") {
                let head = self.start..self.start + at + 4;
                self.start = head.end;
                return Ok(Some(&self.bytes[head]));
            }
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            match stream.read(&mut self.bytes[self.end..]).await? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(broken("the connection ended inside a head, or the head is too long")),
                read => self.end += read,
            }
        }
    }

    /// Reads the next `length` bytes.
    pub(crate) async fn take<S>(&mut self, stream: &mut S, length: usize) -> Result<Vec<u8>, Error>
    where
        S: AsyncRead + Unpin,
    {
        let held = length.min(self.end - self.start);
        let mut taken = self.bytes[self.start..self.start + held].to_vec();
        self.start += held;
        taken.resize(length, 0);
        stream.read_exact(&mut taken[held..]).await?;
        Ok(taken)
    }

    /// Reads and forgets the next `length` bytes.
    pub(crate) async fn skip<S>(&mut self, stream: &mut S, length: usize) -> Result<(), Error>
    where
        S: AsyncRead + Unpin,
    {
        let held = length.min(self.end - self.start);
        self.start += held;
        let mut left = length - held;
        while left > 0 {
            let room = left.min(HEAD);
            match stream.read(&mut self.bytes[..room]).await? {
                0 => return Err(broken("the connection ended inside a body")),
                read => left -= read,
            }
            self.start = 0;
            self.end = 0;
        }
        Ok(())
    }
}

/// The status of an answer's head.
pub(crate) fn status(head: &[u8]) -> Result<u16, Error> {
    std::str::from_utf8(head.get(9..12).unwrap_or_default())
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| broken("the answer has no status line"))
}

/// The `Content-Length` of an answer's head.
pub(crate) fn content_length(head: &[u8]) -> Result<usize, Error> {
    header(head, "content-length")
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| broken("the answer has no content-length"))
}

/// The value of the first header called `name`.
pub(crate) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(crate) fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
