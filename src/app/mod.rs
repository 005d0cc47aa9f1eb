//! The composition root: opens everything, binds everything, returns the addresses, then serves.

mod broker;
mod follow;
mod front;
mod listeners;
mod providers;
mod refresh;
mod sidecar;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use prometheus::Registry;

use self::front::Front;
pub use self::{broker::BrokerApp, providers::consents_alone, sidecar::SidecarApp};
use crate::{
    admin::{self, Consents, Desk, Lifecycle, Site},
    audit::{self, Audit},
    config::Config,
    credential::{BrokerError, Local, Resolver},
    dial::{AddressGuard, Dialer},
    drain::Drain,
    fetch,
    identity::{self, FetchJwks},
    oauth, proxy,
    ruleset::{self, LoadError, Rules},
    telemetry,
    tls::{self, Alpn, Authority, Bundle, Downstream, Leaves},
    vault::{self, Vault},
};

/// Leaves kept: one for each host that agents ask for.
const LEAVES: usize = 4096;
/// The largest key set, in bytes, and how long its issuer may take.
const JWKS_BYTES: usize = 1 << 20;
const JWKS_LIMIT: Duration = Duration::from_secs(10);

/// A running proxy.
pub struct App {
    /// Where agents connect.
    pub proxy: SocketAddr,
    /// Where connections are redirected to, if they are.
    pub transparent: Option<SocketAddr>,
    /// Metrics and health.
    pub admin: SocketAddr,
    /// The certificate that agents are to trust.
    pub ca_pem: String,
    /// The rules in use.
    pub rules: Rules,
    /// Accounts at rest.
    pub vault: Vault,
    audit: Audit,
    registry: Registry,
    drain: Drain,
    limit: Duration,
}

/// Why the proxy did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The vault.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// The policy files.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// The CA, or the roots that providers are checked by.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The apps of the oauth section.
    #[error(transparent)]
    Oauth(#[from] oauth::ConfigError),
    /// The identity section.
    #[error(transparent)]
    Identity(#[from] identity::ConfigError),
    /// The broker's listener, certificate or issuers.
    #[error(transparent)]
    Broker(#[from] crate::broker::Error),
    /// The token or the roots for the broker that has the accounts.
    #[error(transparent)]
    AtBroker(#[from] BrokerError),
    /// The admin socket or its token.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// A listener.
    #[error("cannot listen on {address} ({key}); is another keybearer running, or the port taken?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What configures it.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A value that makes no sense.
    #[error("{0}")]
    Config(String),
    /// Metrics.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

impl App {
    /// Starts a proxy: everything is open and bound when this returns.
    ///
    /// # Errors
    /// [`Error`], with what to do; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_as(config, "keybearer proxy").await
    }

    /// [`App::start`] by another command, which whoever finds the vault taken is told of.
    ///
    /// # Errors
    /// [`Error`], with what to do; nothing is left running.
    pub async fn start_as(config: Config, command: &str) -> Result<Self, Error> {
        let drain = Drain::default();
        let registry = telemetry::registry()?;
        let claim = vault::Claim { command: command.to_owned(), admin_socket: Some(config.admin_socket()) };
        let (vault, _made) = Vault::init(&config.vault, &config.data_dir, &claim, &drain).await?;
        let front =
            Front::open(&config, || Ok(Rules::load(&config.policies)?), registry.clone(), drain.clone())
                .await?;
        let at_providers = providers::at_providers(&config, front.at.admin, (&front.dialer, &front.roots))?;
        let consents = Some(Consents::new(at_providers.0.clone(), at_providers.1.clone()));
        let engine = refresh::engine(&config, &vault, &front.rules, at_providers, &registry, &drain)?;
        let resolver = Resolver::local(Local::new(Arc::new(vault.clone())).refreshing(engine.clone()));
        let proxy = front.proxy(&config, resolver.clone())?;
        let Front { audit, rules, authority, at, .. } = front;
        follow::policy(&rules, Some(&engine), &audit, ruleset::Metrics::register(&registry)?, || {}, &drain);
        let desk =
            Desk::new(vault.clone(), audit.clone(), rules.clone(), resolver.clone(), consents, drain.clone());
        let lifecycle = Lifecycle::open(&config.lifecycle, &desk, &front.fetch_keys, &drain)?;
        let site = Site::new(desk.clone(), registry.clone(), &config.admin, lifecycle)?;
        follow::accounts(&vault, resolver, vault::Metrics::register(&registry)?, |_| {}, &drain);
        follow::lifecycle(&audit, "proxy.started").await;
        // What an earlier process left undone is looked into before anybody is served.
        engine.recover().await?;
        engine.run(audit.clone());
        site.serve(front.people, &drain);
        front.socket.serve(desk, &drain);
        drain.spawn(proxy.run(front.agents, front.transparent));
        Ok(Self {
            proxy: at.proxy,
            transparent: at.transparent,
            admin: at.admin,
            ca_pem: authority.pem().to_owned(),
            rules,
            vault,
            audit,
            registry,
            drain,
            limit: config.limits.drain,
        })
    }

    /// Stops: takes no new connection, lets open requests finish within `limits.drain`, writes the audit log
    /// out. Returns how many tasks were still open when the time was up.
    pub async fn stop(self) -> usize {
        follow::stop(&self.drain, &self.audit, self.limit, "proxy.stopped").await
    }
}

impl App {
    /// The metrics in Prometheus' text format, as `/metrics` serves them.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn metrics(&self) -> Result<Vec<u8>, prometheus::Error> {
        telemetry::exposition(&self.registry)
    }

    /// Waits until everything recorded so far is on the disk.
    ///
    /// # Errors
    /// When the audit log cannot be written.
    pub async fn flush(&self) -> Result<(), audit::Error> {
        self.audit.flush().await
    }
}

fn open_audit(config: &Config, registry: &Registry) -> Result<Audit, Error> {
    let metrics = audit::Metrics::register(registry)?;
    Ok(Audit::open(&config.audit, &config.data_dir, &metrics)?)
}

fn downstream(authority: &Arc<Authority>, registry: &Registry) -> Result<Downstream, Error> {
    let leaves = Leaves::new(Arc::clone(authority), LEAVES, &tls::Metrics::register(registry)?);
    Ok(Downstream::new(Arc::new(leaves))?)
}

fn open_authority(config: &Config) -> Result<Authority, Error> {
    let dir = config.ca.dir.as_deref().filter(|_| !config.ca.ephemeral);
    let authority = Authority::open(dir)?;
    if let Some(bundle) = &config.ca.bundle {
        Bundle::with_roots(authority.pem()).publish(bundle)?;
    }
    Ok(authority)
}

/// Dials what the guard lets pass, which is none of our own addresses.
fn dialer(config: &Config, own: &[SocketAddr]) -> Result<Dialer, Error> {
    let guard = AddressGuard::new(&config.egress.allow_addresses);
    for address in own {
        guard.add_own(*address);
    }
    let overrides = proxy::overrides(&config.egress).map_err(Error::Config)?;
    Ok(Dialer::new(overrides, guard, config.limits.connect_timeout))
}

/// Fetches key sets with the same roots as providers are checked by.
fn fetch_keys(roots: &Arc<rustls::RootCertStore>) -> FetchJwks {
    let config = Arc::new(tls::upstream_config(roots, Alpn::H1));
    Arc::new(move |url| {
        let config = Arc::clone(&config);
        async move {
            let fetched = fetch::get(&url, &config, JWKS_BYTES, JWKS_LIMIT).await;
            fetched.map_err(|error| error.to_string())
        }
        .boxed()
    })
}
