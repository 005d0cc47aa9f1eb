//! From a name to a verified connection: resolve, check every address, dial the one that was checked.

mod guard;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub use self::{
    guard::{AddressGuard, Refused, special},
    tcp::Tcp,
};
use crate::{
    host::{Host, Target},
    names::{Names, Unresolved},
};

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address of the name is one that must not be dialled.
    #[error("{0}")]
    Address(#[from] Refused),
    /// The name has no address, or none could be found out.
    #[error("the name could not be resolved")]
    Resolve(#[source] Unresolved),
    /// No address answered.
    #[error("the connection could not be opened")]
    Connect(#[source] io::Error),
    /// The handshake failed or the certificate is not for this name.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// No name server answered, or no address did, within the limit.
    #[error("the connection was not open in time")]
    Timeout,
}

impl From<Unresolved> for Error {
    fn from(why: Unresolved) -> Self {
        match why {
            Unresolved::Timeout => Self::Timeout,
            other => Self::Resolve(other),
        }
    }
}

/// Where a name leads when it is not asked of DNS: an address, with or without another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Override {
    /// Another address, the same port.
    Ip(IpAddr),
    /// Another address and port.
    Address(SocketAddr),
}

impl TryFrom<String> for Override {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let ip = text.parse().map(Self::Ip);
        ip.or_else(|_| text.parse().map(Self::Address))
            .map_err(|_| format!("{text:?} is neither an address nor an address with a port"))
    }
}

/// Opens connections to providers. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Dialer {
    names: Names,
    overrides: Arc<HashMap<Host, Override>>,
    guard: AddressGuard,
    limit: Duration,
}

impl Dialer {
    /// A dialer that gives up on one name, and on one address, after `limit`.
    #[must_use]
    pub fn new(overrides: HashMap<Host, Override>, guard: AddressGuard, limit: Duration) -> Self {
        Self { names: Names::system(), overrides: Arc::new(overrides), guard, limit }
    }

    /// Opens a TCP connection to an address that belongs to the name and passed the guard.
    ///
    /// # Errors
    /// [`Error::Address`] when no address passes the guard, [`Error::Resolve`] when the name has none, and
    /// [`Error::Connect`] with the last failure when none answers.
    pub async fn tcp(&self, target: &Target) -> Result<TcpStream, Error> {
        let mut refused = None;
        let mut failed = None;
        for address in self.resolve(target).await? {
            match self.guard.check(address) {
                Err(why) => refused = Some(why),
                Ok(checked) => match self.connect(checked).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failed = Some(error),
                },
            }
        }
        Err(match (failed, refused) {
            (Some(error), _) => Error::Connect(error),
            (None, Some(why)) => Error::Address(why),
            (None, None) => Error::Resolve(Unresolved::NoAddress),
        })
    }

    /// Opens TLS to the target; its certificate must be for the target's host.
    ///
    /// # Errors
    /// As [`Dialer::tcp`], and [`Error::Tls`] when the handshake fails or the certificate is not accepted.
    pub async fn tls(&self, target: &Target, config: Arc<ClientConfig>) -> Result<TlsStream<Tcp>, Error> {
        let tcp = Tcp::new(self.tcp(target).await?);
        let name = match &target.host {
            Host::Name(name) => {
                ServerName::try_from(name.to_string()).map_err(|error| Error::Tls(io::Error::other(error)))?
            }
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        };
        match timeout(self.limit, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(handshake) => handshake.map_err(Error::Tls),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Whether the target's name has this address. A name that cannot be resolved has none.
    pub async fn leads_to(&self, target: &Target, ip: IpAddr) -> bool {
        let found = self.resolve(target).await.unwrap_or_default();
        found.iter().any(|address| address.ip().to_canonical() == ip.to_canonical())
    }

    /// What the guard says of an address that a request names literally.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, address: SocketAddr) -> Result<SocketAddr, Refused> {
        self.guard.check(address)
    }

    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        match (self.overrides.get(&target.host), &target.host) {
            (Some(Override::Ip(ip)), _) | (None, Host::Ip(ip)) => Ok(vec![SocketAddr::new(*ip, target.port)]),
            (Some(Override::Address(address)), _) => Ok(vec![*address]),
            (None, Host::Name(name)) => {
                // This very name is what policy has judged, and not one with a domain of `search` behind it.
                let found = timeout(self.limit, self.names.exact(name)).await;
                let ips = found.unwrap_or(Err(Unresolved::Timeout))?;
                Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect())
            }
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = timeout(self.limit, TcpStream::connect(address)).await.map_err(io::Error::from)??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
