//! The composition root of a broker: the vault, what keeps its tokens alive, and what sidecars and people ask. No proxy.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use prometheus::Registry;

use super::{
    Error, JWKS_BYTES, JWKS_LIMIT, dialer, fetch_keys, follow,
    listeners::{address, bind},
    open_audit, providers, refresh,
};
use crate::{
    admin::{Consents, Desk, Lifecycle, Site, Socket},
    audit::{self, Audit},
    broker::{self, Broker, Door, Metrics, Parts},
    config::Config,
    credential::{Local, Resolver},
    drain::Drain,
    fetch,
    identity::{FetchJwks, IssuerConfig, Workloads},
    regular,
    ruleset::{self, Rules},
    secret::Secret,
    telemetry,
    tls::{self, Alpn},
    vault::{self, Vault},
};

/// A running broker.
pub struct BrokerApp {
    /// Where sidecars connect.
    pub broker: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
    /// The rules in use.
    pub rules: Rules,
    /// Accounts at rest.
    pub vault: Vault,
    audit: Audit,
    registry: Registry,
    drain: Drain,
    limit: Duration,
}

impl BrokerApp {
    /// Starts a broker: everything is open and bound when this returns.
    ///
    /// # Errors
    /// [`Error`], with what to do; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let drain = Drain::default();
        let registry = telemetry::registry()?;
        let door = Door::open(&config.broker).await?;
        let workloads = workloads(&config.broker, &drain)?;
        let command = "keybearer vault serve".to_owned();
        let claim = vault::Claim { command, admin_socket: Some(config.admin_socket()) };
        let (vault, _made) = Vault::init(&config.vault, &config.data_dir, &claim, &drain).await?;
        let audit = open_audit(&config, &registry)?;
        let rules = Rules::load(&config.policies)?;
        let roots = config.egress.roots.load()?;
        let people = bind(config.listen.admin, "listen.admin").await?;
        let (at, admin) = (door.address, address(&people)?);
        let socket = Socket::bind(&config.admin_socket())?;

        let dialer = dialer(&config, &[at, admin])?;
        let (apps, transport) = providers::at_providers(&config, admin, (&dialer, &roots))?;
        let consents = Some(Consents::new(apps.clone(), transport.clone()));
        let engine = refresh::engine(&config, &vault, &rules, (apps, transport), &registry, &drain)?;
        let local = Local::new(Arc::new(vault.clone())).refreshing(engine.clone());
        let broker = Broker::new(
            config.broker.clone(),
            Parts {
                workloads,
                rules: rules.clone(),
                vault: vault.clone(),
                local: local.clone(),
                audit: audit.clone(),
                admin,
                metrics: Metrics::register(&registry)?,
                drain: drain.clone(),
            },
        );
        let told = broker.clone();
        let taken = move || told.rules_changed();
        follow::policy(&rules, Some(&engine), &audit, ruleset::Metrics::register(&registry)?, taken, &drain);
        // For the desk, and to drop what was minted: no request comes here.
        let resolver = Resolver::local(local);
        let desk =
            Desk::new(vault.clone(), audit.clone(), rules.clone(), resolver.clone(), consents, drain.clone());
        let lifecycle = Lifecycle::open(&config.lifecycle, &desk, &fetch_keys(&roots), &drain)?;
        let site = Site::new(desk.clone(), registry.clone(), &config.admin, lifecycle)?;
        let told = broker.clone();
        let known = move |change: &vault::Change| told.changed(change);
        follow::accounts(&vault, resolver, vault::Metrics::register(&registry)?, known, &drain);
        follow::lifecycle(&audit, "broker.started").await;
        // What an earlier process left undone is looked into before anybody is served.
        engine.recover().await?;
        engine.run(audit.clone());
        site.serve(people, &drain);
        socket.serve(desk, &drain);
        broker.serve(door, engine.replaced_tokens());
        let limit = config.limits.drain;
        Ok(Self { broker: at, admin, rules, vault, audit, registry, drain, limit })
    }

    /// Stops: takes no new connection, ends the watches, lets open requests finish within `limits.drain`, writes the
    /// audit log out. Returns how many tasks were still open when the time was up.
    pub async fn stop(self) -> usize {
        follow::stop(&self.drain, &self.audit, self.limit, "broker.stopped").await
    }

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

/// Who may say which workload they are, each with its own way to its keys.
fn workloads(config: &broker::Config, drain: &Drain) -> Result<Workloads, Error> {
    let mut issuers = Vec::with_capacity(config.issuers.len());
    for issuer in &config.issuers {
        issuer.roots.load()?; // so that a mistake shows at start
        issuers.push((issuer.clone(), fetching(issuer, drain)));
    }
    Ok(Workloads::open(issuers, &config.audience, drain).map_err(broker::Error::Issuer)?)
}

/// Fetches from an issuer as whom it knows. Token and roots are read anew each time: both are rotated.
fn fetching(issuer: &IssuerConfig, drain: &Drain) -> FetchJwks {
    let (roots, token, drain) = (issuer.roots.clone(), issuer.token_file.clone(), drain.clone());
    Arc::new(move |url| {
        let (roots, token, drain) = (roots.clone(), token.clone(), drain.clone());
        async move {
            let read = move || {
                let roots = roots.load().map_err(|error| error.to_string())?;
                let token = token.map(|path| bearer(&path)).transpose()?;
                Ok::<_, String>((roots, token))
            };
            let (roots, token) = drain.spawn_blocking(read).await.map_err(|error| error.to_string())??;
            let tls = Arc::new(tls::upstream_config(&roots, Alpn::H1));
            let fetched = fetch::get_as(token.as_ref(), &url, &tls, JWKS_BYTES, JWKS_LIMIT).await;
            fetched.map_err(|error| error.to_string())
        }
        .boxed()
    })
}

/// Far more than any token has, in bytes.
const LARGEST_TOKEN: u64 = 64 << 10;

fn bearer(path: &std::path::Path) -> Result<Secret, String> {
    let text = regular::read(path, LARGEST_TOKEN).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = zeroize::Zeroizing::new(text);
    match text.trim_ascii() {
        [] => Err(format!("{}: holds no token", path.display())),
        token => Ok(Secret::new(token.to_vec())),
    }
}
