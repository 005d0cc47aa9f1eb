//! The `broker:` section.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
};

use serde::Deserialize;

use crate::identity::IssuerConfig;

/// The `broker:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where sidecars connect.
    pub listen: SocketAddr,
    /// The server's certificate chain, PEM. It is read again when it changes.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// What a workload's token must name as its audience.
    pub audience: String,
    /// Who signs workloads' tokens.
    pub issuers: Vec<IssuerConfig>,
    /// Where people reach the admin listener, for the `reconnect_url` that agents are told; `http://` and its address if
    /// left out.
    pub connect_url: Option<String>,
    /// Connections from sidecars at the same time. One workload may have a quarter of them.
    pub connections: NonZeroUsize,
    /// How many requests one workload may make a second; as many at once.
    pub per_second: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");
        const PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).expect("1000 is not 0");
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7443)),
            certificate: "/etc/keybearer/tls/tls.crt".into(),
            key: "/etc/keybearer/tls/tls.key".into(),
            audience: "keybearer".to_owned(),
            issuers: Vec::new(),
            connect_url: None,
            connections: CONNECTIONS,
            per_second: PER_SECOND,
        }
    }
}

impl Config {
    /// The files that the section names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let own = [&mut self.certificate, &mut self.key];
        own.into_iter().chain(self.issuers.iter_mut().flat_map(IssuerConfig::files_mut))
    }
}
