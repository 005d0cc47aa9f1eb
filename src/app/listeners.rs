//! Where the app listens: for agents, for what the system redirects, for people.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use nix::errno::Errno;
use tokio::net::TcpListener;

use super::Error;
use crate::config::Listen;

/// The TCP listeners, bound.
pub(super) struct Listeners {
    pub(super) agents: TcpListener,
    /// One for each IP version, or none.
    pub(super) transparent: Vec<TcpListener>,
    pub(super) people: TcpListener,
    pub(super) at: Addresses,
}

/// Where they are.
pub(super) struct Addresses {
    pub(super) proxy: SocketAddr,
    pub(super) transparent: Option<SocketAddr>,
    pub(super) admin: SocketAddr,
    /// All of them: none of these is ever dialled.
    pub(super) own: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds them all.
    ///
    /// # Errors
    /// [`Error::Bind`], with what configures the one that could not be bound.
    pub(super) async fn bind(listen: &Listen) -> Result<Self, Error> {
        let agents = bind(listen.proxy, "listen.proxy").await?;
        let transparent = redirected(listen.transparent).await?;
        let people = bind(listen.admin, "listen.admin").await?;
        let own =
            [&agents, &people].into_iter().chain(&transparent).map(address).collect::<Result<Vec<_>, _>>()?;
        let at = Addresses { proxy: own[0], admin: own[1], transparent: own.get(2).copied(), own };
        Ok(Self { agents, transparent, people, at })
    }
}

/// Binds one.
pub(super) async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, key, source })
}

/// The listeners for redirected connections. The system redirects each IP version to its own loopback address, so that
/// a second one is bound for IPv6, on the same port; a machine without IPv6 redirects none to it.
async fn redirected(first: Option<SocketAddr>) -> Result<Vec<TcpListener>, Error> {
    const KEY: &str = "listen.transparent";
    let Some(at) = first else { return Ok(Vec::new()) };
    let first = bind(at, KEY).await?;
    if !matches!(at.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        return Ok(vec![first]);
    }
    match bind(SocketAddr::from((Ipv6Addr::LOCALHOST, address(&first)?.port())), KEY).await {
        Ok(second) => Ok(vec![first, second]),
        Err(Error::Bind { source, .. }) if is_without_ipv6(&source) => Ok(vec![first]),
        Err(error) => Err(error),
    }
}

/// No such protocol, or the protocol without this address of its own.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// Where it is.
pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|error| Error::Config(format!("a listener has no address: {error}")))
}
