//! A running proxy, wherever its accounts come from.

use std::net::SocketAddr;

use super::{Failure, output::counted};
use crate::{
    app::{App, SidecarApp},
    config::Config,
    ruleset::Rules,
};

/// One of the two kinds.
pub(super) enum Served {
    Vault(Box<App>),
    Broker(Box<SidecarApp>),
}

impl Served {
    /// Starts the kind that is configured. `command` is who has the vault, for others who find it taken.
    pub(super) async fn start(config: Config, command: &str) -> Result<Self, Failure> {
        Ok(match config.vault.at_broker()? {
            Some(broker) => Self::Broker(Box::new(Box::pin(SidecarApp::start(config, broker)).await?)),
            None => Self::Vault(Box::new(Box::pin(App::start_as(config, command)).await?)),
        })
    }

    /// Where agents connect.
    pub(super) const fn proxy(&self) -> SocketAddr {
        match self {
            Self::Vault(app) => app.proxy,
            Self::Broker(app) => app.proxy,
        }
    }

    /// The certificate that agents are to trust.
    pub(super) fn ca_pem(&self) -> &str {
        match self {
            Self::Vault(app) => &app.ca_pem,
            Self::Broker(app) => &app.ca_pem,
        }
    }

    /// One line, which scripts wait for.
    pub(super) async fn greeting(&self, certificate: &str) -> Result<String, Failure> {
        let (proxy, transparent, admin, rules) = match self {
            Self::Vault(app) => (app.proxy, app.transparent, app.admin, &app.rules),
            Self::Broker(app) => (app.proxy, app.transparent, app.admin, &app.rules),
        };
        let transparent = transparent.map_or_else(String::new, |at| format!("redirected at {at}, "));
        Ok(format!(
            "keybearer {}: agents at http://{proxy}, {transparent}admin at http://{admin}, CA {certificate}; {}, {}",
            env!("CARGO_PKG_VERSION"),
            policy(rules),
            self.accounts().await?,
        ))
    }

    async fn accounts(&self) -> Result<String, Failure> {
        match self {
            Self::Vault(app) => {
                let count: usize = app.vault.status().await?.accounts.values().sum();
                Ok(counted(count, "account"))
            }
            Self::Broker(app) => Ok(format!("accounts at the broker {}", app.broker.url())),
        }
    }

    /// Stops. Returns how many connections and requests were still open when `limits.drain` was over.
    pub(super) async fn stop(self) -> usize {
        match self {
            Self::Vault(app) => app.stop().await,
            Self::Broker(app) => app.stop().await,
        }
    }
}

fn policy(rules: &Rules) -> String {
    match rules.in_use() {
        Some(rules) => {
            let summary = rules.summary();
            format!("{}, {}", counted(summary.connectors, "connector"), counted(summary.roles, "role"))
        }
        None => "the broker's policy".to_owned(),
    }
}
