//! The one path canonicaliser: what is judged is what is sent.

use std::fmt;

/// Why a path has more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `*`, or empty.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// `/./`, `/../`, also written `%2e`: clients and servers disagree on who removes them.
    #[error("the path has a . or .. segment")]
    DotSegment,
    /// `//`: some servers merge, some do not.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `\`, `%5C`: some servers read it as a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// `%2F`: some servers decode it before they route.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `%2`, `%zz`.
    #[error("the path has a % that two hexadecimal digits do not follow")]
    BadEncoding,
    /// `%252e`: a second decoding would change the path.
    #[error("the path has a doubly encoded dot, slash, backslash or control character")]
    DoubleEncoding,
    /// A byte below 0x20, 0x7F, or their encodings.
    #[error("the path has a control character")]
    Control,
    /// `/admin;x=y`: Java servers cut the segment at the semicolon, others do not.
    #[error("the path has a path parameter (a ; in a segment)")]
    Parameter,
}

/// An absolute path in its one spelling (RFC 3986 §6.2.2): unreserved characters bare, everything else that
/// needs it percent-encoded in upper case, no dot segments, no empty segments but a trailing one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalPath(String);

impl CanonicalPath {
    /// Reads the path of a request target, without its query.
    ///
    /// # Errors
    /// [`PathError`] where two servers could take it for two paths.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let mut path = String::with_capacity(raw.len());
        let bytes = raw.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let literal = if byte == b'%' {
                at += 3;
                hex(bytes, at - 2).ok_or(PathError::BadEncoding)?
            } else {
                at += 1;
                byte
            };
            match (literal, byte) {
                (b'/', b'%') => return Err(PathError::EncodedSlash),
                (b'/', _) => path.push('/'),
                (b'\\', _) => return Err(PathError::Backslash),
                (b';', _) => return Err(PathError::Parameter),
                (0..=0x1f | 0x7f, _) => return Err(PathError::Control),
                (literal, _) if is_unreserved(literal) => path.push(char::from(literal)),
                (literal, raw) if raw != b'%' && is_path_punctuation(literal) => {
                    path.push(char::from(literal));
                }
                (literal, _) => push_encoded(&mut path, literal),
            }
        }
        check_segments(&path)?;
        refuse_double(&path)?;
        Ok(Self(path))
    }

    /// The canonical path, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments after the leading `/`; a trailing `/` gives an empty last one.
    pub fn segments(&self) -> std::str::Split<'_, char> {
        self.0[1..].split('/')
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn check_segments(path: &str) -> Result<(), PathError> {
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_some() => return Err(PathError::EmptySegment),
            "." | ".." => return Err(PathError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

/// The byte that the two hexadecimal digits at `at` stand for.
fn hex(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    u8::try_from(digit(at)? * 16 + digit(at + 1)?).ok()
}

/// `%25` must not be followed by digits that a second decoding would turn into something that matters. Asked of
/// the canonical spelling: in `%25%32f` the digits themselves came encoded.
fn refuse_double(path: &str) -> Result<(), PathError> {
    let twice = |(at, _)| hex(path.as_bytes(), at + 3);
    match path.match_indices("%25").find_map(|found| twice(found).filter(|byte| is_ambiguous(*byte))) {
        Some(_) => Err(PathError::DoubleEncoding),
        None => Ok(()),
    }
}

const fn is_ambiguous(byte: u8) -> bool {
    matches!(byte, b'.' | b'/' | b'\\' | b';' | b'%' | 0..=0x1f | 0x7f)
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `sub-delims`, `:` and `@` (RFC 3986 §3.3), which mean one thing bare and may mean another encoded.
const fn is_path_punctuation(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

fn push_encoded(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(char::from(DIGITS[usize::from(byte >> 4)]));
    path.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_has_one_spelling() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/user", "/user"),
            ("/user/", "/user/"),
            ("/%75ser", "/user"),
            ("/a%2db", "/a-b"),
            ("/a%3ab", "/a%3Ab"),
            ("/a:b@c", "/a:b@c"),
            ("/a b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/{x}|\"", "/%7Bx%7D%7C%22"),
            ("/100%25", "/100%25"),
            ("/compare/a...b", "/compare/a...b"),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            let parsed = CanonicalPath::parse(raw).unwrap();
            assert_eq!(parsed.as_str(), canonical, "{raw}");
            assert_eq!(CanonicalPath::parse(canonical).unwrap(), parsed, "canonical form is stable");
        }
    }

    #[test]
    fn paths_with_two_readings_are_refused() {
        for (raw, error) in [
            ("*", PathError::NotAbsolute),
            ("", PathError::NotAbsolute),
            ("/a/../b", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/a/.", PathError::DotSegment),
            ("/a//b", PathError::EmptySegment),
            ("//", PathError::EmptySegment),
            ("/a\\b", PathError::Backslash),
            ("/a%5cb", PathError::Backslash),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a%2", PathError::BadEncoding),
            ("/a%zz", PathError::BadEncoding),
            ("/%252e%252e/b", PathError::DoubleEncoding),
            ("/a%252fb", PathError::DoubleEncoding),
            ("/a%25252f", PathError::DoubleEncoding),
            ("/a%25%32f", PathError::DoubleEncoding),
            ("/a%25%32%66", PathError::DoubleEncoding),
            ("/~~%25%325", PathError::DoubleEncoding),
            ("/a%00", PathError::Control),
            ("/a%0d%0ab", PathError::Control),
            ("/a;b=c", PathError::Parameter),
            ("/a%3bb", PathError::Parameter),
        ] {
            assert_eq!(CanonicalPath::parse(raw), Err(error), "{raw:?}");
        }
    }
}
