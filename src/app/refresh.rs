//! The engine that keeps tokens alive, put together.

use std::sync::Arc;

use prometheus::Registry;
use rustls::RootCertStore;

use super::Error;
use crate::{
    config::Config,
    credential::{Clock, Engine, Metrics, Parts},
    dial::Dialer,
    drain::Drain,
    id::ActionId,
    oauth::{Apps, Transport},
    ruleset::Rules,
    tls::{self, Alpn},
    vault::Vault,
};

/// An engine over this vault that asks token endpoints by the proxy's own way to providers: guard, roots, no redirects.
pub(super) fn engine(
    config: &Config,
    vault: &Vault,
    rules: &Rules,
    (dialer, roots): (&Dialer, &Arc<RootCertStore>),
    registry: &Registry,
    drain: &Drain,
) -> Result<Engine, Error> {
    let tls = Arc::new(tls::upstream_config(roots, Alpn::H1));
    let current = rules.clone();
    Ok(Engine::new(Parts {
        vault: vault.clone(),
        exchange: Arc::new(Transport::new(dialer.clone(), tls, config.refresh.timeout)),
        apps: Apps::load(&config.oauth)?,
        connectors: Arc::new(move |name| current.current().catalog.connector(name.as_str()).cloned()),
        clock: Clock::system(),
        config: config.refresh.clone(),
        metrics: Metrics::register(registry)?,
        drain: drain.clone(),
        replica: format!("process {}, {}", std::process::id(), ActionId::now()),
    }))
}
