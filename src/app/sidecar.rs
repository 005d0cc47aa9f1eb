//! The composition root of a proxy that has its accounts from a broker: no vault, no engine, no desk.

use std::{net::SocketAddr, time::Duration};

use super::{Error, follow, front::Front};
use crate::{
    admin::Site,
    audit::Audit,
    config::Config,
    credential::{BrokerMetrics, BrokerParts, Remote, Resolver},
    drain::Drain,
    ruleset::{self, Excerpt, Feed, Rules},
    telemetry,
    vault::AtBroker,
};

/// Until the broker is asked for the rules again, after that failed.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A running proxy whose accounts are at a broker.
pub struct SidecarApp {
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
    /// Where the accounts are.
    pub broker: Remote,
    audit: Audit,
    drain: Drain,
    limit: Duration,
}

impl SidecarApp {
    /// Starts a proxy: everything is open and bound when this returns. The broker need not be there yet: until it is,
    /// requests are refused, and `/readyz` says so.
    ///
    /// # Errors
    /// [`Error`], with what to do; nothing is left running.
    pub async fn start(config: Config, at: AtBroker) -> Result<Self, Error> {
        check(&config)?;
        let drain = Drain::default();
        let registry = telemetry::registry()?;
        let AtBroker { url, token_file, roots, timeout, offline_use } = at;
        let broker = Remote::open(BrokerParts {
            url,
            roots,
            token_file,
            timeout,
            patience: config.refresh.patience,
            offline_use,
            metrics: BrokerMetrics::register(&registry)?,
            drain: drain.clone(),
        })?;
        let (mut feed, from) = (None, format!("the broker {}", broker.url()));
        let rules = || {
            if !config.policies.is_empty() {
                return Ok(Rules::load(&config.policies)?);
            }
            let (rules, handed) = Rules::fed(&from);
            feed = Some(handed);
            Ok(rules)
        };
        let front = Front::open(&config, rules, registry, drain).await?;
        let resolver = Resolver::remote(broker.clone());
        let proxy = front.proxy(&config, resolver.clone())?;
        let Front { registry, drain, audit, rules, authority, at, .. } = front;
        follow::policy(&rules, None, &audit, ruleset::Metrics::register(&registry)?, || {}, &drain);
        let site = Site::at_broker(broker.clone(), audit.clone(), rules.clone(), registry);
        follow::lifecycle(&audit, "proxy.started").await;
        broker.follow(&resolver);
        follow::tidies(resolver, &drain);
        if let Some(feed) = feed {
            drain.spawn(until_stopped(fed(broker.clone(), feed, drain.clone()), drain.clone()));
        }
        site.serve(front.people, &drain);
        front.socket.serve_at_broker(broker.url(), &drain);
        drain.spawn(proxy.run(front.agents, front.transparent));
        Ok(Self {
            proxy: at.proxy,
            transparent: at.transparent,
            admin: at.admin,
            ca_pem: authority.pem().to_owned(),
            rules,
            broker,
            audit,
            drain,
            limit: config.limits.drain,
        })
    }

    /// Stops as [`App::stop`](super::App::stop) does.
    pub async fn stop(self) -> usize {
        follow::stop(&self.drain, &self.audit, self.limit, "proxy.stopped").await
    }
}

/// What is configured here and would do nothing.
fn check(config: &Config) -> Result<(), Error> {
    if config.lifecycle.scim.is_empty() && config.lifecycle.ssf.is_empty() {
        return Ok(());
    }
    let why =
        "lifecycle.scim and lifecycle.ssf change accounts, which are at the broker: configure them there";
    Err(Error::Config(why.to_owned()))
}

async fn until_stopped(work: impl Future<Output = ()>, drain: Drain) {
    tokio::select! {
        () = work => {}
        () = drain.begun() => {}
    }
}

/// Takes the broker's rules, now and whenever it says that they are others.
async fn fed(broker: Remote, mut feed: Feed, drain: Drain) {
    let mut revisions = broker.revisions();
    loop {
        if revisions.borrow_and_update().is_some() {
            match rules_of(&broker).await {
                Ok(rules) => {
                    let replaced = drain.spawn_blocking(move || {
                        feed.replace(rules);
                        feed
                    });
                    let Ok(again) = replaced.await else { return };
                    feed = again;
                }
                Err(why) => {
                    tracing::warn!(%why, "the broker's rules cannot be had; asking again");
                    tokio::time::sleep(ASK_AGAIN).await;
                    continue;
                }
            }
        }
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

async fn rules_of(broker: &Remote) -> Result<Excerpt, String> {
    let text = broker.policy().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
