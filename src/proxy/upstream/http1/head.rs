//! The head of an answer, and how long its body is (RFC 9112 §6.3).

use std::{io, mem::MaybeUninit};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use super::{chunks::Chunks, invalid};
use crate::proxy::listed::is_listed;

/// As many fields as most answers have, by far. There is room for them on the stack.
const FIELDS: usize = 100;
/// More than providers send, cookies and policies of a page included.
pub(in crate::proxy::upstream) const MAX_FIELDS: usize = 1024;
/// What the agent gets besides: the action's id, timings.
const ADDED: usize = 2;

/// What stands before an answer's body.
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// Whether the connection cannot be used for another exchange.
    pub(super) is_last: bool,
}

/// How the end of a body is known.
#[derive(Debug)]
pub(super) enum Framing {
    /// After so many bytes more.
    Length(u64),
    /// By a chunk of length zero.
    Chunked(Chunks),
    /// The connection ends with it.
    UntilEnd,
}

impl Head {
    /// Takes a head out of what was read, if all of it is there.
    ///
    /// # Errors
    /// Where it cannot be read in exactly one way.
    pub(super) fn read(read: &mut BytesMut, method: &Method) -> io::Result<Option<Self>> {
        if read.is_empty() {
            return Ok(None);
        }
        let parsed = match Parsed::of(read, &mut [const { MaybeUninit::uninit() }; FIELDS]) {
            Err(httparse::Error::TooManyHeaders) => {
                Parsed::of(read, &mut vec![MaybeUninit::uninit(); MAX_FIELDS])
            }
            parsed => parsed,
        };
        let Parsed { length, version, code, places } = match parsed.map_err(unreadable)? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(parsed) => parsed,
        };
        let code = code.and_then(|code| StatusCode::from_u16(code).ok());
        let code = code.ok_or_else(|| invalid("the answer has no status that HTTP knows"))?;
        let mut response = Response::new(());
        *response.status_mut() = code;
        *response.version_mut() = version;
        *response.headers_mut() = places.take(&read.split_to(length).freeze())?;
        Self::of(response, method).map(Some)
    }

    fn of(mut response: Response<()>, method: &Method) -> io::Result<Self> {
        let (status, version) = (response.status(), response.version());
        let headers = response.headers_mut();
        let mut is_last = version < Version::HTTP_11 || is_listed(headers, &header::CONNECTION, "close");
        let no_body = *method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = content_length(headers)?;
        let framing = if no_body {
            Framing::Length(0)
        } else if is_chunked(headers, version)? {
            // Both: an attempt at smuggling, or a broken server. Chunks win, and nothing may follow.
            is_last |= headers.remove(header::CONTENT_LENGTH).is_some();
            Framing::Chunked(Chunks::default())
        } else {
            length.map_or(Framing::UntilEnd, Framing::Length)
        };
        is_last |= matches!(framing, Framing::UntilEnd) || status == StatusCode::SWITCHING_PROTOCOLS;
        Ok(Self { response, framing, is_last })
    }

    /// Whether the answer is still to come (RFC 9110 §15.2). After 101 nothing comes that would be HTTP.
    pub(super) fn is_interim(&self) -> bool {
        let status = self.response.status();
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// What a head says.
struct Parsed {
    length: usize,
    version: Version,
    code: Option<u16>,
    places: Places,
}

impl Parsed {
    fn of<'a>(read: &'a [u8], room: &mut [MaybeUninit<httparse::Header<'a>>]) -> httparse::Result<Self> {
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        Ok(match parser.parse_response_with_uninit_headers(&mut parsed, read, room)? {
            httparse::Status::Partial => httparse::Status::Partial,
            httparse::Status::Complete(length) => httparse::Status::Complete(Self {
                length,
                version: if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
                code: parsed.code,
                places: Places::of(read, parsed.headers),
            }),
        })
    }
}

fn unreadable(error: httparse::Error) -> io::Error {
    match error {
        httparse::Error::TooManyHeaders => invalid("the answer has more than 1024 header fields"),
        _ => invalid("the answer cannot be read as HTTP"),
    }
}

/// Where the fields stand in what was read, so that their values need no copy.
pub(super) struct Places(Vec<[usize; 4]>);

impl Places {
    pub(super) fn of(read: &[u8], fields: &[httparse::Header<'_>]) -> Self {
        let start = read.as_ptr() as usize;
        let place = |field: &httparse::Header<'_>| {
            let (name, value) = (field.name.as_ptr() as usize - start, field.value.as_ptr() as usize - start);
            [name, name + field.name.len(), value, value + field.value.len()]
        };
        Self(fields.iter().map(place).collect())
    }

    pub(super) fn take(self, head: &Bytes) -> io::Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(self.0.len() + ADDED);
        for [name, name_end, value, value_end] in self.0 {
            let unreadable = || invalid("the answer has a field that HTTP does not allow");
            let name = HeaderName::from_bytes(&head[name..name_end]).map_err(|_| unreadable())?;
            let value =
                HeaderValue::from_maybe_shared(head.slice(value..value_end)).map_err(|_| unreadable())?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

/// One number, however often it is said.
fn content_length(headers: &mut HeaderMap) -> io::Result<Option<u64>> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let digits = first.as_bytes();
    let number = || {
        let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        all_digits.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
    };
    let length = number().ok_or_else(|| invalid("the answer's Content-Length is no number"))?;
    let rest: Vec<_> = values.collect();
    if rest.iter().any(|other| *other != first) {
        return Err(invalid("the answer has two lengths"));
    }
    if !rest.is_empty() {
        let only = first.clone();
        headers.insert(header::CONTENT_LENGTH, only);
    }
    Ok(Some(length))
}

/// Whether the body comes in chunks. Another coding could not be taken off here, and what is left of it would pass
/// for the body.
fn is_chunked(headers: &HeaderMap, version: Version) -> io::Result<bool> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return Ok(false) };
    let only_chunked = first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if only_chunked && version == Version::HTTP_11 {
        return Ok(true);
    }
    Err(invalid("the answer's Transfer-Encoding is not one `chunked` in HTTP/1.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How an answer's body ends, whether its connection ends with it, and what of the head was left over.
    fn read(method: &Method, text: &str) -> io::Result<String> {
        let mut read = BytesMut::from(text);
        let head = Head::read(&mut read, method)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let framing = match head.framing {
            Framing::Length(length) => length.to_string(),
            Framing::Chunked(_) => "chunks".to_owned(),
            Framing::UntilEnd => "end".to_owned(),
        };
        assert_eq!(read, "rest");
        Ok(framing + if head.is_last { " last" } else { "" })
    }

    #[test]
    fn a_body_ends_as_rfc_9112_says() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK|content-length: 5|", "5"),
            ("HTTP/1.1 200 OK|content-length: 5|content-length: 5|", "5"),
            ("HTTP/1.1 200 OK|transfer-encoding: Chunked|", "chunks"),
            ("HTTP/1.1 200 OK|transfer-encoding: chunked|content-length: 5|", "chunks last"),
            ("HTTP/1.1 200 OK|", "end last"),
            ("HTTP/1.1 200|connection: keep-alive, Close|content-length: 5|", "5 last"),
            ("HTTP/1.0 200 OK|content-length: 5|", "5 last"),
            ("HTTP/1.1 204 No Content|content-length: 5|", "0"),
            ("HTTP/1.1 304 Not Modified|transfer-encoding: chunked|", "0"),
            ("HTTP/1.1 101 Switching Protocols|upgrade: x|", "0 last"),
            ("HTTP/1.1 103 Early Hints|link: </x>|", "0"),
        ] {
            let text = format!("{}\r\nrest", head.replace('|', "\r\n"));
            assert_eq!(read(&Method::GET, &text).unwrap(), expected, "{head}");
            let of_head =
                if expected.ends_with("last") && !head.contains("chunked") { "0 last" } else { "0" };
            if !expected.starts_with("end") && !head.contains("chunked|content-length") {
                assert_eq!(read(&Method::HEAD, &text).unwrap(), of_head, "{head}");
            }
        }
    }

    #[test]
    fn an_answer_with_two_readings_is_none() {
        for head in [
            "HTTP/1.1 200 OK|content-length: 5|content-length: 6|",
            "HTTP/1.1 200 OK|content-length: 5, 5|",
            "HTTP/1.1 200 OK|content-length: +5|",
            "HTTP/1.1 200 OK|content-length: |",
            "HTTP/1.1 200 OK|content-length: 99999999999999999999|",
            "HTTP/1.1 200 OK|transfer-encoding: gzip, chunked|",
            "HTTP/1.1 200 OK|transfer-encoding: chunked|transfer-encoding: chunked|",
            "HTTP/1.1 200 OK|transfer-encoding: identity|",
            "HTTP/1.0 200 OK|transfer-encoding: chunked|",
            "HTTP/1.1 200 OK|x-a: 1|  folded|",
            "HTTP/1.1 200 OK|x a: 1|",
            "HTTP/1.1 200 OK|x-a : 1|",
            "HTTP/1.1 42 OK|",
            "HTTP/2 200 OK|",
            "ICY 200 OK|",
        ] {
            let text = format!("{}\r\nrest", head.replace('|', "\r\n"));
            assert!(read(&Method::GET, &text).is_err(), "{head}");
        }
    }

    #[test]
    fn an_answer_may_have_a_thousand_fields() {
        let told = |count: usize| {
            let text = format!("HTTP/1.1 200 OK\r\n{}\r\nrest", "x-a: 1\r\n".repeat(count));
            let mut read = BytesMut::from(text.as_str());
            let head = Head::read(&mut read, &Method::GET).map_err(|error| error.to_string())?;
            Ok::<_, String>(head.unwrap().response.headers().get_all("x-a").iter().count())
        };
        for count in [FIELDS, FIELDS + 1, MAX_FIELDS] {
            assert_eq!(told(count), Ok(count));
        }
        assert_eq!(told(MAX_FIELDS + 1), Err("the answer has more than 1024 header fields".to_owned()));
    }

    #[test]
    fn values_are_what_stood_there() {
        let mut read = BytesMut::from("HTTP/1.1 200 OK\r\nX-A:  one  \r\nx-a: two\r\nx-empty:\r\n\r\n");
        let head = Head::read(&mut read, &Method::GET).unwrap().unwrap();
        let headers = head.response.headers();
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(headers["x-empty"], "");
    }
}
