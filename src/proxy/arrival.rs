//! Every way in becomes the same thing: one destination, one path, one method (laws 1 and 7).
//!
//! Whatever names the destination of a request is parsed and compared here: the CONNECT authority and the SNI
//! of its tunnel, the port that a redirected connection was made to, the absolute URI or `:authority`, and `Host`. If two of them differ the request is refused,
//! before anything is looked up under either.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request, Uri, Version, header, request::Parts};
use hyper::ext::Protocol;

use super::{
    listed::is_listed,
    refusal::{Code, Refusal},
};
use crate::{
    host::{Authority, Host, Target},
    id::ConnectorName,
    identity::Claim,
    path::CanonicalPath,
};

/// How a connection reached us.
#[derive(Debug)]
pub(super) enum Entry {
    /// Straight to the proxy: requests are in absolute form.
    Direct,
    /// Inside a CONNECT tunnel, or inside TLS that was redirected to us.
    Tunnel(Tunnel),
    /// Redirected to us without TLS, with where it was going; `None` if nothing was redirected and somebody came
    /// straight to the listener for such connections.
    Redirected(Option<SocketAddr>),
}

/// What is known of a tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// What CONNECT named; of redirected TLS the server name (the address where there was none) and the port.
    pub(super) target: Target,
    /// Who named it.
    pub(super) opened: Opened,
    /// The server name of the TLS handshake inside, where there was one.
    pub(super) sni: Option<Host>,
    /// Whether TLS was spoken inside.
    pub(super) tls: bool,
    /// What the CONNECT request said about who asks.
    pub(super) claim: Option<Claim>,
}

/// What a tunnel was opened by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// A CONNECT request.
    Connect,
    /// TLS to somewhere else, which a rule of the system's redirected to us.
    Redirect,
}

impl Entry {
    /// Whether a request on this connection addresses the proxy itself.
    #[must_use]
    pub(super) const fn addresses_proxy(&self) -> bool {
        matches!(self, Self::Direct)
    }

    /// What its requests say who asks by, where they do not say it themselves.
    pub(super) const fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Tunnel(tunnel) => tunnel.claim.as_ref(),
            Self::Direct | Self::Redirected(_) => None,
        }
    }

    /// Where it leads, whatever its requests name.
    pub(super) const fn target(&self) -> Option<&Target> {
        match self {
            Self::Tunnel(tunnel) => Some(&tunnel.target),
            Self::Direct | Self::Redirected(_) => None,
        }
    }
}

/// One request's destination and operation, in their one reading.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The host that every part of the request names.
    pub(super) host: Host,
    /// The port, where one was written.
    pub(super) port: Option<u16>,
    /// Written as `http://` (or without TLS in a tunnel): only this may mean port 80.
    pub(super) plain: bool,
    /// The canonical path.
    pub(super) path: CanonicalPath,
    /// The query as it was written.
    pub(super) query: Option<String>,
    /// The method; `GET` for an extended CONNECT (RFC 8441), which opens a WebSocket.
    pub(super) method: Method,
    /// Whether it asks to become a WebSocket.
    pub(super) websocket: bool,
    /// Whether the URI carried a user name, which is dropped.
    pub(super) userinfo: bool,
}

impl Arrival {
    /// Reads a request head.
    ///
    /// # Errors
    /// `misdirected` when two parts name two destinations, `bad_request` when a part has no single reading.
    pub(super) fn read(entry: &Entry, parts: &Parts) -> Result<Self, Refusal> {
        check_framing(parts)?;
        let (named, userinfo) = uri_authority(&parts.uri)?;
        let expected = match entry {
            Entry::Direct => named.as_ref().map(|authority| &authority.host),
            Entry::Tunnel(tunnel) => Some(&tunnel.target.host),
            Entry::Redirected(_) => None,
        };
        let host_field = host_field(&parts.headers, expected)?;
        // HTTP/1.1 wants it always (RFC 9112 §3.2); elsewhere the URI will do.
        if host_field.is_none() && (parts.version == Version::HTTP_11 || named.is_none()) {
            return Err(Refusal::bad_request("the request has no Host header"));
        }
        let plain = parts.uri.scheme_str().map_or_else(|| entry.is_plain(), |scheme| scheme == "http");
        let (host, port) = match entry {
            Entry::Direct => {
                let authority = named.ok_or_else(origin_form)?;
                agree(&authority, host_field.as_ref(), default_port(plain))?;
                (authority.host, authority.port)
            }
            Entry::Tunnel(tunnel) => {
                tunnel.agree(named.as_ref(), host_field.as_ref())?;
                (tunnel.target.host.clone(), Some(tunnel.target.port))
            }
            Entry::Redirected(original) => redirected(*original, named, host_field)?,
        };
        let websocket = asks_websocket(parts);
        Ok(Self {
            host,
            port,
            plain,
            path: CanonicalPath::parse(parts.uri.path()).map_err(Refusal::bad_request)?,
            query: parts.uri.query().map(str::to_owned),
            method: if parts.method == Method::CONNECT { Method::GET } else { parts.method.clone() },
            websocket,
            userinfo,
        })
    }
}

impl Arrival {
    /// What a request with this method and URL would be read as. One to an `https://` URL comes through a tunnel,
    /// and a tunnel always has a port.
    ///
    /// # Errors
    /// What [`Arrival::read`] would refuse, and what could not be sent.
    pub(super) fn of(method: &str, url: &str) -> Result<Self, Refusal> {
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::bad_request("that is no method"))?;
        if method == Method::CONNECT {
            return Err(Refusal::bad_request("CONNECT opens a tunnel: name the request inside it"));
        }
        let uri = Uri::try_from(url).map_err(|_| Refusal::bad_request("the URL cannot be read"))?;
        let mut parts = Request::new(()).into_parts().0;
        (parts.method, parts.uri, parts.version) = (method, uri, Version::HTTP_2);
        let mut arrival = Self::read(&Entry::Direct, &parts)?;
        if !arrival.plain {
            arrival.port.get_or_insert(default_port(false));
        }
        Ok(arrival)
    }

    /// A request to a connector by its name.
    ///
    /// # Errors
    /// `bad_request` for a name that no host can have.
    pub(super) fn by_name(connector: &ConnectorName) -> Result<Self, Refusal> {
        let host = Host::parse(&format!("{connector}.connector.internal")).map_err(Refusal::bad_request)?;
        Self::of("GET", &format!("http://{host}/"))
    }

    /// The port that has to be the connector's. By its own name a connector has no port, so what the URL's
    /// scheme implies says nothing there.
    #[must_use]
    pub(super) fn named_port(&self) -> Option<u16> {
        let by_name = self.host.name().is_some_and(|name| name.ends_with(".connector.internal"));
        self.port.filter(|port| !(by_name && matches!(port, 80 | 443)))
    }
}

impl Entry {
    const fn is_plain(&self) -> bool {
        match self {
            Self::Direct | Self::Redirected(_) => true,
            Self::Tunnel(tunnel) => !tunnel.tls,
        }
    }
}

impl Tunnel {
    /// Everything a request in the tunnel names must be what CONNECT named. A port left out is the tunnel's.
    fn agree(&self, named: Option<&Authority>, host_field: Option<&Authority>) -> Result<(), Refusal> {
        if self.sni.as_ref().is_some_and(|sni| *sni != self.target.host) {
            return Err(self.misdirected("the TLS server name"));
        }
        for (what, authority) in [("the request's URI", named), ("the Host header", host_field)] {
            let Some(Authority { host, port }) = authority else { continue };
            if *host != self.target.host || port.is_some_and(|port| port != self.target.port) {
                return Err(self.misdirected(what));
            }
        }
        Ok(())
    }

    fn misdirected(&self, what: &str) -> Refusal {
        let target = &self.target;
        let detail = match (self.opened, &self.sni) {
            (Opened::Connect, _) => format!(
                "misdirected: {what} names another host than CONNECT did ({target}); open a tunnel of its own for it"
            ),
            (Opened::Redirect, Some(_)) => format!(
                "misdirected: {what} names another host or port than the connection was made to ({target}); open a connection of its own for it"
            ),
            (Opened::Redirect, None) => format!(
                "misdirected: {what} names a host, but TLS was begun without a server name, so the connection is to {target}; use a client that sends the server name (SNI)"
            ),
        };
        Refusal::new(Code::Misdirected, detail)
    }
}

/// The destination of a redirected request without TLS: the host that it names. A port that it names has to be the
/// one that the connection was made to; port 80 left out says no more than an absolute `http://host/` does.
fn redirected(
    original: Option<SocketAddr>,
    named: Option<Authority>,
    host_field: Option<Authority>,
) -> Result<(Host, Option<u16>), Refusal> {
    let Some(original) = original else {
        return Err(Refusal::new(
            Code::Misdirected,
            "misdirected: this connection was not redirected, so nothing says where it was going; a proxy is at listen.proxy",
        ));
    };
    if let (Some(uri), Some(_)) = (&named, &host_field) {
        agree(uri, host_field.as_ref(), original.port())?;
    }
    let Some(Authority { host, port }) = named.or(host_field) else {
        return Err(Refusal::bad_request("the request has no Host header"));
    };
    match port {
        Some(port) if port != original.port() => {
            let detail = format!(
                "misdirected: the request names port {port} of {host}, but the connection was made to port {}",
                original.port()
            );
            Err(Refusal::new(Code::Misdirected, detail))
        }
        None if original.port() == 80 => Ok((host, None)),
        _ => Ok((host, Some(original.port()))),
    }
}

/// An absolute URI and `Host` must name the same (RFC 9112 §3.2.2 would have us ignore `Host`; whoever sends
/// two destinations gets neither).
fn agree(uri: &Authority, host_field: Option<&Authority>, default: u16) -> Result<(), Refusal> {
    let Some(field) = host_field else { return Ok(()) };
    if field.host == uri.host && field.port.unwrap_or(default) == uri.port.unwrap_or(default) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Misdirected,
        "misdirected: the Host header names another host than the request's URI",
    ))
}

const fn default_port(plain: bool) -> u16 {
    if plain { 80 } else { 443 }
}

fn origin_form() -> Refusal {
    Refusal::bad_request(
        "this is a proxy: send the whole URL in the request line (set HTTP_PROXY and HTTPS_PROXY), or CONNECT",
    )
}

/// The authority of an absolute URI, without the user name that may stand before it.
fn uri_authority(uri: &Uri) -> Result<(Option<Authority>, bool), Refusal> {
    let Some(authority) = uri.authority() else { return Ok((None, false)) };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(Refusal::bad_request("the URL's scheme is neither http nor https"));
    }
    let text = authority.as_str();
    // At the first `@`: a second one, which some readers would cut at instead, is no part of a host.
    let (bare, userinfo) = text.split_once('@').map_or((text, false), |(_, bare)| (bare, true));
    let authority = Authority::parse(bare).map_err(Refusal::bad_request)?;
    Ok((Some(authority), userinfo))
}

/// The `Host` header. It is nearly always spelt as the host that is expected, and then not parsed once more.
fn host_field(headers: &HeaderMap, expected: Option<&Host>) -> Result<Option<Authority>, Refusal> {
    let mut fields = headers.get_all(header::HOST).iter();
    let Some(first) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Refusal::bad_request("the request has more than one Host header"));
    }
    let text = first.to_str().map_err(|_| Refusal::bad_request("the Host header is not ASCII"))?;
    match expected {
        Some(host @ Host::Name(name)) if **name == *text => {
            Ok(Some(Authority { host: host.clone(), port: None }))
        }
        _ => Authority::parse(text).map(Some).map_err(Refusal::bad_request),
    }
}

/// What hyper's parser lets pass but RFC 9112 §6.3 lets a proxy refuse: a message with two framings. The
/// methods that would send the agent its own request back, credentials and all, are refused with it.
fn check_framing(parts: &Parts) -> Result<(), Refusal> {
    let headers = &parts.headers;
    if headers.contains_key(header::TRANSFER_ENCODING) {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Refusal::bad_request("the request has both Content-Length and Transfer-Encoding"));
        }
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let only_chunked =
            codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !only_chunked || codings.next().is_some() || parts.version != Version::HTTP_11 {
            return Err(Refusal::bad_request(
                "the only Transfer-Encoding understood is one `chunked` in HTTP/1.1",
            ));
        }
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Refusal::bad_request("the request has more than one Content-Length header"));
    }
    if parts.method == Method::TRACE || parts.method.as_str().eq_ignore_ascii_case("TRACK") {
        return Err(Refusal::bad_request("TRACE would send the credential back"));
    }
    Ok(())
}

/// An h1 `Upgrade: websocket`, or the extended CONNECT of RFC 8441. Other upgrades, `h2c` among them, are
/// ignored, as RFC 9110 §7.8 allows.
fn asks_websocket(parts: &Parts) -> bool {
    if parts.method == Method::CONNECT {
        return parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    }
    parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && is_listed(&parts.headers, &header::UPGRADE, "websocket")
        && is_listed(&parts.headers, &header::CONNECTION, "upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, version: Version, host: Option<&str>) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn tunnel(authority: &str, sni: Option<&str>) -> Entry {
        let Authority { host, port } = Authority::parse(authority).unwrap();
        Entry::Tunnel(Tunnel {
            target: Target { host, port: port.unwrap() },
            opened: Opened::Connect,
            sni: sni.map(|name| Host::parse(name).unwrap()),
            tls: true,
            claim: None,
        })
    }

    fn code(entry: &Entry, parts: &Parts) -> Result<String, &'static str> {
        Arrival::read(entry, parts)
            .map(|a| format!("{}:{:?}{}", a.host, a.port, a.path))
            .map_err(|r| r.code().as_str())
    }

    #[test]
    fn all_names_of_a_destination_must_agree() {
        let v11 = Version::HTTP_11;
        let v2 = Version::HTTP_2;
        let inside = tunnel("a.example:443", Some("a.example"));
        let ok = Ok("a.example:Some(443)/x".to_owned());
        assert_eq!(code(&inside, &parts("GET", "/x", v11, Some("A.example"))), ok);
        assert_eq!(code(&inside, &parts("GET", "/x", v11, Some("a.example.:443"))), ok);
        assert_eq!(code(&inside, &parts("GET", "https://a.example/x", v2, None)), ok);
        for wrong in [
            parts("GET", "/x", v11, Some("b.example")),
            parts("GET", "/x", v11, Some("a.example:8443")),
            parts("GET", "https://b.example/x", v11, Some("a.example")),
            parts("GET", "https://b.example/x", v2, None),
            parts("GET", "https://a.example/x", v2, Some("b.example")),
        ] {
            assert_eq!(code(&inside, &wrong), Err("misdirected"));
        }
        let other_sni = tunnel("a.example:443", Some("b.example"));
        assert_eq!(code(&other_sni, &parts("GET", "/x", v11, Some("a.example"))), Err("misdirected"));
    }

    #[test]
    fn absolute_form_needs_a_host_that_agrees() {
        let v11 = Version::HTTP_11;
        let read = |uri, host| code(&Entry::Direct, &parts("GET", uri, v11, host));
        assert_eq!(read("http://a.example/x", Some("a.example")), Ok("a.example:None/x".into()));
        assert_eq!(read("http://a.example:80/x", Some("a.example")), Ok("a.example:Some(80)/x".into()));
        assert_eq!(read("http://u:p@a.example/x", Some("a.example")), Ok("a.example:None/x".into()));
        assert_eq!(read("http://a.example/x", Some("b.example")), Err("misdirected"));
        assert_eq!(read("http://a.example/x", None), Err("bad_request"));
        assert_eq!(read("/x", Some("a.example")), Err("bad_request"));
        assert_eq!(read("http://a.example/x", Some("u@a.example")), Err("bad_request"));
        assert_eq!(read("ftp://a.example/x", Some("a.example")), Err("bad_request"));
    }

    #[test]
    fn a_redirected_request_goes_to_its_host_at_the_port_that_was_dialled() {
        let (v11, v2) = (Version::HTTP_11, Version::HTTP_2);
        let to = |port: u16| Entry::Redirected(Some(SocketAddr::from(([203, 0, 113, 7], port))));
        let read = |port, uri, host| code(&to(port), &parts("GET", uri, v11, host));
        assert_eq!(read(80, "/x", Some("a.example")), Ok("a.example:None/x".into()));
        assert_eq!(read(80, "/x", Some("a.example:80")), Ok("a.example:Some(80)/x".into()));
        assert_eq!(read(8080, "/x", Some("a.example")), Ok("a.example:Some(8080)/x".into()));
        assert_eq!(read(8080, "/x", Some("a.example:8080")), Ok("a.example:Some(8080)/x".into()));
        assert_eq!(read(80, "http://a.example/x", Some("a.example")), Ok("a.example:None/x".into()));
        assert_eq!(
            code(&to(80), &parts("GET", "http://a.example/x", v2, None)),
            Ok("a.example:None/x".into())
        );
        for (port, uri, host) in [
            (80, "/x", "a.example:443"),
            (8080, "/x", "a.example:80"),
            (80, "http://b.example/x", "a.example"),
            (80, "http://a.example:8080/x", "a.example:8080"),
        ] {
            assert_eq!(read(port, uri, Some(host)), Err("misdirected"), "{port} {uri} {host}");
        }
        assert_eq!(read(80, "/x", None), Err("bad_request"));
        assert_eq!(code(&to(80), &parts("GET", "/x", v2, None)), Err("bad_request"));
        let direct = Entry::Redirected(None);
        assert_eq!(code(&direct, &parts("GET", "/x", v11, Some("a.example"))), Err("misdirected"));
    }

    #[test]
    fn redirected_tls_is_to_its_server_name_or_to_the_address() {
        let host = |text: &str| Host::parse(text).unwrap();
        let to = |name: &str, sni: Option<&str>| {
            let target = Target { host: host(name), port: 443 };
            Entry::Tunnel(Tunnel {
                target,
                opened: Opened::Redirect,
                sni: sni.map(host),
                tls: true,
                claim: None,
            })
        };
        let read = |entry: &Entry, field| {
            let read = Arrival::read(entry, &parts("GET", "/x", Version::HTTP_11, Some(field)));
            read.map(|arrival| arrival.host.to_string()).map_err(|refusal| refusal.detail().to_owned())
        };
        let named = to("a.example", Some("a.example"));
        assert_eq!(read(&named, "a.example"), Ok("a.example".into()));
        assert!(read(&named, "b.example").unwrap_err().contains("a connection of its own"));
        let nameless = to("203.0.113.7", None);
        assert_eq!(read(&nameless, "203.0.113.7"), Ok("203.0.113.7".into()));
        assert!(read(&nameless, "a.example").unwrap_err().contains("(SNI)"));
    }

    #[test]
    fn two_framings_and_two_hosts_are_refused() {
        let request = |fields: &[(&str, &str)]| {
            let mut parts = parts("POST", "http://a.example/x", Version::HTTP_11, Some("a.example"));
            for (name, value) in fields {
                parts.headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
            }
            code(&Entry::Direct, &parts)
        };
        assert!(request(&[("content-length", "3")]).is_ok());
        for fields in [
            &[("content-length", "3"), ("transfer-encoding", "chunked")][..],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("content-length", "3"), ("content-length", "3")],
            &[("host", "a.example")],
        ] {
            assert_eq!(request(fields), Err("bad_request"), "{fields:?}");
        }
    }
}
