//! TLS towards agents.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Error, Leaves};
use crate::host::Host;

/// Server configurations that show an agent the leaf of the name it asked for, and offer HTTP/2 and HTTP/1.1.
///
/// They all share one ticket key, which rotates every six hours and is kept in memory only. rustls resumes a
/// session only under the server name it began with, and 0-RTT stays off, since it can be replayed.
pub struct Downstream {
    leaves: Arc<Leaves>,
    by_server_name: Arc<ServerConfig>,
}

impl Downstream {
    /// Makes the shared configuration.
    ///
    /// # Errors
    /// [`Error::Tls`] if the system gives no randomness for the ticket key.
    pub fn new(leaves: Arc<Leaves>) -> Result<Self, Error> {
        let resolver = Arc::new(ByServerName(leaves.clone()));
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new()?;
        config.ignore_client_order = true; // see `init_crypto`
        // A client needs one ticket at a time; the second that rustls would send costs as much as the first.
        config.send_tls13_tickets = 1;
        Ok(Self { leaves, by_server_name: Arc::new(config) })
    }

    /// The configuration for a connection to `host`. For a name it is the shared one, which goes by the server
    /// name that the client sends; clients send none for an address (RFC 6066 §3), so that gets its own.
    #[must_use]
    pub fn config_for(&self, host: &Host) -> Arc<ServerConfig> {
        match host {
            Host::Name(_) => self.by_server_name.clone(),
            Host::Ip(_) => self.config_without_sni(host),
        }
    }

    /// The configuration that shows the leaf of `host` whatever the client says: for addresses, and for a
    /// client that sent no server name although its destination has one.
    #[must_use]
    pub fn config_without_sni(&self, host: &Host) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.by_server_name);
        config.cert_resolver = Arc::new(Fixed { leaves: self.leaves.clone(), host: host.clone() });
        Arc::new(config)
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream").field("leaves", &self.leaves).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct ByServerName(Arc<Leaves>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        usable(self.0.for_server_name(hello.server_name()?)?)
    }
}

#[derive(Debug)]
struct Fixed {
    leaves: Arc<Leaves>,
    host: Host,
}

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        usable(self.leaves.for_host(&self.host))
    }
}

/// Without a leaf the handshake ends with an alert; the reason is for the operator.
fn usable(leaf: Result<Arc<CertifiedKey>, Error>) -> Option<Arc<CertifiedKey>> {
    leaf.inspect_err(|error| tracing::error!(error = error as &dyn std::error::Error, "no leaf certificate"))
        .ok()
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::super::{Authority, Metrics};
    use super::*;

    #[test]
    fn names_share_one_configuration() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let leaves = Leaves::new(Arc::new(Authority::open(None).unwrap()), 16, &metrics);
        let downstream = Downstream::new(Arc::new(leaves)).unwrap();
        let [one, other] = ["a.test", "b.test"].map(|n| downstream.config_for(&Host::parse(n).unwrap()));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(
            downstream.config_for(&Host::parse("127.0.0.1").unwrap()).alpn_protocols == one.alpn_protocols
        );
    }
}
