//! Connections that the system redirects to us: agents that know of no proxy (docs/transparent.md).
//!
//! Where such a connection was going is an address, which the agent chose and which is never dialled. Its host is
//! what TLS or HTTP names, which the requests are then judged by and which we resolve ourselves; only the port is
//! taken from the address.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use http::{Method, header};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    Proxy,
    arrival::{Entry, Opened, Tunnel},
    connect, connection,
    opening::{Opening, more},
    place,
    prefixed::Prefixed,
    seat::Seated,
    serve::refuse,
};
use crate::host::{Authority, Host, Target};

/// Where a server name or `Host` says more than an address, 443 being the port of nearly all TLS: many hosts share
/// an address there, and one that passes through must not open the way to the others.
const SHARED_PORT: u16 = 443;
/// As many header fields as are looked through for `Host`.
const FIELDS: usize = 64;

impl Proxy {
    /// Serves a connection that came to the listener for redirected ones.
    pub(super) async fn redirected(&self, stream: Seated) {
        let Some(original) = self.original_destination(stream.stream()) else {
            connection::sniff(self, stream, Bytes::new(), Entry::Redirected(None)).await;
            return;
        };
        match self.listed_at(original).await {
            Some(target) => self.pass_redirected(Bytes::new(), stream, target).await,
            None => self.open_redirected(stream, original).await,
        }
    }

    /// Where the connection was going before it was redirected. A connection to one of our own listeners was not:
    /// without the system's notice of a redirection, its own address is what the socket tells.
    fn original_destination(&self, stream: &TcpStream) -> Option<SocketAddr> {
        let socket = SockRef::from(stream);
        // The family that the connection does not have is an error; an IPv4 one on an IPv6 socket is IPv4.
        let original = socket.original_dst_v4().or_else(|_| socket.original_dst_v6()).ok()?.as_socket()?;
        let original = SocketAddr::new(original.ip().to_canonical(), original.port());
        let is_ours = matches!(self.dialer.check(original), Err(crate::dial::Refused::Own(_)));
        (!is_ours).then_some(original)
    }

    /// The listed host whose address and port these are, found before anything is read: where the server speaks
    /// first, the agent says nothing that names one.
    async fn listed_at(&self, original: SocketAddr) -> Option<Target> {
        let at_port = |port| port == original.port() && port != SHARED_PORT;
        for pattern in &self.tunnels {
            let (Some(host), Some(port)) = (pattern.exact(), pattern.port().filter(|port| at_port(*port)))
            else {
                continue;
            };
            let target = Target { host: host.clone(), port };
            if self.passes_through(&target) && self.dialer.leads_to(&target, original.ip()).await {
                return Some(target);
            }
        }
        None
    }

    async fn open_redirected(&self, mut stream: Seated, original: SocketAddr) {
        let limit = self.limits.handshake_timeout;
        match timeout(limit, Opening::read(&mut stream, Bytes::new())).await {
            Ok(Ok(Opening::Closed)) => {}
            Ok(Ok(Opening::Plain(read))) => self.plain(stream, read, original).await,
            Ok(Ok(Opening::Tls { hello, name, read })) => {
                let host = name.clone().unwrap_or_else(|| Host::Ip(original.ip()));
                let target = Target { host, port: original.port() };
                if name.is_some() && self.passes_through(&target) {
                    return self.pass_redirected(read, stream, target).await;
                }
                drop(read); // else it stays as long as the connection does
                let is_named = name.is_some();
                let tunnel = Tunnel { target, opened: Opened::Redirect, sni: name, tls: false, claim: None };
                if let Err(error) = self.end_tls(*hello, stream, tunnel).await {
                    self.broken_off(original, is_named, &error).await;
                }
            }
            Ok(Err(error)) => {
                self.metrics.handshakes_failed.inc();
                self.unnamed(original, &format!("TLS was begun with what cannot be read ({error})")).await;
            }
            Err(_) => self.unnamed(original, "nothing came that names a host").await,
        }
    }

    /// HTTP without TLS. Each request names its host; only where some host passes through at this port does the
    /// first one decide for the connection.
    async fn plain(&self, mut stream: Seated, read: Bytes, original: SocketAddr) {
        let port = original.port();
        let mut read = read;
        if self.tunnels.iter().any(|pattern| pattern.port() == Some(port)) {
            let mut head = BytesMut::from(read);
            let limit = self.limits.handshake_timeout;
            let host = timeout(limit, first_host(&mut stream, &mut head, self.limits.header_bytes)).await;
            read = head.freeze();
            if let Ok(Ok(Some(Authority { host, port: named }))) = host
                && let target = (Target { host, port })
                && named.unwrap_or(port) == port
                && self.passes_through(&target)
            {
                return self.pass_redirected(read, stream, target).await;
            }
        }
        connection::sniff(self, stream, read, Entry::Redirected(Some(original))).await;
    }

    /// Passes a connection through to a listed host, at an address that we resolved.
    async fn pass_redirected(&self, read: Bytes, stream: Seated, target: Target) {
        let mut record = self.record().await;
        let tunnel = Tunnel { target, opened: Opened::Redirect, sni: None, tls: false, claim: None };
        match self.open_through(&tunnel, &mut record).await {
            Ok(provider) => connect::copy(Prefixed::new(read, stream), provider, record).await,
            Err(refusal) => drop(refuse(record, &refusal, &Entry::Tunnel(tunnel))),
        }
    }

    /// The handshake failed. With a server name it was the agent that broke it off, as inside CONNECT; without one
    /// there was no leaf that it could have accepted, which is a refusal of ours.
    async fn broken_off(&self, original: SocketAddr, is_named: bool, error: &io::Error) {
        self.metrics.handshakes_failed.inc();
        if is_named {
            tracing::info!(%original, %error, "the agent broke off the TLS handshake; does it trust the proxy's CA? See `keybearer ca export`");
        } else {
            self.unnamed(original, "TLS was begun without a server name (SNI)").await;
        }
    }

    /// Records that a connection was refused which nothing could be answered on.
    async fn unnamed(&self, original: SocketAddr, why: &str) {
        let mut record = self.record().await;
        let target = Target { host: Host::Ip(original.ip()), port: original.port() };
        record.attempted(&Method::CONNECT, Some(&target));
        let refusal = place::unnamed(original, why);
        tracing::info!(%original, detail = refusal.detail(), "a redirected connection was refused");
        drop(refuse(record, &refusal, &Entry::Redirected(Some(original))));
    }
}

/// The `Host` of a connection's first request; `None` where it is not HTTP/1, names none or several, or its head is
/// longer than `limit` bytes. What is read goes to `head`.
async fn first_host<I>(io: &mut I, head: &mut BytesMut, limit: usize) -> io::Result<Option<Authority>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {
                let is_host =
                    |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(header::HOST.as_str());
                let mut hosts = request.headers.iter().filter(is_host);
                let only = hosts.next().filter(|_| hosts.next().is_none());
                let text = only.and_then(|field| str::from_utf8(field.value).ok());
                return Ok(text.and_then(|text| Authority::parse(text).ok()));
            }
            Ok(httparse::Status::Partial) if head.len() < limit => {
                if more(io, head).await? == 0 {
                    return Ok(None);
                }
            }
            Ok(httparse::Status::Partial) | Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// The host that the first request names, whose head comes in two pieces.
    async fn named(before: &str, after: &str) -> Option<String> {
        let (mut agent, mut ours) = tokio::io::duplex(4096);
        agent.write_all(after.as_bytes()).await.unwrap();
        drop(agent);
        let mut head = BytesMut::from(before);
        let host = first_host(&mut ours, &mut head, 256).await.unwrap();
        assert!(head.starts_with(before.as_bytes()), "nothing that was read is lost");
        host.map(|authority| authority.host.to_string())
    }

    #[tokio::test]
    async fn the_host_is_found_wherever_the_head_was_cut() {
        let head = "GET /x HTTP/1.1\r\nUser-Agent: a\r\nhOsT: Deb.Example.\r\n\r\nbody";
        for cut in 1..head.len() {
            let (before, after) = head.split_at(cut);
            assert_eq!(named(before, after).await.as_deref(), Some("deb.example"), "{cut}");
        }
    }

    #[tokio::test]
    async fn what_names_no_one_host_names_none() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@b.example\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "GET / HTTP/1.1\r\nHost: a.exa",
            &format!("GET / HTTP/1.1\r\nX: {}\r\nHost: a.example\r\n\r\n", "x".repeat(3000)),
        ] {
            let (before, after) = text.split_at(1);
            let (mut agent, mut ours) = tokio::io::duplex(4096);
            agent.write_all(after.as_bytes()).await.unwrap();
            drop(agent);
            let host = first_host(&mut ours, &mut BytesMut::from(before), 256).await.unwrap();
            assert!(host.is_none(), "{text}");
        }
    }
}
