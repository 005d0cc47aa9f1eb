//! The connection to the broker.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::Error;
use crate::{
    drain::Drain,
    fetch::Url,
    host::Host,
    names::Names,
    tls::{self, Alpn, Roots},
};

/// Of how many addresses it is said why they are of no use.
const SHOWN: usize = 4;

/// What carries bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The network, as far as a broker's client needs it.
#[async_trait]
pub(super) trait Network: Send + Sync {
    /// The addresses of a host.
    async fn addresses(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// A connection to one.
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>>;
}

/// The system's. The broker's name may be short, as in `keybearer-broker.keybearer.svc`.
pub(super) struct System(pub(super) Names);

/// How to get to the broker.
pub(super) struct Way {
    network: Box<dyn Network>,
    url: Url,
    /// The URL without its path's slash.
    name: String,
    roots: Roots,
    tls: Mutex<Arc<ClientConfig>>,
    limit: Duration,
    drain: Drain,
}

/// A connection; who asks has a clone.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// Tells one connection from the next.
    pub(super) id: u64,
}

/// How things stand.
#[derive(Clone)]
enum State {
    /// A connection is being opened: who asks waits.
    Connecting,
    Connected(Link),
    /// None could be opened.
    Away(String),
}

/// The connection of the moment.
pub(super) struct Links {
    way: Way,
    state: watch::Sender<State>,
    opened: AtomicU64,
}

impl Way {
    pub(super) fn open(
        network: Box<dyn Network>,
        url: Url,
        roots: Roots,
        limit: Duration,
        drain: Drain,
    ) -> Result<Self, Error> {
        let name = url.to_string().trim_end_matches('/').to_owned();
        let tls = configured(&roots)?;
        Ok(Self { network, url, name, roots, tls: Mutex::new(tls), limit, drain })
    }

    /// As people are told it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens a connection to one of the broker's addresses. Which one is tried first is a matter of chance, so that a
    /// fleet spreads over all.
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let target = self.url.target();
        let mut addresses = match timeout(self.limit, self.network.addresses(&target.host, target.port)).await
        {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(format!("its name cannot be resolved: {error}")),
            Err(_) => return Err("its name is not resolved in time".to_owned()),
        };
        let order = RandomState::new();
        addresses.sort_by_cached_key(|address| order.hash_one(address));
        let tls = self.tls();
        let mut whys = Vec::new();
        for address in addresses {
            match timeout(self.limit, self.connect_to(address, &tls)).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(why)) => whys.push(format!("{address}: {why}")),
                Err(_) => whys.push(format!("{address}: the connection is not open in time")),
            }
        }
        if whys.is_empty() {
            return Err("its name has no address".to_owned());
        }
        whys.truncate(SHOWN);
        Err(whys.join("; "))
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<SendRequest<Full<Bytes>>, String> {
        let failed = |error: io::Error| error.to_string();
        let tcp = self.network.connect(address).await.map_err(failed)?;
        let name = match &self.url.target().host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|error| error.to_string())?,
        };
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(failed)?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("it does not speak HTTP/2; is vault.url the broker's listener?".to_owned());
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        self.drain.detach(async move {
            let _ = connection.await; // whoever uses it is told
        });
        Ok(sender)
    }

    /// Roots of a file are those of the day; where they cannot be read, those of before stay.
    fn tls(&self) -> Arc<ClientConfig> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Roots::File(path) = &self.roots {
            match configured(&self.roots) {
                Ok(configured) => *tls = configured,
                Err(error) => {
                    tracing::warn!(roots = %path.display(), %error, "the last roots for the broker stay in use");
                }
            }
        }
        Arc::clone(&tls)
    }
}

impl Links {
    pub(super) fn new(way: Way) -> Self {
        Self { way, state: watch::Sender::new(State::Connecting), opened: AtomicU64::default() }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Opens a connection for everybody.
    pub(super) async fn open(&self) -> Result<Link, String> {
        match self.way.connect().await {
            Ok(sender) => {
                let link = Link { sender, id: self.opened.fetch_add(1, Ordering::Relaxed) };
                self.state.send_replace(State::Connected(link.clone()));
                Ok(link)
            }
            Err(why) => {
                self.state.send_replace(State::Away(why.clone()));
                Err(why)
            }
        }
    }

    /// A connection turned out to be of no use: who asks waits for another.
    pub(super) fn lost(&self, link: &Link) {
        self.state.send_if_modified(|state| {
            let is_it = matches!(state, State::Connected(current) if current.id == link.id);
            if is_it {
                *state = State::Connecting;
            }
            is_it
        });
    }

    /// Completes when [`Links::lost`] was said of it, or another one is in use.
    pub(super) async fn is_lost(&self, link: &Link) {
        let is_other = |state: &State| !matches!(state, State::Connected(current) if current.id == link.id);
        let _ = self.state.subscribe().wait_for(is_other).await;
    }

    /// The connection in use, or the one that is being opened.
    pub(super) async fn current(&self) -> Result<Link, Error> {
        let mut state = self.state.subscribe();
        let ready = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match ready.as_deref() {
            Ok(State::Connected(link)) => Ok(link.clone()),
            Ok(State::Away(why)) => Err(self.unreachable(why)),
            Ok(State::Connecting) | Err(_) => Err(self.unreachable("this process stops")),
        }
    }

    /// Why there is no connection.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Connecting => Some("it is being connected to".to_owned()),
            State::Connected(_) => None,
            State::Away(why) => Some(why.clone()),
        }
    }

    pub(super) fn unreachable(&self, why: &str) -> Error {
        Error::Unreachable { broker: self.way.name.clone(), why: why.to_owned() }
    }
}

fn configured(roots: &Roots) -> Result<Arc<ClientConfig>, tls::Error> {
    Ok(Arc::new(tls::upstream_config(&roots.load()?, Alpn::H2)))
}

#[async_trait]
impl Network for System {
    async fn addresses(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => {
                let ips = self.0.search(name).await.map_err(io::Error::other)?;
                Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
            }
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::fixture::{Machine, Says};

    #[tokio::test]
    async fn a_broker_in_the_cluster_may_have_a_short_name() {
        let zone = [("broker.keybearer.svc.cluster.local", Says::Has(&["10.0.0.7"], 0))];
        let machine =
            Machine::start(&zone, "search svc.cluster.local cluster.local\noptions ndots:5\n").await;
        let system = System(machine.names.clone());
        let found = async |host: &str| system.addresses(&Host::parse(host).unwrap(), 8443).await;
        assert_eq!(found("broker.keybearer.svc").await.unwrap(), ["10.0.0.7:8443".parse().unwrap()]);
        assert_eq!(found("10.0.0.8").await.unwrap(), ["10.0.0.8:8443".parse().unwrap()]);
        assert_eq!(found("gone.keybearer.svc").await.unwrap_err().to_string(), "it has no address");
    }
}
