//! From the names in `vault.url` to connections.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use deadpool_postgres::Connect;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tokio_postgres::{
    Client, Config, Connection, Error as Fault, NoTls, Socket,
    config::{Host, LoadBalanceHosts},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    drain::Drain,
    names::{Names, Unresolved},
};

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Connects to the hosts of a configuration, whose names it finds as the rest of the proxy does.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) names: Names,
    pub(super) tls: MakeRustlsConnect,
}

/// A host of which no address is known.
#[derive(Debug, thiserror::Error)]
#[error("cannot find {host}: {why}")]
pub(super) struct Lost {
    host: String,
    why: Unresolved,
}

impl Reach {
    /// Connects to the first that takes us.
    pub(super) async fn connect(
        &self,
        config: &Config,
    ) -> Result<(Client, Connection<Socket, Stream>), Fault> {
        let (ways, mut lost) = addressed(&self.names, config).await;
        let mut failed = None;
        for way in ways.into_iter().flat_map(one_by_one) {
            match way.connect(self.tls.clone()).await {
                Ok(connected) => return Ok(connected),
                // The first one's says more: where a name has two addresses, nothing listens at the second, mostly.
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        match (failed, lost.pop()) {
            (None, Some(lost)) => Err(fault_of(lost).await),
            (Some(fault), _) => Err(fault),
            // Neither hosts nor addresses: it says so.
            (None, None) => config.connect(self.tls.clone()).await,
        }
    }
}

impl Connect for Reach {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Fault>> {
        let config = config.clone();
        async move {
            let (client, connection) = Self::connect(self, &config).await?;
            // The pool ends it with the client.
            let driven = Drain::default().spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(%error, "a connection to the database broke");
                }
            });
            Ok((client, driven))
        }
        .boxed()
    }
}

/// The same configuration with an address beside each name, and the names that have none. Sockets are apart and first: a
/// configuration has addresses for all of its hosts or for none.
async fn addressed(names: &Names, config: &Config) -> (Vec<Config>, Vec<Lost>) {
    if !config.get_hostaddrs().is_empty() {
        return (vec![config.clone()], Vec::new()); // the operator has written them
    }
    let (mut sockets, mut hosts, mut lost) = (hostless(config), hostless(config), Vec::new());
    let ports = config.get_ports();
    for (at, host) in config.get_hosts().iter().enumerate() {
        let port = ports.get(at).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Unix(folder) => {
                sockets.host_path(folder).port(port);
            }
            Host::Tcp(host) => match names.search(host).await {
                Ok(ips) => ips.into_iter().for_each(|ip| {
                    hosts.host(host).hostaddr(ip).port(port);
                }),
                Err(why) => lost.push(Lost { host: host.clone(), why }),
            },
        }
    }
    let ways = [sockets, hosts].into_iter().filter(|way| !way.get_hosts().is_empty());
    (ways.collect(), lost)
}

/// A configuration for each host, so that each says why it does not take us; one where the hosts are tried in no order.
fn one_by_one(all: Config) -> Vec<Config> {
    if all.get_hosts().is_empty() || all.get_load_balance_hosts() != LoadBalanceHosts::Disable {
        return vec![all];
    }
    let (ports, addresses) = (all.get_ports(), all.get_hostaddrs());
    let hosts = all.get_hosts().iter().enumerate().map(|(at, host)| {
        let mut one = hostless(&all);
        match host {
            Host::Tcp(name) => one.host(name),
            Host::Unix(folder) => one.host_path(folder),
        };
        addresses.get(at).map(|ip| one.hostaddr(*ip));
        ports.get(at).or_else(|| ports.first()).map(|port| one.port(*port));
        one
    });
    hosts.collect()
}

/// All of a configuration but where the server is. What it has can only be added to.
fn hostless(config: &Config) -> Config {
    let mut bare = Config::new();
    bare.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    config.get_user().map(|user| bare.user(user));
    config.get_password().map(|password| bare.password(password));
    config.get_dbname().map(|name| bare.dbname(name));
    config.get_options().map(|options| bare.options(options));
    config.get_application_name().map(|name| bare.application_name(name));
    config.get_connect_timeout().map(|limit| bare.connect_timeout(*limit));
    config.get_tcp_user_timeout().map(|limit| bare.tcp_user_timeout(*limit));
    config.get_keepalives_interval().map(|interval| bare.keepalives_interval(interval));
    config.get_keepalives_retries().map(|retries| bare.keepalives_retries(retries));
    bare
}

/// As an error of the crate's, which only makes its own: that of a connection which tells this at the first byte.
async fn fault_of(lost: Lost) -> Fault {
    let tried = Config::new().user("nobody").connect_raw(Nowhere(Some(lost)), NoTls).await;
    tried.err().expect("there is nobody to answer")
}

struct Nowhere(Option<Lost>);

impl Nowhere {
    fn told<T>(&mut self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self.0.take().map_or_else(|| io::ErrorKind::NotConnected.into(), io::Error::other)))
    }
}

impl AsyncRead for Nowhere {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.told()
    }
}

impl AsyncWrite for Nowhere {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.told()
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.told()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.told()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::fixture::{Machine, Says};

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

    /// The hosts of each way with their addresses and ports.
    fn hosts(way: &Config) -> Vec<String> {
        let hosts = way.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        });
        let mut addresses = way.get_hostaddrs().iter();
        let with = hosts.map(|host| (host, addresses.next().map_or_else(String::new, |ip| format!(" {ip}"))));
        with.zip(way.get_ports()).map(|((host, ip), port)| format!("{host}{ip} {port}")).collect()
    }

    #[tokio::test]
    async fn short_names_of_the_cluster_are_found_and_certificates_are_still_for_the_name() {
        let zone = [
            ("db.shop.svc.cluster.local", Says::Has(&["10.0.0.1", "fd00::1"], 0)),
            ("db.other.svc.cluster.local", Says::Has(&["10.0.0.2"], 0)),
        ];
        let machine = Machine::start(&zone, CLUSTER).await;
        let config: Config =
            "postgres://u@db:6432,db.other.svc,gone,localhost/x?host=/run/postgresql".parse().unwrap();
        let (ways, lost) = addressed(&machine.names, &config).await;
        let expected = [
            vec!["/run/postgresql 6432"],
            vec![
                "db 10.0.0.1 6432",
                "db fd00::1 6432",
                "db.other.svc 10.0.0.2 5432",
                "localhost 127.0.0.1 5432",
                "localhost ::1 5432",
            ],
        ];
        assert_eq!(ways.iter().map(hosts).collect::<Vec<_>>(), expected);
        let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["cannot find gone: it has no address"]);
    }

    #[tokio::test]
    async fn addresses_that_the_operator_has_written_are_not_asked_for() {
        let machine = Machine::start(&[], "").await;
        let config: Config = "postgres://u@db/x?hostaddr=10.0.0.9".parse().unwrap();
        let (ways, lost) = addressed(&machine.names, &config).await;
        assert_eq!((ways.as_slice(), lost.len()), (&[config][..], 0));
        assert_eq!(machine.asked(), Vec::<String>::new());
    }

    #[test]
    fn hosts_are_tried_one_by_one_where_their_order_counts() {
        let mut all = Config::new();
        all.host("db").hostaddr([10, 0, 0, 1].into()).port(6432);
        all.host("db").hostaddr([10, 0, 0, 2].into()).port(6433);
        let each = |all: Config| one_by_one(all).iter().map(hosts).collect::<Vec<_>>();
        assert_eq!(each(all.clone()), [vec!["db 10.0.0.1 6432"], vec!["db 10.0.0.2 6433"]]);
        all.load_balance_hosts(LoadBalanceHosts::Random);
        assert_eq!(each(all), [vec!["db 10.0.0.1 6432", "db 10.0.0.2 6433"]]);
    }

    #[test]
    fn all_but_the_hosts_is_kept() {
        let parameters = "options=-c%20x%3Dy&connect_timeout=3&tcp_user_timeout=4&keepalives=0&keepalives_idle=5&\
             keepalives_interval=6&keepalives_retries=7&target_session_attrs=read-only&channel_binding=require&\
             load_balance_hosts=random&sslmode=require&sslnegotiation=direct&application_name=keybearer";
        let whole = |host: &str| -> Config {
            format!("postgres://u:kb-canary-database@{host}/x?{parameters}").parse().unwrap()
        };
        let mut again = hostless(&whole("db:6432"));
        again.host("db").port(6432);
        assert_eq!(again, whole("db:6432"));
    }

    #[tokio::test]
    async fn a_host_that_is_not_found_is_named_and_nothing_else_of_the_url() {
        let machine = Machine::start(&[], "").await;
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let reach = Reach { names: machine.names.clone(), tls: MakeRustlsConnect::new(tls) };
        let config: Config = "postgres://u:kb-canary-database@db/x".parse().unwrap();
        let fault = reach.connect(&config).await.err().unwrap();
        assert_eq!(super::super::database::told(&fault), "cannot find db: it has no address");
    }
}
