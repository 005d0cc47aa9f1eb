//! A data path put together by hand, for what the app never does.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use keybearer::{
    audit::{self, Audit},
    config::Config,
    credential::Resolver,
    dial::{AddressGuard, Dialer},
    drain::Drain,
    identity::{Gate, Workload},
    proxy::{
        Limits, Metrics, Parts, Upstream,
        upstream::{self, Outbound},
    },
    ruleset::Rules,
    tls::{self, Authority, Downstream, Leaves},
    vault::{Claim, Vault},
};
use prometheus::Registry;

use super::stage::{SECRETS, account};

/// The parts of a proxy before an upstream that panics, with one account of acme's, and their audit.
pub(crate) async fn parts(dir: &Path, rules: Rules) -> Parts {
    tls::init_crypto();
    let (drain, registry) = (Drain::default(), Registry::new());
    let config = Config::default();
    let claim = Claim { command: "test".to_owned(), admin_socket: None };
    let (vault, _) = Vault::init(&config.vault, &dir.join("data"), &claim, &drain).await.unwrap();
    vault.add(account("acme", "crm", keybearer::id::Principal::Tenant, SECRETS[0].1)).await.unwrap();
    let audit =
        Audit::open(&config.audit, &dir.join("data"), &audit::Metrics::register(&registry).unwrap()).unwrap();
    let authority = Arc::new(Authority::open(None).unwrap());
    let leaves = Leaves::new(Arc::clone(&authority), 16, &tls::Metrics::register(&registry).unwrap());
    let fetch = Arc::new(|_| async { Err("no keys".to_owned()) }.boxed());
    Parts {
        gate: Gate::new(config.identity, fetch, &drain).unwrap(),
        workload: Workload::Local,
        rules,
        resolver: Resolver::new(Arc::new(vault)),
        audit,
        upstream: Upstream::new(tower::service_fn(
            async |_: Outbound| -> Result<http::Response<upstream::Body>, upstream::Error> {
                panic!("on purpose: the way to the provider is broken")
            },
        )),
        dialer: Dialer::new([].into(), AddressGuard::new(&[]), Duration::from_secs(1)),
        downstream: Downstream::new(Arc::new(leaves)).unwrap(),
        ca_pem: authority.pem().to_owned(),
        tunnels: Vec::new(),
        limits: Limits::default(),
        admin: None,
        metrics: Arc::new(Metrics::register(&registry, true).unwrap()),
        drain,
    }
}
