//! One bounded HTTPS request for what the proxy itself needs, such as a JWKS.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::host::{Authority, Host, HostError, Target};

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
    /// No address, or no connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The handshake failed, for instance over the certificate.
    #[error("cannot agree on TLS; if the server's CA is a private one, name it in egress.roots")]
    Tls(#[source] io::Error),
    /// The answer is not HTTP, or broke off.
    #[error("the HTTP exchange broke")]
    Http(#[from] hyper::Error),
    /// Redirects are not followed: they could lead anywhere.
    #[error("answered {0}, a redirect; write the final URL instead")]
    Redirect(StatusCode),
    /// Not `200 OK`.
    #[error("answered {0} instead of 200")]
    Status(StatusCode),
    /// The body is longer than the caller takes.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
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
    let url = Url::parse(url)?;
    let exchange = async {
        let tcp = url.connect().await?;
        if url.cleartext {
            return ask(tcp, url.request(), limit_bytes).await;
        }
        ask(url.secure(tcp, tls).await?, url.request(), limit_bytes).await
    };
    timeout(limit, exchange).await.unwrap_or(Err(Error::Timeout(limit)))
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

    async fn connect(&self) -> Result<TcpStream, Error> {
        let addresses = self.resolve().await.map_err(Error::Connect)?;
        if self.cleartext && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(Error::Cleartext);
        }
        let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(Error::Connect)?;
        tcp.set_nodelay(true).map_err(Error::Connect)?;
        Ok(tcp)
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.target.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, self.target.port)]),
            Host::Name(name) => Ok(lookup_host((name.as_ref(), self.target.port)).await?.collect()),
        }
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

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.origin_form.clone();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(self.target.to_string()) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        request
    }
}

async fn ask<S>(stream: S, request: Request<Empty<Bytes>>, limit: usize) -> Result<Vec<u8>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = pin!(async {
        let answer = sender.send_request(request).await?;
        match answer.status() {
            StatusCode::OK => body(answer.into_body(), limit).await,
            status if status.is_redirection() => Err(Error::Redirect(status)),
            status => Err(Error::Status(status)),
        }
    });
    // The connection moves the bytes and may end first, with the rest of the answer still to be taken.
    match select(exchange, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}

async fn body(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Error> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Error::TooLarge { limit });
    }
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        if bytes.len() > limit - read.len() {
            return Err(Error::TooLarge { limit });
        }
        read.extend_from_slice(&bytes);
    }
    Ok(read)
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
        assert_eq!(Url::parse("https://a.test:8443/").unwrap().request().headers()["host"], "a.test:8443");
    }

    #[tokio::test]
    async fn cleartext_goes_to_loopback_only() {
        let url = Url::parse("http://192.0.2.1/jwks").unwrap();
        assert!(matches!(url.connect().await, Err(Error::Cleartext)));
    }
}
