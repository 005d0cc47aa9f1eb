//! Host names and addresses, read in exactly one way.
//!
//! Everything that names a destination (CONNECT authority, SNI, `Host`, `:authority`, absolute URI, policy
//! file) is parsed here into the same [`Host`], so that comparing two of them is comparing values.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Why a text is not a host, or not in exactly one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing was written.
    #[error("the host is empty")]
    Empty,
    /// Longer than DNS allows (253 bytes, 63 a label: RFC 1035 §2.3.4).
    #[error("the host is too long")]
    TooLong,
    /// Something else than letters, digits, `-`, `_` and `.`, such as `%`, a space or a raw U-label.
    #[error("the host has a character that a DNS name cannot have; write international names as xn-- labels")]
    Character,
    /// `a..b`, a leading dot, or a label that begins or ends with `-`.
    #[error("the host has an empty or malformed label")]
    Label,
    /// `2130706433`, `0x7f.1`, `127.1`: some clients read these as IPv4 addresses.
    #[error("the host reads as a number; write an IPv4 address as four decimal numbers")]
    Numeric,
    /// `[::1%eth0]`, missing brackets, or not an IPv6 address.
    #[error("the host is no IPv6 address in brackets, as in [::1], or names a zone")]
    Ipv6,
    /// `user:password@host`.
    #[error("the authority carries a user name")]
    Userinfo,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// A destination's name or address, canonical: lower case, no trailing dot, no zone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name in ASCII.
    Name(Arc<str>),
    /// An address literal.
    Ip(IpAddr),
}

impl Host {
    /// Reads a host as it stands in a URL, a `Host` header or an SNI: an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`HostError`] for anything that two readers could take for two destinations.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::Ipv6)?;
            return inner.parse::<Ipv6Addr>().map(|v6| Self::Ip(v6.into())).map_err(|_| HostError::Ipv6);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > 253 {
            return Err(HostError::TooLong);
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(if name.contains('@') { HostError::Userinfo } else { HostError::Character });
        }
        if last_label_is_numeric(name) {
            // `Ipv4Addr` takes four decimal numbers without leading zeros and nothing else; a trailing
            // dot after an address is refused with the rest.
            return text.parse::<Ipv4Addr>().map(|v4| Self::Ip(v4.into())).map_err(|_| HostError::Numeric);
        }
        for label in name.split('.') {
            if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
                return Err(HostError::Label);
            }
            if label.len() > 63 {
                return Err(HostError::TooLong);
            }
        }
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Ok(Self::Name(name.to_ascii_lowercase().into()));
        }
        Ok(Self::Name(name.into()))
    }

    /// The name, where it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) => None,
        }
    }
}

/// The WHATWG "ends in a number" rule: clients that follow it would read such a host as IPv4.
fn last_label_is_numeric(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
        || hex.is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    /// As it stands in a URL: an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(v4)) => v4.fmt(f),
            Self::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A host with the port, where one was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, where one was written.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// [`HostError`], also for a user name before an `@`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.contains('@') {
            return Err(HostError::Userinfo);
        }
        let split = match text.rfind(']') {
            Some(end) if end + 1 == text.len() => None,
            Some(end) if text.as_bytes()[end + 1] == b':' => Some(end + 1),
            Some(_) => return Err(HostError::Ipv6),
            None => text.find(':'),
        };
        let Some(colon) = split else {
            return Ok(Self { host: Host::parse(text)?, port: None });
        };
        if text[colon + 1..].contains(':') {
            return Err(HostError::Ipv6); // `::1`
        }
        Ok(Self { host: Host::parse(&text[..colon])?, port: Some(parse_port(&text[colon + 1..])?) })
    }
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Port); // `parse` would take a `+`
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(HostError::Port)
}

/// A host and a port: where a connection goes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Target {
    /// As it stands in a `Host` header of an `https` request: the port only where it is not 443.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            443 => self.host.fmt(f),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a text is not a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// What stands after the wildcard, or the whole, is no host.
    #[error("{0}")]
    Host(#[from] HostError),
    /// A wildcard elsewhere than as the whole first label.
    #[error(
        "`*` and {{name}} can only be the whole first label, as in *.example.com or {{instance}}.example.com"
    )]
    Wildcard,
    /// `https://api.example.com/`, where only the host belongs.
    #[error("this is a URL; write its host alone, as in api.example.com or api.example.com:8443")]
    Url,
    /// `*.com`: would match most of the internet.
    #[error("a wildcard needs at least two labels after it, as in *.example.com")]
    TooWide,
}

/// A host as policy files write it: exact, `*.example.com` (one label) or `{instance}.example.com` (one or
/// more labels, which must equal the account's metadata), with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    first: First,
    rest: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum First {
    Literal,
    AnyLabel,
    Captured(Arc<str>),
}

/// How a host fits a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch<'a> {
    /// Nothing was left open.
    Whole,
    /// The pattern's `{name}` and what stood there.
    Captured {
        /// The name in braces.
        name: &'a str,
        /// The labels that stood in its place.
        value: &'a str,
    },
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`], with what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains("://") {
            return Err(PatternError::Url);
        }
        let (first, rest) = match text.split_once('.') {
            Some(("*", rest)) => (First::AnyLabel, rest),
            Some((label, rest)) => match label.strip_prefix('{').and_then(|l| l.strip_suffix('}')) {
                Some(name) if !name.is_empty() => (First::Captured(name.into()), rest),
                _ => (First::Literal, text),
            },
            None => (First::Literal, text),
        };
        if rest.contains(['*', '{', '}']) {
            return Err(PatternError::Wildcard);
        }
        let Authority { host, port } = Authority::parse(rest)?;
        if first != First::Literal && !host.name().is_some_and(|name| name.contains('.')) {
            return Err(PatternError::TooWide);
        }
        Ok(Self { first, rest: host, port })
    }

    /// The port, where the pattern names one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The literal part: the whole host, or what follows the wildcard. Patterns are indexed by it.
    #[must_use]
    pub const fn literal(&self) -> &Host {
        &self.rest
    }

    /// The one host that matches, where the pattern leaves nothing open.
    #[must_use]
    pub fn exact(&self) -> Option<&Host> {
        (self.first == First::Literal).then_some(&self.rest)
    }

    /// The name in braces, where there is one.
    #[must_use]
    pub fn placeholder(&self) -> Option<&str> {
        match &self.first {
            First::Captured(name) => Some(name),
            First::Literal | First::AnyLabel => None,
        }
    }

    /// The host with `value` in the place of `{name}`; `None` if that makes no host or there are no braces.
    #[must_use]
    pub fn fill(&self, value: &str) -> Option<Host> {
        self.placeholder()?;
        match Host::parse(&format!("{value}.{}", self.rest)) {
            Ok(host) if self.matches(&host).is_some() => Some(host),
            _ => None,
        }
    }

    /// Whether the host fits, and what stood in the braces. The port is not looked at.
    #[must_use]
    pub fn matches<'a>(&'a self, host: &'a Host) -> Option<HostMatch<'a>> {
        if self.first == First::Literal {
            return (*host == self.rest).then_some(HostMatch::Whole);
        }
        let before = host.name()?.strip_suffix(self.rest.name()?)?.strip_suffix('.')?;
        match &self.first {
            First::Captured(name) => Some(HostMatch::Captured { name, value: before }),
            First::Literal | First::AnyLabel => (!before.contains('.')).then_some(HostMatch::Whole),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first {
            First::Literal => {}
            First::AnyLabel => f.write_str("*.")?,
            First::Captured(name) => write!(f, "{{{name}}}.")?,
        }
        self.rest.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_destination_has_one_spelling() {
        for text in ["api.github.com", "API.GitHub.com", "api.github.com."] {
            assert_eq!(Host::parse(text).unwrap().to_string(), "api.github.com");
        }
        assert_eq!(Host::parse("[0:0::1]").unwrap().to_string(), "[::1]");
        assert_eq!(Host::parse("xn--bcher-kva.example").unwrap().to_string(), "xn--bcher-kva.example");
    }

    #[test]
    fn hosts_with_two_readings_are_refused() {
        let table = [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("2130706433", HostError::Numeric),
            ("0x7f000001", HostError::Numeric),
            ("127.1", HostError::Numeric),
            ("127.0.0.01", HostError::Numeric),
            ("127.0.0.1.", HostError::Numeric),
            ("0177.0.0.1", HostError::Numeric),
            ("1.2.3.0x4", HostError::Numeric),
            ("a..b", HostError::Label),
            (".a", HostError::Label),
            ("a.b..", HostError::Label),
            ("-a.b", HostError::Label),
            ("%61pi.github.com", HostError::Character),
            ("api.github.com/x", HostError::Character),
            ("api github.com", HostError::Character),
            ("bücher.example", HostError::Character),
            ("api.github.com。", HostError::Character),
            ("[::1%25eth0]", HostError::Ipv6),
            ("[::1", HostError::Ipv6),
            ("[127.0.0.1]", HostError::Ipv6),
        ];
        for (text, error) in table {
            assert_eq!(Host::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn authorities() {
        let read = |text: &str| Authority::parse(text).map(|a| (a.host.to_string(), a.port));
        assert_eq!(read("a.example:8443"), Ok(("a.example".into(), Some(8443))));
        assert_eq!(read("[::1]:443"), Ok(("[::1]".into(), Some(443))));
        assert_eq!(read("[::1]"), Ok(("[::1]".into(), None)));
        assert_eq!(read("u:p@a.example"), Err(HostError::Userinfo));
        for bad in ["a.example:", "a.example:0", "a.example:65536", "a.example:+80", "a.example:8 0"] {
            assert_eq!(read(bad), Err(HostError::Port), "{bad:?}");
        }
        assert_eq!(read("::1"), Err(HostError::Ipv6));
        assert_eq!(read("[::1]x"), Err(HostError::Ipv6));
    }

    #[test]
    fn patterns() {
        let host = |text: &str| Host::parse(text).unwrap();
        let star = HostPattern::parse("*.pypi.org").unwrap();
        assert!(star.matches(&host("files.pypi.org")).is_some());
        for other in ["pypi.org", "a.b.pypi.org", "evilpypi.org", "pypi.org.evil.example"] {
            assert!(star.matches(&host(other)).is_none(), "{other}");
        }
        let captured = HostPattern::parse("{instance}.my.salesforce.com:8443").unwrap();
        assert_eq!(captured.port(), Some(8443));
        assert_eq!(
            captured.matches(&host("a--b.sandbox.my.salesforce.com")),
            Some(HostMatch::Captured { name: "instance", value: "a--b.sandbox" })
        );
        assert_eq!(captured.fill("na47"), Some(host("na47.my.salesforce.com")));
        for evil in ["evil.example/", "evil.example#", "a@b", "", "-"] {
            assert_eq!(captured.fill(evil), None, "{evil}");
        }
        assert_eq!(captured.to_string(), "{instance}.my.salesforce.com:8443");
    }

    #[test]
    fn patterns_that_match_too_much_or_are_none_are_refused() {
        for (text, error) in [
            ("*", PatternError::Wildcard),
            ("*.com", PatternError::TooWide),
            ("{host}", PatternError::Wildcard),
            ("a.*.com", PatternError::Wildcard),
            ("api*.example.com", PatternError::Wildcard),
            ("https://api.example.com/", PatternError::Url),
            ("https://*.example.com", PatternError::Url),
        ] {
            assert_eq!(HostPattern::parse(text), Err(error), "{text}");
        }
    }
}
