//! What the demo stands on: a provider, the real proxy before it, four accounts, in a folder that is removed.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::Context as _;
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    agent::{Agents, Answer, Call},
    provider::{HOST, Key, Provider, Received},
};
use crate::{
    app::App,
    audit,
    config::{Config, Listen},
    dial::Override,
    drain::Drain,
    id::{AccountKey, ConnectorName, Principal, RoleName, TenantId},
    proxy::Egress,
    secret::Secret,
    tls::{CaConfig, Roots},
    vault::{Material, NewAccount},
};

const POLICIES: &str = include_str!("policies.yaml");
/// Tenant, and the role whose account it is; without a role, it is the whole tenant's.
const ACCOUNTS: [(&str, Option<&str>); 4] =
    [("acme", None), ("acme", Some("writer")), ("acme", Some("publisher")), ("globex", None)];

/// Everything that runs.
pub(super) struct World {
    pub(super) provider: Provider,
    pub(super) app: App,
    /// Accounts with what may be shown of their keys.
    pub(super) accounts: Vec<(String, String)>,
    agents: Agents,
    dir: TempDir,
}

impl World {
    /// Starts it all. With `at_home` the proxy listens where it does by default, if nobody else does.
    pub(super) async fn start(at_home: bool) -> anyhow::Result<Self> {
        let drain = Drain::default();
        let dir = tempfile::Builder::new()
            .prefix("keybearer-demo-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let (keys, new) = keys()?;
        let accounts = keys.iter().map(|key| (key.account.clone(), key.secret.masked())).collect();
        let provider = Provider::start(keys, &drain).await?;
        fs::create_dir(dir.path().join("policies"))?;
        fs::write(dir.path().join("policies/demo.yaml"), POLICIES)?;
        fs::write(dir.path().join("provider-root.pem"), &provider.root)?;
        let app = App::start(configuration(&dir, provider.address, at_home)).await?;
        for account in new {
            app.vault.add(account).await?;
        }
        fs::write(dir.path().join("ca.pem"), &app.ca_pem)?;
        let agents = Agents::new(app.proxy, &app.ca_pem, &drain)?;
        Ok(Self { provider, app, accounts, agents, dir })
    }

    /// Makes a call, and tells what the provider received meanwhile.
    pub(super) async fn call(&self, call: &Call) -> anyhow::Result<(Answer, Vec<Received>)> {
        let before = self.provider.received().len();
        let answer =
            self.agents.call(call).await.with_context(|| format!("{} {}", call.method, call.url()))?;
        Ok((answer, self.provider.received().split_off(before)))
    }

    /// The proxy's CA, for clients that tunnel.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What was recorded, and whether it holds together.
    pub(super) async fn audited(&self) -> anyhow::Result<(Vec<audit::Event>, audit::Report)> {
        self.app.flush().await?;
        let file = self.data_dir().join("audit.jsonl");
        let wanted = audit::Filter { kind: Some(audit::Kind::Action), ..audit::Filter::default() };
        let found = audit::query(&file, &wanted, usize::MAX)?;
        let events = found.events.into_iter().map(|recorded| recorded.event).collect();
        Ok((events, audit::verify_log(&file)?))
    }

    /// Stops the proxy; the folder goes with it.
    pub(super) async fn stop(self) {
        self.app.stop().await;
    }
}

/// The keys that the provider has given out, and the accounts that hold them.
fn keys() -> anyhow::Result<(Vec<Key>, Vec<NewAccount>)> {
    let mut keys = Vec::new();
    let mut accounts = Vec::new();
    for (tenant, role) in ACCOUNTS {
        let principal =
            role.map_or(Ok(Principal::Tenant), |role| RoleName::new(role).map(Principal::Role))?;
        let key =
            AccountKey { tenant: TenantId::new(tenant)?, connector: ConnectorName::new("crm")?, principal };
        let secret = Secret::new(format!("crm_{}", Uuid::now_v7().simple()).into_bytes());
        keys.push(Key { tenant, account: key.to_string(), secret: secret.clone() });
        let material = Material::Static { fields: BTreeMap::from([("token".to_owned(), secret)]) };
        accounts.push(NewAccount {
            key,
            material,
            scopes: None,
            metadata: BTreeMap::new(),
            authorization: None,
        });
    }
    Ok((keys, accounts))
}

/// Built here and not read, so that neither a file nor a variable of the user's changes the demo.
fn configuration(dir: &TempDir, provider: SocketAddr, at_home: bool) -> Config {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let home = Listen::default().proxy;
    let free = at_home && TcpListener::bind(home).is_ok();
    Config {
        listen: Listen { proxy: if free { home } else { anywhere }, admin: anywhere, ..Listen::default() },
        data_dir: dir.path().join("data"),
        policies: vec![dir.path().join("policies").into()],
        egress: Egress {
            allow_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST).into()],
            roots: Roots::File(dir.path().join("provider-root.pem")),
            resolve: HashMap::from([(HOST.to_owned(), Override::Address(provider))]),
            ..Egress::default()
        },
        ca: CaConfig { ephemeral: true, ..CaConfig::default() },
        ..Config::default()
    }
}
