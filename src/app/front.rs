//! What a proxy is made of wherever its accounts come from: listeners, trust, rules, the audit log.

use std::sync::Arc;

use prometheus::Registry;
use rustls::RootCertStore;
use tokio::net::TcpListener;

use super::{
    Error, dialer, downstream, fetch_keys,
    listeners::{Addresses, Listeners},
    open_audit, open_authority,
};
use crate::{
    admin::Socket,
    audit::Audit,
    config::Config,
    credential::Resolver,
    dial::Dialer,
    drain::Drain,
    identity::{FetchJwks, Gate, Workload},
    proxy::{Metrics, Parts, Proxy, Upstream, upstream::Pool},
    ruleset::Rules,
    tls::Authority,
};

/// Everything open and bound; nobody is served yet.
pub(super) struct Front {
    pub(super) registry: Registry,
    pub(super) drain: Drain,
    pub(super) audit: Audit,
    pub(super) rules: Rules,
    pub(super) authority: Arc<Authority>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) agents: TcpListener,
    pub(super) transparent: Vec<TcpListener>,
    pub(super) people: TcpListener,
    pub(super) at: Addresses,
    pub(super) socket: Socket,
    pub(super) dialer: Dialer,
    pub(super) fetch_keys: FetchJwks,
}

impl Front {
    /// Opens and binds.
    pub(super) async fn open(
        config: &Config,
        rules: impl FnOnce() -> Result<Rules, Error>,
        registry: Registry,
        drain: Drain,
    ) -> Result<Self, Error> {
        let audit = open_audit(config, &registry)?;
        let rules = rules()?;
        let authority = Arc::new(open_authority(config)?);
        let roots = config.egress.roots.load()?;
        let Listeners { agents, transparent, people, at } = Listeners::bind(&config.listen).await?;
        let socket = Socket::bind(&config.admin_socket())?;
        let dialer = dialer(config, &at.own)?;
        let fetch_keys = fetch_keys(&roots);
        Ok(Self {
            registry,
            drain,
            audit,
            rules,
            authority,
            roots,
            agents,
            transparent,
            people,
            at,
            socket,
            dialer,
            fetch_keys,
        })
    }

    /// The proxy over these accounts.
    pub(super) fn proxy(&self, config: &Config, resolver: Resolver) -> Result<Proxy, Error> {
        let upstream = Pool::new(self.dialer.clone(), Arc::clone(&self.roots), self.drain.clone());
        Ok(Proxy::new(Parts {
            gate: Gate::new(config.identity.clone(), Arc::clone(&self.fetch_keys), &self.drain)?,
            workload: Workload::Local,
            rules: self.rules.clone(),
            resolver,
            audit: self.audit.clone(),
            upstream: Upstream::new(upstream),
            dialer: self.dialer.clone(),
            downstream: downstream(&self.authority, &self.registry)?,
            ca_pem: self.authority.pem().to_owned(),
            tunnels: config.egress.tunnel.iter().map(|tunnel| tunnel.0.clone()).collect(),
            limits: config.limits.clone(),
            admin: Some(self.at.admin),
            metrics: Arc::new(Metrics::register(&self.registry, config.telemetry.tenant_labels)?),
            drain: self.drain.clone(),
        }))
    }
}
