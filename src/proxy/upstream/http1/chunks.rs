//! A body in chunks (RFC 9112 §7.1).

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::{head::Places, invalid};

/// The longest line of a chunk, its extensions included, and the longest trailer section.
const MAX_LINE: usize = 4096;
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// Where in the chunks we are.
#[derive(Debug, Default)]
pub(super) enum Chunks {
    /// Before a chunk's length.
    #[default]
    Size,
    /// Within a chunk; so many bytes are to come.
    Data(u64),
    /// Behind a chunk, before the end of its line.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// What was taken out of what was read.
pub(super) enum Taken {
    /// Bytes of the body.
    Data(Bytes),
    /// Not enough is there.
    Nothing,
    /// The body is over; what came behind it.
    End(HeaderMap),
}

impl Chunks {
    /// Takes the next piece.
    ///
    /// # Errors
    /// Where it is not what the grammar says: a bare line feed is no line's end.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> io::Result<Taken> {
        loop {
            match self {
                Self::Size => match size(read)? {
                    None => return Ok(Taken::Nothing),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    let available = read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if available == 0 {
                        return Ok(Taken::Nothing);
                    }
                    *left -= available as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Taken::Data(read.split_to(available).freeze()));
                }
                Self::DataEnd => match read.get(..2) {
                    None => return Ok(Taken::Nothing),
                    Some(b"\r\n") => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(invalid("a chunk of the answer is longer than it says")),
                },
                Self::Trailers => return trailers(read),
            }
        }
    }
}

/// The length of a chunk. `httparse` would take a bare line feed and spaces for part of it.
fn size(read: &mut BytesMut) -> io::Result<Option<u64>> {
    let wrong = || invalid("a chunk of the answer has no length that can be read");
    let Some(end) = memchr::memchr(b'\n', read) else {
        return if read.len() > MAX_LINE { Err(wrong()) } else { Ok(None) };
    };
    let line = read[..end].strip_suffix(b"\r").filter(|line| line.len() <= MAX_LINE).ok_or_else(wrong)?;
    let (digits, extension) = line.split_at(line.iter().take_while(|b| b.is_ascii_hexdigit()).count());
    let is_extension = extension.trim_ascii_start().starts_with(b";") || extension.is_empty();
    if digits.is_empty() || digits.len() > 16 || !is_extension || extension.contains(&b'\r') {
        return Err(wrong());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| wrong())?;
    read.advance(end + 1);
    Ok(Some(size))
}

fn trailers(read: &mut BytesMut) -> io::Result<Taken> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(read, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            let places = Places::of(read, fields);
            Ok(Taken::End(places.take(&read.split_to(length).freeze())?))
        }
        Ok(httparse::Status::Partial) if read.len() <= MAX_TRAILERS => Ok(Taken::Nothing),
        _ => Err(invalid("the answer's trailers cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything taken from the text when it comes in pieces of `step` bytes, and what is left behind it.
    fn taken(text: &str, step: usize) -> io::Result<(String, Option<HeaderMap>, String)> {
        let (mut chunks, mut read, mut body) = (Chunks::default(), BytesMut::new(), String::new());
        let mut pieces = text.as_bytes().chunks(step);
        loop {
            match chunks.take(&mut read)? {
                Taken::Data(data) => body.push_str(std::str::from_utf8(&data).unwrap()),
                Taken::End(trailers) => {
                    pieces.for_each(|rest| read.extend_from_slice(rest));
                    return Ok((body, Some(trailers), String::from_utf8(read.to_vec()).unwrap()));
                }
                Taken::Nothing => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => return Ok((body, None, String::new())),
                },
            }
        }
    }

    #[test]
    fn chunks_are_put_together_however_they_are_cut() {
        let text =
            "5;name=\"v\"\r\nhello\r\n00A\r\n, all ther\r\n2 ;x\r\ne.\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\nnext";
        for step in 1..text.len() {
            let (body, trailers, rest) = taken(text, step).unwrap();
            let trailers = trailers.unwrap();
            assert_eq!((body.as_str(), rest.as_str()), ("hello, all there.", "next"));
            assert_eq!((trailers["x-sum"].as_bytes(), trailers.len()), (&b"1"[..], 2));
        }
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for wrong in [
            "5\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "\r\n",
            "-1\r\n",
            "11111111111111111\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n",
            "0\r\nno field\r\n\r\n",
        ] {
            assert!(taken(wrong, 1).is_err(), "{wrong:?}");
            assert!(taken(wrong, 100).is_err(), "{wrong:?}");
        }
        assert!(taken(&"0".repeat(MAX_LINE + 2), 100).is_err());
        assert!(taken(&format!("0\r\nx: {}", "y".repeat(MAX_TRAILERS)), 100).is_err());
    }

    #[test]
    fn a_body_that_breaks_off_has_no_end() {
        for cut in ["5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0"] {
            assert!(taken(cut, 3).unwrap().1.is_none());
        }
    }
}
