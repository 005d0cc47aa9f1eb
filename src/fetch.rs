//! One bounded HTTPS request for what the proxy itself needs: a JWKS, a token.

use std::{fmt, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

use crate::{
    host::{Authority, Host, HostError, Target},
    names::{Names, Unresolved},
    secret::Secret,
};

const AGENT: &str = concat!("keybearer/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer. Never holds the URL or a part of the answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an `https` URL, nor an `http` one.
    #[error("the URL is not an absolute https:// URL")]
    Url,
    /// The URL's host has more than one reading, or carries a user name.
    #[error("the URL is refused: {0}")]
    Host(#[from] HostError),
    /// `http` to another machine.
    #[error("an http:// URL is only taken for a loopback address; write https://")]
    Cleartext,
    /// The token that the server is to know us by cannot stand in a header.
    #[error("the token cannot stand in a header: it is of several lines, or not of ASCII")]
    Bearer,
    /// The host's name has no address.
    #[error("cannot find the host: {0}")]
    Resolve(#[from] Unresolved),
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The handshake failed, for instance over the certificate.
    #[error("cannot agree on TLS; if the server's CA is a private one, name it in egress.roots")]
    Tls(#[source] io::Error),
    /// Redirects are not followed: they could lead anywhere.
    #[error("answered {0}, a redirect; write the final URL instead")]
    Redirect(StatusCode),
    /// Not `200 OK`.
    #[error("answered {0} instead of 200")]
    Status(StatusCode),
    /// No whole answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// Not done in time.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
}

/// Gets the body at `url`, of at most `limit_bytes`, within `limit`, connecting included. Only `200` counts and
/// no redirect is followed. `http` is taken for a host whose every address is loopback.
///
/// # Errors
/// [`Error`] otherwise.
pub async fn get(
    url: &str,
    tls: &Arc<ClientConfig>,
    limit_bytes: usize,
    limit: Duration,
) -> Result<Vec<u8>, Error> {
    get_as(None, url, tls, limit_bytes, limit).await
}

/// The same by whom the server knows by this bearer token.
///
/// # Errors
/// As [`get`].
pub async fn get_as(
    bearer: Option<&Secret>,
    url: &str,
    tls: &Arc<ClientConfig>,
    limit_bytes: usize,
    limit: Duration,
) -> Result<Vec<u8>, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(bearer) = bearer {
        headers.insert(header::AUTHORIZATION, authorization(bearer)?);
    }
    let question = Question { method: Method::GET, headers, body: Zeroizing::default() };
    let (status, body) = match call(&Url::parse(url)?, tls, question, limit_bytes, limit).await {
        Ok(mut answer) => (answer.status, Ok(std::mem::take(&mut *answer.body))),
        Err(Error::Unanswered(long @ Unanswered::TooLong { status, .. })) => (status, Err(long.into())),
        Err(error) => return Err(error),
    };
    match status {
        StatusCode::OK => body,
        status if status.is_redirection() => Err(Error::Redirect(status)),
        status => Err(Error::Status(status)),
    }
}

/// What is asked over a connection that is already open.
pub struct Question {
    /// `POST`, nearly always.
    pub method: Method,
    /// `Host`, `User-Agent` and `Connection` are added.
    pub headers: HeaderMap,
    /// Wiped when it was sent.
    pub body: Zeroizing<Vec<u8>>,
}

/// An answer, whatever its status.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no whole answer to a [`Question`].
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The connection was closed before the first byte of the question was written to it.
    #[error("the connection was closed before anything was sent")]
    NotSent,
    /// The question went out, wholly or in part; whether it was carried out, nobody knows.
    #[error("the exchange broke off")]
    Broken(#[source] hyper::Error),
    /// The body is longer than the caller takes.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// In bytes.
        limit: usize,
        /// What it began with.
        status: StatusCode,
    },
}

/// Connects, asks once, and reads the answer, of at most `limit_bytes`; all of it within `limit`. As with [`get`], `http` is
/// taken for a host whose every address is loopback; a redirect is an answer like any other.
///
/// # Errors
/// [`Error`].
pub async fn call(
    url: &Url,
    tls: &ClientConfig,
    question: Question,
    limit_bytes: usize,
    limit: Duration,
) -> Result<Answer, Error> {
    let called = async {
        let tcp = url.connect(&Names::system()).await?;
        if url.cleartext {
            return Ok(exchange(tcp, url, question, limit_bytes).await?);
        }
        Ok(exchange(url.secure(tcp, tls).await?, url, question, limit_bytes).await?)
    };
    timeout(limit, called).await.unwrap_or(Err(Error::Timeout(limit)))
}

/// Asks once over `stream`, which must lead to the URL's host, and reads the answer, of at most `limit_bytes`. Nothing is
/// repeated, and a redirect is an answer like any other. The caller bounds the time.
///
/// # Errors
/// [`Unanswered`].
pub async fn exchange<S>(
    stream: S,
    url: &Url,
    question: Question,
    limit_bytes: usize,
) -> Result<Answer, Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Unanswered::NotSent)?;
    let mut request = Request::new(Full::new(Bytes::from_owner(question.body)));
    *request.method_mut() = question.method;
    *request.headers_mut() = question.headers;
    url.address(&mut request);
    let exchange = pin!(async {
        let answer =
            sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
                Some(_) => Unanswered::NotSent,
                None => Unanswered::Broken(error.into_error()),
            })?;
        let (head, incoming) = answer.into_parts();
        let body = body(incoming, limit_bytes).await.map_err(|error| match error {
            BodyError::TooLong => Unanswered::TooLong { limit: limit_bytes, status: head.status },
            BodyError::Broken(error) => Unanswered::Broken(error),
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    });
    // The connection moves the bytes and may end first, with the rest of the answer still to be taken.
    match select(exchange, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// An absolute URL, read in exactly one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    cleartext: bool,
    target: Target,
    origin_form: Uri,
}

impl Url {
    /// Reads an absolute `https` or `http` URL. A fragment is cut off.
    ///
    /// # Errors
    /// [`Error::Url`] and [`Error::Host`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let uri: Uri = text.parse().map_err(|_| Error::Url)?;
        let cleartext = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(Error::Url),
        };
        let authority = uri.authority().ok_or(Error::Url)?;
        let Authority { host, port } = Authority::parse(authority.as_str())?;
        let port = port.unwrap_or(if cleartext { 80 } else { 443 });
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let origin_form = format!("{}{query}", uri.path()).parse().map_err(|_| Error::Url)?;
        Ok(Self { cleartext, target: Target { host, port }, origin_form })
    }

    /// Where it leads.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Whether it is `http`.
    #[must_use]
    pub const fn is_cleartext(&self) -> bool {
        self.cleartext
    }

    /// Whether it names a host and no part of it.
    #[must_use]
    pub fn is_whole_host(&self) -> bool {
        self.origin_form == "/"
    }

    /// The same with more in its query.
    ///
    /// # Errors
    /// [`Error::Url`] where `query` cannot be part of a URL, or makes it too long.
    pub fn with_query(&self, query: &str) -> Result<Self, Error> {
        let joint = if self.origin_form.query().is_some() { '&' } else { '?' };
        let origin_form =
            Zeroizing::new(format!("{}{joint}{query}", self.origin_form)).parse().map_err(|_| Error::Url)?;
        Ok(Self { origin_form, ..self.clone() })
    }

    async fn connect(&self, names: &Names) -> Result<TcpStream, Error> {
        let addresses = self.resolve(names).await?;
        if self.cleartext && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(Error::Cleartext);
        }
        let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(Error::Connect)?;
        tcp.set_nodelay(true).map_err(Error::Connect)?;
        Ok(tcp)
    }

    /// An issuer in the cluster may have a short name, as `kubernetes.default.svc` is one.
    async fn resolve(&self, names: &Names) -> Result<Vec<SocketAddr>, Unresolved> {
        let ips = match &self.target.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => names.search(name).await?,
        };
        Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, self.target.port)).collect())
    }

    async fn secure(&self, tcp: TcpStream, tls: &ClientConfig) -> Result<TlsStream<TcpStream>, Error> {
        let name = match &self.target.host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| Error::Url)?,
        };
        // Whatever the caller offers to others: only HTTP/1.1 is spoken here.
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.map_err(Error::Tls)
    }

    /// Says where the request goes, who makes it, and that it is the connection's last.
    fn address<B>(&self, request: &mut Request<B>) {
        *request.uri_mut() = self.origin_form.clone();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(self.authority()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }

    /// As it stands in `Host`: the port only where the scheme does not imply it.
    fn authority(&self) -> String {
        match (self.cleartext, self.target.port) {
            (true, 80) => self.target.host.to_string(),
            (true, port) => format!("{}:{port}", self.target.host),
            (false, _) => self.target.to_string(),
        }
    }
}

/// As `Authorization` says whom this token is of (RFC 6750 §2.1).
///
/// # Errors
/// [`Error::Bearer`].
#[expect(clippy::disallowed_methods, reason = "a token is sent to whoever asks for it")]
pub fn authorization(bearer: &Secret) -> Result<HeaderValue, Error> {
    let mut text = Zeroizing::new(Vec::with_capacity("Bearer ".len() + bearer.len()));
    text.extend_from_slice(b"Bearer ");
    text.extend_from_slice(bearer.expose());
    let mut value = HeaderValue::from_bytes(&text).map_err(|_| Error::Bearer)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Why there is no whole body.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than the caller takes.
    TooLong,
    /// It broke off.
    Broken(hyper::Error),
}

/// Reads a body of at most `limit` bytes into memory that is wiped.
///
/// # Errors
/// [`BodyError`].
pub async fn body(mut body: Incoming, limit: usize) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLong);
    }
    let (mut pieces, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        if bytes.len() > limit - length {
            return Err(BodyError::TooLong);
        }
        length += bytes.len();
        pieces.push(bytes);
    }
    // Put together once: a vector that grows leaves copies behind that nobody wipes.
    let mut read = Zeroizing::new(Vec::with_capacity(length));
    for piece in &pieces {
        read.extend_from_slice(piece);
    }
    Ok(read)
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.cleartext { "http" } else { "https" };
        write!(f, "{scheme}://{}{}", self.authority(), self.origin_form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_another_scheme_a_user_or_two_readings_are_refused() {
        for url in ["/jwks", "ftp://a.test/", "a.test:443", "https:///jwks", ""] {
            assert!(matches!(Url::parse(url), Err(Error::Url)), "{url}");
        }
        for url in ["https://user:secret@a.test/", "https://2130706433/", "https://a.test:0/"] {
            let error = Url::parse(url).err().unwrap();
            assert!(matches!(error, Error::Host(_)), "{url}: {error}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn the_query_is_sent_and_the_port_defaults_to_the_schemes() {
        let url = Url::parse("https://a.test?v=1").unwrap();
        assert_eq!((url.target.port, url.origin_form.to_string()), (443, "/?v=1".to_owned()));
        assert_eq!(Url::parse("http://[::1]/x").unwrap().target.port, 80);
        assert_eq!(Url::parse("https://a.test:8443/").unwrap().authority(), "a.test:8443");
    }

    #[tokio::test]
    async fn cleartext_goes_to_loopback_only() {
        let url = Url::parse("http://192.0.2.1/jwks").unwrap();
        assert!(matches!(url.connect(&Names::system()).await, Err(Error::Cleartext)));
    }
}
