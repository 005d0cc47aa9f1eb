//! The engine that keeps tokens alive, put together.

use std::sync::Arc;

use prometheus::Registry;

use super::Error;
use crate::{
    config::Config,
    credential::{Clock, Engine, Metrics, Parts},
    drain::Drain,
    id::ActionId,
    oauth::{Apps, Transport},
    ruleset::Rules,
    vault::Vault,
};

/// An engine over this vault.
pub(super) fn engine(
    config: &Config,
    vault: &Vault,
    rules: &Rules,
    (apps, transport): (Apps, Transport),
    registry: &Registry,
    drain: &Drain,
) -> Result<Engine, Error> {
    let (current, needed) = (rules.clone(), rules.clone());
    Ok(Engine::new(Parts {
        vault: vault.clone(),
        exchange: Arc::new(transport),
        apps,
        connectors: Arc::new(move |name| current.current().catalog.connector(name.as_str()).cloned()),
        needs: Arc::new(move |account, connector| {
            needed.current().needs(account, connector).map(|needs| needs.scopes).unwrap_or_default()
        }),
        clock: Clock::system(),
        config: config.refresh.clone(),
        metrics: Metrics::register(registry)?,
        drain: drain.clone(),
        replica: format!("process {}, {}", std::process::id(), ActionId::now()),
    }))
}
