//! The stage that the clients play on: shipped connectors, and one more for what they do besides.

use std::fs;

use keybearer::{id::Principal, vault::NewAccount};

use super::{NAMES, SECRETS};
use crate::support::{
    provider::Registries,
    stage::{Stage, Staging, account},
};

const DOCS: &str = include_str!("../../../docs/clients.md");

/// The connectors that clients reach; all but the first are shipped ones.
const CONNECTORS: [&str; 5] = ["plain", "openai", "anthropic", "github", "github-git"];

const POLICY: &str = r#"
apiVersion: keybearer.dev/v1
kind: Connector
metadata: {name: plain}
spec:
  hosts: ["api.provider.test"]
  auth: {type: static}
  inject: [{header: Authorization, value: "Bearer {token}"}]
  scopes: {things:read: [], things:write: []}
  operations:
    - {name: read, request: ["GET /echo", "GET /bytes/{n}", "GET /trailers", "GET /stream/{n}", "GET /ws"], scopes: [things:read]}
    - {name: write, request: ["POST /echo", "PUT /upload", "POST /upload"], scopes: [things:write]}
    - {name: call, request: ["POST /echo.Echo/Unary", "POST /echo.Echo/Stream"], scopes: [things:write]}
---
apiVersion: keybearer.dev/v1
kind: Role
metadata: {name: researcher}
spec:
  tenants: [acme, globex]
  grants:
    - {connector: plain, as: tenant, scopes: [things:read, things:write]}
    - {connector: openai, as: tenant, scopes: [inference:write]}
    - {connector: anthropic, as: tenant, scopes: [inference:write]}
    - {connector: github, as: tenant, scopes: [metadata:read, issues:write]}
    - {connector: packages, as: tenant}
    - {connector: github-git, as: tenant, scopes: [contents:read, contents:write]}
"#;

/// keybearer before a provider that has all of the clients' hosts.
pub(crate) async fn stage() -> Stage {
    let (policies, accounts, registries) = (policies(), accounts(), Registries::tiny());
    let names = NAMES.into_iter().chain(registries.hosts()).map(str::to_owned).collect();
    Stage::set(Staging { policies, accounts, names, registries, ..Staging::default() }).await
}

/// What the clients may do.
pub(crate) fn policies() -> Vec<(&'static str, String)> {
    let mut policies =
        vec![("policy.yaml", POLICY.to_owned()), ("packages.yaml", documented("kind: Connector").to_owned())];
    for file in ["openai.yaml", "anthropic.yaml", "github.yaml"] {
        let shipped = format!("{}/policies/connectors/{file}", env!("CARGO_MANIFEST_DIR"));
        policies.push((file, fs::read_to_string(shipped).unwrap()));
    }
    policies
}

/// The block of `docs/clients.md` that has this in it.
pub(crate) fn documented(text: &str) -> &'static str {
    let blocks = DOCS.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.into_iter().find(|block| block.contains(text)).expect("docs/clients.md has it")
}

/// An account of each tenant for each connector.
pub(crate) fn accounts() -> Vec<NewAccount> {
    let accounts = SECRETS.iter().flat_map(|(tenant, secret)| {
        CONNECTORS.map(|connector| account(tenant, connector, Principal::Tenant, secret))
    });
    accounts.collect()
}
