//! CONNECT: a tunnel whose TLS we end, or, for the hosts that the operator lists, one that passes through.

use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use rustls::server::Accepted;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::StartHandshake;

use super::{
    Proxy,
    answer::Answer,
    arrival::{Entry, Opened, Tunnel},
    connection::{self, Protocol},
    forward,
    opening::Opening,
    prefixed::Prefixed,
    record::Record,
    refusal::{Code, Refusal},
    seat::Seated,
    serve::{mark, refuse},
    visit::{Exchange, InOurWords},
};
use crate::{
    host::{Authority, HostPattern, Target},
    identity,
};

impl Proxy {
    /// Answers a CONNECT request: 200 and a tunnel, or a refusal.
    ///
    /// A host that no connector describes is intercepted all the same, so that the agent can read inside TLS
    /// why it was refused; nothing is dialled before a request in the tunnel is permitted.
    ///
    /// Boxed: a tunnel is served by what opens tunnels.
    pub(super) fn connect(
        &self,
        request: Request<Incoming>,
        exchange: Exchange,
    ) -> BoxFuture<'_, Response<Answer>> {
        Box::pin(self.open_tunnel(request, exchange))
    }

    async fn open_tunnel(&self, mut request: Request<Incoming>, exchange: Exchange) -> Response<Answer> {
        let upgrade = hyper::upgrade::on(&mut request);
        match self.read_connect(&request).await {
            Ok(tunnel) if self.passes_through(&tunnel.target) => {
                self.pass_through(upgrade, tunnel, exchange).await
            }
            Ok(tunnel) => {
                let proxy = self.clone();
                self.drain.spawn(async move {
                    proxy.intercept(upgrade, tunnel).await;
                    drop(exchange);
                });
                Response::new(Answer::ours(Bytes::new()))
            }
            Err(refusal) => refuse(self.record().await, &refusal, &Entry::Direct),
        }
    }

    async fn read_connect(&self, request: &Request<Incoming>) -> Result<Tunnel, Refusal> {
        let text = request.uri().authority().map_or("", |authority| authority.as_str());
        let Authority { host, port } = Authority::parse(text).map_err(Refusal::bad_request)?;
        let port =
            port.ok_or_else(|| Refusal::bad_request("CONNECT needs a port, as in CONNECT host:443"))?;
        for field in request.headers().get_all(http::header::HOST) {
            let field = field.to_str().ok().and_then(|text| Authority::parse(text).ok());
            if field.is_none_or(|field| field.host != host || field.port.is_some_and(|named| named != port)) {
                let detail = "misdirected: the Host header names another host than CONNECT does";
                return Err(Refusal::new(Code::Misdirected, detail));
            }
        }
        let claim = identity::claimed(request.headers())?;
        if claim.is_some() {
            self.gate.identify(claim.as_ref()).await?; // read now, so that a client that can say more is asked
        }
        Ok(Tunnel {
            target: Target { host, port },
            opened: Opened::Connect,
            sni: None,
            tls: false,
            claim: claim.map(|claim| claim.detached()),
        })
    }

    /// Whether the operator lists the host and port, 443 where the list names none. What a connector describes
    /// is never passed through, and while nobody knows what connectors describe, nothing is.
    pub(super) fn passes_through(&self, Target { host, port }: &Target) -> bool {
        let is_listed =
            |pattern: &HostPattern| pattern.matches(host).is_some() && pattern.port().unwrap_or(443) == *port;
        self.tunnels.iter().any(is_listed)
            && self.rules.in_use().is_some_and(|rules| rules.catalog.locate(host, None).is_none())
    }

    async fn pass_through(&self, upgrade: OnUpgrade, tunnel: Tunnel, exchange: Exchange) -> Response<Answer> {
        let mut record = self.record().await;
        record.during(exchange);
        match self.open_through(&tunnel, &mut record).await {
            Err(refusal) => refuse(record, &refusal, &Entry::Direct),
            Ok(provider) => {
                let mut opened = Response::new(Answer::ours(Bytes::new()));
                mark(opened.headers_mut(), record.id());
                self.drain.spawn(copy_through(upgrade, provider, record));
                opened
            }
        }
    }

    /// Opens the way to a host that passes through, and its record.
    ///
    /// # Errors
    /// What the identity, the audit, the resolution of the name or the address guard refuses.
    pub(super) async fn open_through(
        &self,
        tunnel: &Tunnel,
        record: &mut Record,
    ) -> Result<TcpStream, Refusal> {
        let rules = self.rules.current();
        record.tunnelled(&tunnel.target, &rules.revision);
        match self.gate.identify(tunnel.claim.as_ref()).await {
            Ok(identity) => {
                self.admit(&identity, &rules.bindings, record)?;
                if tunnel.claim.is_some() {
                    rules.policy.know(&identity.subject)?; // the default is for whoever names nobody
                }
            }
            // Nothing goes in that could be somebody's.
            Err(identity::Error::Required) => self.share(None, record)?,
            Err(error) => return Err(error.into()),
        }
        record.allowed_by("egress.tunnel");
        record.begin().await?;
        let opened = self.dialer.tcp(&tunnel.target).await;
        opened.map_err(|error| {
            forward::refusal(&error.into(), &tunnel.target.host, self.limits.connect_timeout)
        })
    }

    async fn intercept(self, upgrade: OnUpgrade, tunnel: Tunnel) {
        let host = tunnel.target.host.clone();
        let Ok(upgraded) = upgrade.await else { return };
        let served = match downcast::<TokioIo<InOurWords<Prefixed<Seated>>>>(upgraded) {
            Ok(parts) => self.enter(parts.io.into_inner().into_inner(), parts.read_buf, tunnel).await,
            Err(upgraded) => self.enter(TokioIo::new(upgraded), Bytes::new(), tunnel).await,
        };
        if let Err(error) = served {
            self.metrics.handshakes_failed.inc();
            tracing::info!(%host, %error, "the agent broke off the TLS handshake; does it trust the proxy's CA? See `keybearer ca export`");
        }
    }

    /// Serves what is inside the tunnel: TLS, or plain HTTP where the first byte says so.
    async fn enter<I>(&self, mut io: I, read: Bytes, mut tunnel: Tunnel) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match timeout(self.limits.handshake_timeout, Opening::read(&mut io, read)).await?? {
            Opening::Closed => Ok(()),
            Opening::Plain(read) => {
                connection::sniff(self, io, read, Entry::Tunnel(tunnel)).await;
                Ok(())
            }
            Opening::Tls { hello, name, read } => {
                drop(read); // else 16 KiB stay as long as the tunnel does
                tunnel.sni = name;
                self.end_tls(*hello, io, tunnel).await
            }
        }
    }

    /// Ends the agent's TLS with a leaf for the name it asked for, and serves the requests inside. Whether the name
    /// is the tunnel's is for each request to be told.
    pub(super) async fn end_tls<I>(&self, hello: Accepted, io: I, mut tunnel: Tunnel) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = match &tunnel.sni {
            Some(name) => self.downstream.config_for(name),
            None => self.downstream.config_without_sni(&tunnel.target.host),
        };
        let handshake = StartHandshake::from_parts(hello, io).into_stream(config);
        let tls = timeout(self.limits.handshake_timeout, handshake).await??;
        tunnel.tls = true;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let protocol = if h2 { Protocol::H2 } else { Protocol::H1 };
        connection::serve(self, tls, Entry::Tunnel(tunnel), protocol).await;
        Ok(())
    }
}

async fn copy_through(upgrade: OnUpgrade, provider: TcpStream, mut record: Box<Record>) {
    let Ok(upgraded) = upgrade.await else { return record.broke_off("interrupted") };
    let agent: TokioIo<Upgraded> = TokioIo::new(upgraded);
    copy(agent, provider, record).await;
}

/// Passes bytes between an agent and a provider until both have ended, and counts them.
pub(super) async fn copy<I>(mut agent: I, mut provider: TcpStream, mut record: Box<Record>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if let Ok((received, sent)) = copy_bidirectional(&mut agent, &mut provider).await {
        record.bytes_in().add(usize::try_from(received).unwrap_or(usize::MAX));
        record.sent(usize::try_from(sent).unwrap_or(usize::MAX));
    }
}
